"""Server processes for tests that cause faults: started as operators start them, and proven to be gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from ports import free_ports
from sluiceway_orchestrator.config import OrchestratorConfig
from waiting import wait_until

SUPPORT = Path(__file__).parent
START_TIMEOUT_S = 120.0
# Models that only read what is written into a picture; see ledger_models.
LEDGER = {
    "detection": {"DETECTOR": "ledger_models:LedgerDetector", "WORKERS": "2", "QUEUE_ITEMS": "64"},
    "recognition": {"MODELS": '[{"name": "ledger", "recognizer": "ledger_models:LedgerRecognizer"}]', "WORKERS": "2"},
    "orchestrator": {"HTTP__ENABLED": "false"} if "http" in OrchestratorConfig.model_fields else {},
}


def is_running(process: psutil.Process) -> bool:
    """Whether it is there and more than an entry that nobody has read the exit code of."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Member:
    """One server.

    Args:
        section: detection, recognition or orchestrator.
        folder: for its log.
        settings: keys of its section, in upper case.
        environment: further variables.
        prefix: words before the command, for what is done to a process from outside (`prlimit`, `unshare`).
        log: where it writes instead of a file in `folder`.
    """

    def __init__(
        self,
        section: str,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        self.section = section
        self.port, self.operations_port = free_ports(2)
        values = {
            "PORT": str(self.port),
            "OPERATIONS_PORT": str(self.operations_port),
            "DRAIN_NOTICE_S": "0",
            "DRAIN_GRACE_S": "10",
            **LEDGER[section],
            **(settings or {}),
        }
        path = os.pathsep.join(filter(None, (str(SUPPORT), os.environ.get("PYTHONPATH"))))
        self._environment = (
            os.environ
            | {"PYTHONPATH": path}
            | {f"SLUICEWAY_{section.upper()}__{key}": value for key, value in values.items()}
            | (environment or {})
        )
        self._command = [*prefix, sys.executable, "-m", f"sluiceway_{section}"]
        self._folder = folder
        self._log = log or folder / f"{section}-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: set[psutil.Process] = set()

    @property
    def address(self) -> str:
        """Of its gRPC port."""
        return f"127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def front(self) -> psutil.Process:
        """The server's own process, beside its workers."""
        return psutil.Process(self.process.pid)

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text(errors="replace")

    def start(self, *, wait: bool = True) -> Self:
        """Start it, again if need be; its port stays the same."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Return once it takes work."""

        def ready() -> bool:
            assert self.process.poll() is None, f"{self.section} ended with {self.process.returncode}:\n{self.log}"
            return self.get("/readyz")[0] == 200

        wait_until(ready, what=f"{self.section} is ready", within_s=START_TIMEOUT_S)
        self.remember()

    def get(self, path: str) -> tuple[int, str]:
        """Ask the operations port; status 0 if there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.operations_port}{path}", timeout=15) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError:
            return 0, ""

    def status(self) -> dict[str, Any]:
        """What `/statusz` says."""
        status, text = self.get("/statusz")
        assert status == 200, text
        found: dict[str, Any] = json.loads(text)
        return found

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        return [child for child in self.front.children() if child.name() == "sluice-worker"]

    def remember(self) -> None:
        """Note every process that belongs to it now, to prove later that all are gone."""
        self._seen |= {self.front, *self.front.children(recursive=True)}

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the server a signal."""
        self.remember()
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.kill(signal.SIGTERM)
        return self.process.wait(30)

    def assert_gone(self) -> None:
        """No process that ever belonged to it is left."""
        wait_until(lambda: not any(map(is_running, self._seen)), what=f"no process of {self.section} is left")
        self._seen.clear()

    def end(self) -> None:
        """Whatever happened: end it."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
            self._process.wait(30)


class Fleet:
    """Servers of one test. Leaving it stops them, orchestrators first, and asserts that nothing of them is left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.members: list[Member] = []
        self._shared_memory = _shared_memory()

    def add(self, section: str, settings: Mapping[str, str] | None = None, **more: Any) -> Member:
        """A server that is not started yet."""
        self.members.append(Member(section, self._folder, settings, **more))
        return self.members[-1]

    def cluster(
        self, *, replicas: int = 1, settings: Mapping[str, Mapping[str, str]] | None = None, **more: Any
    ) -> tuple[list[Member], list[Member], Member]:
        """Start detection, recognition and one orchestrator that knows them all."""
        given = settings or {}
        stages = {
            section: [self.add(section, given.get(section), **more).start(wait=False) for _ in range(replicas)]
            for section in ("detection", "recognition")
        }
        targets = {name.upper(): ",".join(member.address for member in found) for name, found in stages.items()}
        orchestrator = self.add("orchestrator", targets | dict(given.get("orchestrator", {})), **more)
        orchestrator.start(wait=False)
        for member in (*stages["detection"], *stages["recognition"], orchestrator):
            member.wait_ready()
        return stages["detection"], stages["recognition"], orchestrator

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for member in sorted(self.members, key=lambda member: member.section != "orchestrator"):
                if member._process is not None and member.process.poll() is None:
                    code = member.stop()
                    assert error is not None or code == 0, f"{member.section} ended with {code}:\n{member.log[-3000:]}"
            for member in self.members:
                member.assert_gone()
            assert _shared_memory() == self._shared_memory
        finally:
            for member in self.members:
                member.end()


def _shared_memory() -> set[str]:
    """Payloads go through memory without a name; nothing of ours may ever appear under one."""
    return {path.name for path in Path("/dev/shm").iterdir() if "sluice" in path.name}
