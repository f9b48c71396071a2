"""Detection servers of a benchmark, each with a client of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from contestant import Contestant, cpu_seconds
from stage_process import ANY_PORT, StageProcess, environment, pss_bytes

__all__ = ["DetectionServer"]

SUPPORT = Path(__file__).parent
CLIENT_TIMEOUT_S = 30.0
# Beyond the time that a run was asked for: the requests that are still in flight then.
ANSWER_TIMEOUT_S = 120.0


class DetectionServer:
    """One server, its workers and a client; a context.

    Args:
        settings: keys of the section `detection`.
        image: what the client sends.
        prefix: words before the command, for what is done to a process from outside.
        start_timeout_s: to be READY.

    Attributes:
        address: of its gRPC port, for further clients.
        variables: the environment that it and its clients run in.

    Resource handling:
        Leaving the context ends the client, stops the server and, if need be, kills it; its workers end with it.
    """

    def __init__(
        self, settings: Mapping[str, Any], image: Path, *, prefix: Sequence[str] = (), start_timeout_s: float = 120.0
    ) -> None:
        self._process = process = StageProcess("detection")
        own = ANY_PORT | {"drain_notice_s": 0, "drain_grace_s": 2, "start_timeout_s": start_timeout_s}
        self.variables = environment(process.folder) | {
            f"SLUICEWAY_DETECTION__{key}".upper(): value if isinstance(value, str) else json.dumps(value)
            for key, value in (own | dict(settings)).items()
        }
        self._start_timeout_s = start_timeout_s
        self.start_s = 0.0
        process.start([*prefix, sys.executable, "-m", "sluiceway_detection"], self.variables)
        self.address = process.address
        # The client is outside of any limit that is put on the server.
        command = [sys.executable, str(SUPPORT / "detection_load.py"), self.address, str(image)]
        self._client = Contestant(command, self.variables, start_timeout_s=CLIENT_TIMEOUT_S)

    def wait_ready(self) -> Self:
        """Return once it takes images and has answered as many as warm every worker."""
        most_s = self._start_timeout_s + 10
        while not self._process.ready(most_s):
            time.sleep(0.05)
        while any(worker["state"] != "ready" for worker in self.workers):
            if self._process.age_s > most_s:
                raise SystemExit(f"workers did not become ready: {self.workers}")
            time.sleep(0.05)
        self.start_s = self._process.age_s
        self._client.wait_ready()
        self.run(0.5, 2 * len(self.workers))
        return self

    @property
    def status(self) -> dict[str, Any]:
        """What it tells operators of itself."""
        return self._process.status

    @property
    def workers(self) -> list[dict[str, Any]]:
        """State, process, cores, threads and items of each worker."""
        found: list[dict[str, Any]] = self.status.get("workers", [])
        return found

    def memory_bytes(self) -> int:
        """Of front and workers, shared pages counted once."""
        return pss_bytes([self._process.pid, *(worker["pid"] for worker in self.workers)])

    def begin(self, seconds: float, in_flight: int) -> None:
        """Let the client load it; `end` waits."""
        workers = self.workers
        self._before = {worker["pid"]: worker["items"] for worker in workers}
        self._cpu_before = self._cpu_seconds()
        self._seconds = seconds
        self._client.begin(seconds, in_flight)

    def end(self) -> dict[str, Any]:
        """What the client measured; what front, workers and client used; how many items each worker computed."""
        found = self._client.end(self._seconds + ANSWER_TIMEOUT_S)
        now = self._cpu_seconds()
        items = {worker["pid"]: worker["items"] - self._before.get(worker["pid"], 0) for worker in self.workers}
        images = max(1, sum(items.values()))
        cpu_ms = {part: (now[part] - self._cpu_before[part]) * 1000 / images for part in now}
        # The clock of CPU time ticks every 10 ms: of single images it says nothing.
        return found | {"items": items} | ({"cpu_ms_per_image": cpu_ms} if self._seconds else {})

    def run(self, seconds: float, in_flight: int) -> dict[str, Any]:
        """`begin` and `end`."""
        self.begin(seconds, in_flight)
        return self.end()

    def _cpu_seconds(self) -> dict[str, float]:
        workers = sum(cpu_seconds(worker["pid"]) for worker in self.workers)
        return {
            "front": cpu_seconds(self._process.pid),
            "workers": workers,
            "client": cpu_seconds(self._client.pid),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, trace)
        self._process.stop()
