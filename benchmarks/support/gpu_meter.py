"""Watches a GPU from outside, through `nvidia-smi`: memory in use, and whether kernels ran."""

from __future__ import annotations

import contextlib
import statistics
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
        self._used_mib: list[float] = []
        self._busy_percent: list[float] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                "nvidia-smi", "--id=0", "--query-gpu=memory.used,utilization.gpu",
                "--format=csv,noheader,nounits", f"--loop-ms={PERIOD_MS}",
            ],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()

    def take(self) -> tuple[float | None, float | None]:
        """Means of (memory in MiB, busy share) since the last call; None for what the driver has not said."""
        with self._lock:
            used, self._used_mib = self._used_mib, []
            busy, self._busy_percent = self._busy_percent, []
        return statistics.fmean(used) if used else None, statistics.fmean(busy) / 100 if busy else None

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._lock:
                for text, samples in zip(line.split(","), (self._used_mib, self._busy_percent), strict=False):
                    # "[N/A]" is what a driver says that does not know: of a part of a GPU, say.
                    with contextlib.suppress(ValueError):
                        samples.append(float(text))
        process.stdout.close()
