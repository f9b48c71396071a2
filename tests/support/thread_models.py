"""Detectors that run more threads than they may, or as many, but one after the other."""

from __future__ import annotations

import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from sluiceway_detection.types import Region
from sluiceway_runtime.cores import selfcheck

Image = np.ndarray
# Too few looks say nothing. On a machine that stands still now and then, it takes longer until there are enough.
selfcheck.MOST_S = 20.0
NOISE = np.random.default_rng(1).integers(0, 255, 2**17, np.uint8).tobytes()


def compute() -> None:
    """Some milliseconds of one core, without the interpreter's lock."""
    zlib.compress(NOISE)


class SpinningDetector:
    """Starts three threads of its own that never rest, as a library with spinning barriers does."""

    classes = ("row",)

    def setup(self, device: str) -> None:
        for _ in range(3):
            threading.Thread(target=self._spin, name="spinner", daemon=True).start()

    def _spin(self) -> None:
        while True:
            compute()

    def __call__(self, batch: list[Image]) -> list[list[Region]]:
        compute()
        return [[] for _ in batch]


class DelegatingDetector:
    """Has the work done by a thread of its own, and waits for it."""

    classes = ("row",)

    def setup(self, device: str) -> None:
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, batch: list[Image]) -> list[list[Region]]:
        self._thread.submit(compute).result()
        return [[] for _ in batch]


class PickyDetector:
    """Takes no drawn page."""

    classes = ("row",)

    def setup(self, device: str) -> None:
        pass

    def __call__(self, batch: list[Image]) -> list[list[Region]]:
        raise ValueError("not my kind of picture")
