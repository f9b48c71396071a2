"""How long a worker spent where: added up in a small file that the benchmark reads while the worker writes it."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

__all__ = ["FOLDER_VARIABLE", "STAGES", "StageClock", "read_clocks"]

# How workers hear of the folder: a recognition server starts them.
FOLDER_VARIABLE = "BENCH_STAGE_CLOCK"
# On the device: the two copies and the computation between them. On the host: what is done before a batch is launched,
# waiting for its end, and making answers of it.
STAGES = ("copy_in", "compute", "copy_out", "prepare", "wait", "answer")
_LAYOUT = struct.Struct(f"{len(STAGES)}d")


class StageClock:
    """Milliseconds by stage, in a file of this process's own."""

    def __init__(self, folder: Path) -> None:
        path = folder / f"{os.getpid()}.clock"
        path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._spent_ms = dict.fromkeys(STAGES, 0.0)

    def add(self, **spent_ms: float) -> None:
        """Add to stages."""
        for name, value in spent_ms.items():
            self._spent_ms[name] += value
        _LAYOUT.pack_into(self._shared, 0, *self._spent_ms.values())


def read_clocks(folder: Path) -> dict[str, float]:
    """The sums over all workers, in seconds by stage."""
    totals = dict.fromkeys(STAGES, 0.0)
    for path in folder.glob("*.clock"):
        for name, value in zip(STAGES, _LAYOUT.unpack(path.read_bytes()), strict=True):
            totals[name] += value / 1000
    return totals
