"""Watches a GPU from outside, through `nvidia-smi`: memory in use, and whether kernels ran."""

from __future__ import annotations

import subprocess
import threading
from types import TracebackType
from typing import Self

__all__ = ["GpuMeter", "gpu_name"]

PERIOD_MS = 250
QUERY_TIMEOUT_S = 30.0


def gpu_name() -> str:
    """Name of the first GPU; empty if there is none, or no driver."""
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "--id=0"],
            capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()


class GpuMeter:
    """Samples the first GPU in the background; a context.

    `busy` is what the driver calls utilisation: the share of the time in which some kernel ran.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: list[tuple[float, float]] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                "nvidia-smi", "--id=0", "--query-gpu=memory.used,utilization.gpu",
                "--format=csv,noheader,nounits", f"--loop-ms={PERIOD_MS}",
            ],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def take(self) -> tuple[float, float] | None:
        """Means of (memory in MiB, busy share) since the last call; None without a sample."""
        with self._lock:
            samples, self._samples = self._samples, []
        if not samples:
            return None
        return sum(used for used, _ in samples) / len(samples), sum(busy for _, busy in samples) / len(samples) / 100

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            used, _, busy = line.partition(",")
            with self._lock:
                self._samples.append((float(used), float(busy)))
