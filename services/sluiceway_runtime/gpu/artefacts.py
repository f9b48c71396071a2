"""Compiled graphs on disk: found by all that they depend on, checked before use, replaced when damaged."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from sluiceway_runtime.gpu.shapes import Shape
from sluiceway_runtime.weights.store import file_sha256

__all__ = ["Artefacts"]

log = logging.getLogger(__name__)

# Counts up when what lies in a folder changes its meaning.
FORMAT = "2"


class Artefacts:
    """The artefacts of one module on one kind of device.

    Where nothing can be written, as in a container's own file system, they lie in a temporary folder until `close`.

    Args:
        root: folder of all artefacts.
        name: of the module; only for people who look at the folder.
        facts: all that an artefact depends on beside its shape.
    """

    def __init__(self, root: Path, name: str, facts: Mapping[str, str]) -> None:
        self._facts = {"format": FORMAT, **facts}
        text = json.dumps(self._facts, sort_keys=True).encode()
        tidy = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        self.folder = root / f"{tidy}-{hashlib.sha256(text).hexdigest()[:16]}"
        self._temporary = False

    def find(self, shape: Shape) -> Path | None:
        """The artefact of a shape, or None if there is none that is whole and ours."""
        path = self._path(shape)
        try:
            note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            whole = note["shape"] == _described(shape) and note["facts"] == self._facts
            return path if whole and note["sha256"] == file_sha256(path) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def draft(self, shape: Shape) -> Path:
        """Where a builder may write, within `building`; `keep` makes an artefact of it."""
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=f"{shape.name}-", suffix=".part.bin")
        os.close(handle)
        return Path(name)

    def keep(self, shape: Shape, draft: Path) -> Path:
        """Make a draft the artefact of a shape. The note comes last: without it the artefact does not count."""
        path = self._path(shape)
        note = {"shape": _described(shape), "facts": self._facts, "sha256": file_sha256(draft)}
        path.with_suffix(".json").unlink(missing_ok=True)
        draft.replace(path)
        written = draft.with_suffix(".json")
        written.write_text(json.dumps(note, indent=1), encoding="utf-8")
        written.replace(path.with_suffix(".json"))
        return path

    def discard(self, shape: Shape) -> None:
        """Remove an artefact that turned out to be of no use."""
        self._path(shape).with_suffix(".json").unlink(missing_ok=True)
        self._path(shape).unlink(missing_ok=True)

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Held by the one worker that builds; the others wait, and then find what they need."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = _locked(self.folder)
        except OSError as error:
            log.warning("compiled graphs cannot be kept in %s, every start makes them again: %s", self.folder, error)
            self._temporary = True
            self.folder = Path(tempfile.mkdtemp(prefix="sluiceway-gpu-"))
            file = _locked(self.folder)
        with file:
            for left in self.folder.glob("*.part.*"):
                left.unlink(missing_ok=True)  # of a builder that was killed; nobody else builds now
            yield

    def close(self) -> None:
        """Remove what lies in a temporary folder; what was loaded from there stays loaded."""
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, shape: Shape) -> Path:
        return self.folder / f"{shape.name}.bin"


def _locked(folder: Path) -> TextIO:
    """The folder's lock, held until it is closed. Raises OSError also where the file system has no locks."""
    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        file.close()
        raise
    return file


def _described(shape: Shape) -> Any:
    return [[spec.dtype, list(spec.shape)] for spec in shape.inputs]
