"""Processes of a benchmark that run on command, so that several can start at the same moment and take turns.

A child writes `ready` and, for each line `run ...` on its standard input, one line of JSON; it ends with that input.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Contestant", "cpu_seconds", "obey", "repeat"]

END_TIMEOUT_S = 10.0
TICKS = os.sysconf("SC_CLK_TCK")


class Contestant:
    """One child; a context. What it writes to standard error goes to ours."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, start_timeout_s: float) -> None:
        self._name = Path(command[1]).name if len(command) > 1 else command[0]
        self._start_timeout_s = start_timeout_s
        self._process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def wait_ready(self) -> Self:
        """Return once it can be told to run."""
        line = self._line(self._start_timeout_s)
        if line != "ready":
            raise SystemExit(f"{self._name} did not become ready but said {line!r}")
        return self

    def begin(self, seconds: float, *arguments: float) -> None:
        """Let it run; `end` waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(["run", str(seconds), *map(str, arguments)]) + "\n")
        self._process.stdin.flush()

    def end(self, timeout_s: float) -> dict[str, Any]:
        """What it measured."""
        found: dict[str, Any] = json.loads(self._line(timeout_s))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S if error is None else 0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _line(self, timeout_s: float) -> str:
        assert self._process.stdout is not None
        # It writes whole lines and never two at a time, so nothing waits unseen in the reader's buffer.
        readable, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        if not readable:
            raise SystemExit(f"{self._name} has not answered for {timeout_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._name} ended with exit code {self._process.wait()}")
        return line.strip()


def obey(run: Callable[..., Mapping[str, Any]]) -> None:
    """The child's side: say ready, run what is told, until the parent closes the input."""
    print("ready", flush=True)
    for line in sys.stdin:
        _, *arguments = line.split()
        print(json.dumps(run(*map(float, arguments))), flush=True)


def repeat(seconds: float, work: Callable[[], object]) -> dict[str, Any]:
    """Repeat one piece of work, at least once, for so long; when each ended and what each took."""
    begun_s = time.perf_counter()
    took_ms = []
    while (start_s := time.perf_counter()) - begun_s < seconds or not took_ms:
        work()
        took_ms.append((time.perf_counter() - start_s) * 1000)
    elapsed_s = time.perf_counter() - begun_s
    return {"per_s": len(took_ms) / elapsed_s, "took_ms": took_ms}


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
