"""Who reads: how each is started, and in which environment."""

from __future__ import annotations

import ast
import hashlib
import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from sluiceway_runtime import weights

from benchmarks.support.environments import environment

__all__ = ["CONTESTANTS", "EARLIER", "Contestant", "Reader", "Settings", "code_digest", "turboocr_files"]

ROOT = Path(__file__).parents[2]
READING = Path(__file__).parent / "reading"
READY_S, ANSWER_S = 600.0, 300.0
EARLIER = "earlier"
# One thread each, so that CPU time is that of the work and not of waiting.
ALONE = {
    f"SLUICEWAY_{stage}__{key}": value
    for stage in ("DETECTION", "RECOGNITION")
    for key, value in (("WORKERS", "1"), ("THREADS_PER_WORKER", "1"), ("DEVICE", "cpu"))
}


@dataclass(frozen=True)
class Settings:
    """What differs from machine to machine.

    Attributes:
        peer_python: a Python that peers can be installed for: TurboOCR wants 3.12 or newer.
        other: the checkout of an earlier version of ours, with its own `.venv`.
    """

    peer_python: Path
    other: Path | None = None


@dataclass(frozen=True)
class Contestant:
    """A reader and its settings.

    Attributes:
        title: for people.
        script: in reading/.
        requirements: of its environment; none where it is a checkout of ours.
        options: told to the script.
        files: makes those options that depend on files.
        earlier: whether it is another checkout of ours.
    """

    title: str
    script: str
    requirements: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    files: Callable[[Path], dict[str, str]] | None = None
    earlier: bool = False

    def command(self, settings: Settings, work: Path) -> list[str]:
        """How it is started; its environment is made where it is missing."""
        options = self.options | (self.files(work) if self.files else {})
        return [str(self._python(settings)), str(READING / self.script), json.dumps(options)]

    def folder(self, settings: Settings) -> Path:
        """Where it is started: servers of ours import what lies there before what is installed."""
        return settings.other if self.earlier and settings.other else ROOT

    def fingerprint(self, settings: Settings) -> str:
        """Changes with whatever decides what it reads."""
        parts = [self.script, json.dumps(self.options, sort_keys=True), *self.requirements]
        parts.append(code_digest([READING / self.script]))
        if not self.requirements:
            parts += [_sources(self.folder(settings))]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _python(self, settings: Settings) -> Path:
        if self.earlier:
            assert settings.other is not None
            return settings.other / ".venv" / "bin" / "python"
        if not self.requirements:
            return Path(sys.executable)
        return environment(Path(self.script).stem, self.requirements, settings.peer_python)


def _sources(checkout: Path) -> str:
    """A digest of all that a checkout of ours reads with."""
    folders = ("sluiceway", "services", "orchestrator", "cluster/sluiceway_cluster")
    return code_digest([path for folder in folders for path in sorted((checkout / folder).rglob("*"))])


def code_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of what code and data do: comments and the layout of Python do not count, nor do other files."""
    found = hashlib.sha256()
    for path in paths:
        if path.suffix == ".py":
            found.update(ast.dump(ast.parse(path.read_text(encoding="utf-8"))).encode())
        elif path.suffix in {".toml", ".onnx"}:
            found.update(path.read_bytes())
    return found.hexdigest()


def turboocr_files(work: Path) -> dict[str, str]:
    """A folder with the very files that our default uses, under the names that TurboOCR looks for."""
    folder = work / "turboocr-models"
    folder.mkdir(parents=True, exist_ok=True)
    detector = weights.resolve("ppocrv6-tiny-det", kind="detection")
    recogniser = weights.resolve("ppocrv6-tiny", kind="recognition")
    for name, path in (
        ("det_tiny.onnx", detector.path),
        ("rec_tiny.onnx", recogniser.path),
        ("cls.onnx", recogniser.files["upright"]),
    ):
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    characters = yaml.safe_load(recogniser.files["config"].read_text(encoding="utf-8"))["PostProcess"]["character_dict"]
    (folder / "keys_tiny.txt").write_text("".join(f"{character}\n" for character in characters), encoding="utf-8")
    return {"models": str(folder.resolve())}


def _ours(title: str, words: bool = False, **variables: str) -> Contestant:
    return Contestant(title, "read_sluiceway.py", options={"variables": ALONE | variables, "words": words})


CONTESTANTS: dict[str, Contestant] = {
    "sluiceway": _ours("Sluiceway, as it comes (tiny models)", words=True),
    "sluiceway-small": _ours(
        "Sluiceway, small models",
        SLUICEWAY_DETECTION__MODEL="ppocrv6-small-det",
        SLUICEWAY_RECOGNITION__MODELS='["ppocrv6-small"]',
    ),
    "sluiceway-text-nano": _ours("Sluiceway, text-nano", SLUICEWAY_DETECTION__MODEL="text-nano"),
    "turboocr": Contestant(
        "TurboOCR 4.0.0a8, OpenVINO, the same tiny models",
        "read_turboocr.py",
        ("turboocr-engine-openvino==4.0.0a8",),
        files=turboocr_files,
    ),
    "rapidocr": Contestant(
        "RapidOCR 3.10.0, ONNX Runtime, small models", "read_rapidocr.py", ("rapidocr==3.10.0", "onnxruntime==1.23.2")
    ),
    EARLIER: replace(
        _ours("Sluiceway at d52d825, before it knew lines, with text-nano", SLUICEWAY_DETECTION__MODEL="text-nano"),
        earlier=True,
    ),
}


class Reader:
    """A contestant that runs; a context. What it says beside answers goes to a log."""

    def __init__(self, command: list[str], log: Path, folder: Path) -> None:
        self._log, self._name = log.open("ab"), Path(command[1]).name
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def __enter__(self) -> Self:
        self._line(READY_S)
        return self

    def read(self, path: Path, *, again: bool = False) -> dict[str, Any]:
        """What it reads in a file; `again` for its CPU time alone: see reading/protocol.py.

        Raises:
            SystemExit: it ended, or does not answer.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"path": str(path.resolve()), "again": again}) + "\n")
        self._process.stdin.flush()
        return self._line(ANSWER_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _line(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        # It writes whole lines and never two at a time, so nothing waits unseen in the reader's buffer.
        readable, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if readable else ""
        if not line:
            self._process.kill()
            raise SystemExit(f"{self._name} gave no answer; see {self._log.name}")
        answer: dict[str, Any] = json.loads(line)
        return answer
