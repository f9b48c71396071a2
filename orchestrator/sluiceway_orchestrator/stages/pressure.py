"""How long work waits for each stage, as stages are scaled by it: sampled and smoothed here, where the waits are."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.metrics.waits import Waits

from sluiceway_orchestrator.stages.balancer import REPORT_LIFETIME_S, Occupancy

__all__ = ["Pressure", "PressedStage", "Pressures", "wait_s"]

# A load step is seen within a second, by autoscalers that ask every five to fifteen. A lull has to last before it
# counts: the oldest wait falls to nothing each time that a batch is taken.
RISE_S = 0.5
FALL_S = 20.0
SAMPLE_S = 0.25
# Below it nobody waits, and what is left of an earlier wait is none.
NOTHING_S = 0.001


class Member(Protocol):
    """What is read of a replica."""

    @property
    def occupancy(self) -> Occupancy:
        """What it last reported."""
        ...


class PressedStage(Protocol):
    """What is read of a stage.

    Attributes:
        pressed: called when something begins to wait, here or in a replica; `Pressures` sets it.
    """

    pressed: Callable[[], None]

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def waits(self) -> Waits:
        """Those of calls and sources for a replica."""
        ...

    @property
    def replicas(self) -> Iterable[Any]:
        """Those that there are, each a `Member`."""
        ...


class Pressure:
    """One smoothed wait. Pure: time comes in.

    Attributes:
        value_s: seconds; 0 where nothing waits and nothing has for a while.
    """

    def __init__(self) -> None:
        self.value_s = 0.0
        self._at_s: float | None = None

    def sample(self, waited_s: float, now_s: float) -> None:
        """Take in how long the oldest has waited by now."""
        elapsed_s = 0.0 if self._at_s is None else max(0.0, now_s - self._at_s)
        self._at_s = now_s
        constant_s = RISE_S if waited_s > self.value_s else FALL_S
        value_s = self.value_s + (waited_s - self.value_s) * -math.expm1(-elapsed_s / constant_s)
        self.value_s = value_s if value_s >= NOTHING_S or waited_s > 0 else 0.0


def wait_s(stage: PressedStage, now_s: float) -> float:
    """How long the oldest has waited, in this process for a replica and then in the queue of the fullest one."""
    members: Iterable[Member] = stage.replicas
    reported = [
        member.occupancy.report.queue_ms / 1000
        for member in members
        if now_s - member.occupancy.reported_s < REPORT_LIFETIME_S
    ]
    return stage.waits.oldest_s(now_s) + max(reported, default=0.0)


class Pressures:
    """The pressure on each stage of this process, from `start` to `close`; sampled while something waits."""

    def __init__(self, stages: Iterable[PressedStage]) -> None:
        self._stages = {stage.name: (stage, Pressure()) for stage in stages}
        self._pressed = asyncio.Event()
        for stage, _ in self._stages.values():
            stage.pressed = self._pressed.set
        self._task: asyncio.Task[None] | None = None

    def of(self, stage: str) -> float:
        """Seconds."""
        pressed, pressure = self._stages[stage]
        if self._task is not None:
            now_s = monotonic()
            pressure.sample(wait_s(pressed, now_s), now_s)
        return pressure.value_s

    def sample(self, now_s: float) -> bool:
        """Look at every stage once; returns whether something waits for one."""
        waits = False
        for stage, pressure in self._stages.values():
            waited_s = wait_s(stage, now_s)
            pressure.sample(waited_s, now_s)
            waits = waits or waited_s > 0
        return waits

    def start(self) -> None:
        """Look again and again."""
        self._task = asyncio.create_task(self._run(), name="pressures")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        self._relieve(monotonic())
        while True:
            await asyncio.sleep(SAMPLE_S)
            if not self.sample(monotonic()):
                self._pressed.clear()
                await self._pressed.wait()
                # Until now nothing has waited: how long it was so counts as that.
                self._relieve(monotonic())

    def _relieve(self, now_s: float) -> None:
        for _, pressure in self._stages.values():
            pressure.sample(0.0, now_s)
