"""The handler of recognition workers, with a clock around each of its stages; see `stage_clock`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from device_clock import DeviceClock
from sluiceway_recognition.worker import handler
from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.pool.handler import Finish, OverlappingHandler
from sluiceway_runtime.pool.payload import Payload
from stage_clock import FOLDER_VARIABLE, StageClock

__all__ = ["TimedHandler", "create"]


def create(config: Mapping[str, Any]) -> TimedHandler:
    """Make what the server would, and put clocks into it."""
    return TimedHandler(cast("OverlappingHandler", handler.create(config)))


class TimedHandler:
    """Passes everything on, and counts how long it took.

    `wait` is what the worker's thread waits for the device; the rest of its time is `prepare` and `answer`.
    """

    def __init__(self, inner: OverlappingHandler) -> None:
        self._inner = inner
        self._stages = StageClock(Path(os.environ[FOLDER_VARIABLE]))
        self._device = DeviceClock()

    def setup(self, placement: Placement) -> Mapping[str, Any]:
        """Load and warm; not counted."""
        facts = self._inner.setup(placement)
        self._device.install()
        return facts

    def run(self, batch: Sequence[Payload]) -> Sequence[Payload | SluicewayError]:
        """Compute a batch at once."""
        return self.launch(batch)()

    def launch(self, batch: Sequence[Payload]) -> Finish:
        """Start a batch."""
        finish = self._timed("prepare", lambda: self._inner.launch(batch))
        return lambda: self._timed("answer", finish)

    def _timed(self, stage: str, action: Callable[[], Any]) -> Any:
        begun_s = time.perf_counter()
        result = action()
        took_ms = (time.perf_counter() - begun_s) * 1000
        device = self._device.take()
        waited_ms = device.pop("wait")
        self._stages.add(**{stage: took_ms - waited_ms}, wait=waited_ms, **device)
        return result
