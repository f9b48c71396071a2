"""The process of one server in a benchmark: started as operators start it, from a checkout or from an installation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["ANY_PORT", "LOG_TAIL", "StageProcess", "environment", "pss_bytes"]

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT, ROOT / "services", ROOT / "orchestrator", Path(__file__).parent)
# Each server finds its ports by itself: whoever looked for free ones could only hope that they stay so.
ANY_PORT = {"port": 0, "operations_port": 0}
LISTENING = re.compile(r"listening on \S+:(\d+), operations on (\d+)")
# It listens before it loads anything.
LISTEN_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
# The end of the log that is shown when a server fails.
LOG_TAIL = 4000


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


class StageProcess:
    """One server that may be started once. It ends with this process, too.

    Args:
        name: of the benchmark's part, for its folder.

    Attributes:
        folder: that it runs in; gone after `stop`.
    """

    def __init__(self, name: str) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix=f"bench-{name}-")
        self.folder = Path(self._temporary.name)
        self._ports: tuple[int, int] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._begun_s = 0.0

    def start(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        """Run a command that serves on ports of its own choice, `ANY_PORT`, and logs them; returns at once."""
        ours, self._lifeline = os.pipe()
        self._begun_s = time.monotonic()
        try:
            with (self.folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    command, env={**variables, "SLUICEWAY_PARENT_PIPE": str(ours)}, cwd=self.folder,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(ours,),
                )  # fmt: skip
        finally:
            os.close(ours)

    @property
    def pid(self) -> int:
        """Of the front."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def address(self) -> str:
        """Of its gRPC port, on loopback; waits until it listens.

        Raises:
            SystemExit: it has ended, or does not listen in time; with the end of its log.
        """
        while (ports := self._listening()) is None:
            self._require_running(LISTEN_TIMEOUT_S, "does not listen")
            time.sleep(0.02)
        return f"127.0.0.1:{ports[0]}"

    @property
    def age_s(self) -> float:
        """Time since `start`."""
        return time.monotonic() - self._begun_s

    @property
    def log(self) -> str:
        """What it wrote so far."""
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def status(self) -> dict[str, Any]:
        """What it tells operators of itself."""
        found: dict[str, Any] = json.loads(self.get("/statusz") or "{}")
        return found

    def ready(self, within_s: float) -> bool:
        """Whether it is READY.

        Raises:
            SystemExit: it has ended, or is older than it may be; with the end of its log.
        """
        if self.get("/readyz") is not None:
            return True
        self._require_running(within_s, "is not ready")
        return False

    def get(self, path: str) -> str | None:
        """A page of the operations port, None where there is none."""
        if (ports := self._listening()) is None:
            return None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}{path}", timeout=5) as answer:
                text: str = answer.read().decode()
                return text
        except (OSError, urllib.error.HTTPError):
            return None

    def _listening(self) -> tuple[int, int] | None:
        """Its ports, for gRPC and for operators, once it has told them."""
        if self._ports is None and (told := LISTENING.search(self.log)):
            self._ports = int(told[1]), int(told[2])
        return self._ports

    def _require_running(self, within_s: float, what: str) -> None:
        assert self._process is not None, "not started"
        if (code := self._process.poll()) is not None:
            raise SystemExit(f"the server ended with {code}:\n{self.log[-LOG_TAIL:]}")
        if self.age_s > within_s:
            raise SystemExit(f"the server {what} after {within_s:.0f} s:\n{self.log[-LOG_TAIL:]}")

    def stop(self) -> None:
        """Stop it and, if need be, kill it; its workers end with it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self._temporary.cleanup()


def pss_bytes(pids: Sequence[int]) -> int:
    """Memory of processes, shared pages counted once in all: the sum of their proportional set sizes."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        total += int(text.split("\nPss:")[1].split()[0]) * 1024
    return total
