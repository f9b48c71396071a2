"""Recognition servers of a benchmark: started as operators start them, from a checkout or from an installation."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["ROOT", "Server", "environment", "pss_bytes"]

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT, ROOT / "services", ROOT / "orchestrator", Path(__file__).parent)
STOP_TIMEOUT_S = 20.0
INSTANT = {"name": "instant", "recognizer": "instant:InstantRecogniser"}
# The end of the log that is shown when a server fails.
LOG_TAIL = 4000
PROGRESS_S = 5.0


def environment(folder: Path) -> dict[str, str]:
    """Variables with which a process finds the sources of this checkout.

    Args:
        folder: for the name and version of the distribution, which servers tell, where it is not installed.
    """
    paths = [*map(str, SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        metadata.version("sluiceway")
    except metadata.PackageNotFoundError:
        facts = folder / "distribution" / "sluiceway-0.dist-info"
        facts.mkdir(parents=True, exist_ok=True)
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: sluiceway\nVersion: 0\n", encoding="utf-8")
        paths.append(str(facts.parent))
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


class Server:
    """One recognition server and its workers; a context.

    Args:
        models: of the configuration: names, or tables.
        device: `cpu`, `cuda:0` and so on.
        start_timeout_s: to be READY, with everything compiled.
        settings: further keys of the section, as TOML values.
        program: of this folder, run in the place of the server's own.
        variables: of its environment.
        progress: is told what it logs last, every few seconds until it is READY.

    Attributes:
        start_s: how long it took to be READY.

    Resource handling:
        Leaving the context stops it and, if need be, kills it; its workers end with it. It ends with this process, too.
    """

    def __init__(
        self,
        models: Sequence[str | dict[str, Any]],
        *,
        device: str,
        start_timeout_s: float,
        settings: dict[str, str] | None = None,
        program: str = "",
        variables: dict[str, str] | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._models = models
        self._command = [str(Path(__file__).parent / program)] if program else ["-m", "sluiceway_recognition"]
        self._variables = variables or {}
        self._progress = progress
        self._timeout_s = start_timeout_s
        self._settings = {"device": json.dumps(device), "start_timeout_s": str(start_timeout_s), **(settings or {})}
        self._folder = tempfile.TemporaryDirectory(prefix="bench-recognition-")
        self._log = Path(self._folder.name) / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self.start_s = 0.0
        with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
            self._port, self._operations = first.getsockname()[1], second.getsockname()[1]

    @property
    def address(self) -> str:
        """Of its gRPC port."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of the front."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return [worker["pid"] for worker in self.status()["workers"] if worker["pid"]]

    def status(self) -> dict[str, Any]:
        """What it tells operators of itself."""
        found: dict[str, Any] = json.loads(self._get("/statusz") or "{}")
        return found

    def metrics(self) -> dict[str, float]:
        """Its metrics by name, those of all workers added up."""
        values: dict[str, float] = {}
        for line in (self._get("/metrics") or "").splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                values[name.partition("{")[0]] = values.get(name.partition("{")[0], 0.0) + float(value)
        return values

    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.log()[-LOG_TAIL:], file=sys.stderr, flush=True)
        self._stop()

    def _start(self) -> None:
        folder = Path(self._folder.name)
        configuration = folder / "sluiceway.toml"
        settings = {"port": str(self._port), "operations_port": str(self._operations), "drain_notice_s": "0"}
        lines = ["[recognition]", *(f"{key} = {value}" for key, value in (settings | self._settings).items())]
        for model in self._models:
            table = {"name": model} if isinstance(model, str) else model
            lines += ["[[recognition.models]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        ours, self._lifeline = os.pipe()
        variables = environment(folder) | self._variables | {"SLUICEWAY_PARENT_PIPE": str(ours)}
        begun_s = told_s = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._command, "--config", str(configuration)],
                env=variables, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(ours,),
            )  # fmt: skip
        os.close(ours)
        while self._get("/readyz") is None:
            if self._process.poll() is not None:
                raise SystemExit(f"the server ended with {self._process.returncode}:\n{self.log()[-LOG_TAIL:]}")
            if time.monotonic() - begun_s > self._timeout_s:
                raise SystemExit(f"the server is not ready after {self._timeout_s:.0f} s:\n{self.log()[-LOG_TAIL:]}")
            if time.monotonic() - told_s > PROGRESS_S:
                told_s = time.monotonic()
                self._progress(f"starting: {(self.log().strip().splitlines() or ['...'])[-1]}")
            time.sleep(0.05)
        self.start_s = time.monotonic() - begun_s

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self._folder.cleanup()

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._operations}{path}", timeout=5) as answer:
                text: str = answer.read().decode()
                return text
        except (OSError, urllib.error.HTTPError):
            return None


def pss_bytes(pids: Sequence[int]) -> int:
    """Memory of processes, shared pages counted once in all: the sum of their proportional set sizes."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        total += int(text.split("\nPss:")[1].split()[0]) * 1024
    return total
