"""What stages are scaled by: quick to see a load step, slow to forget it, and nothing where nothing waits."""

from __future__ import annotations

import asyncio
import math

import pytest
from sluiceway_orchestrator.scaler.reading import Reading, joined
from sluiceway_orchestrator.stages import pressure as module
from sluiceway_orchestrator.stages.balancer import Occupancy, Report
from sluiceway_orchestrator.stages.pressure import SAMPLE_S, Pressure, Pressures, wait_s
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.metrics.waits import Waits
from waiting import until

TARGET_S = 0.25


class Replica:
    def __init__(self, queue_ms: float, reported_s: float) -> None:
        self.occupancy = Occupancy(4)
        self.occupancy.reported(Report(queue_ms=queue_ms), reported_s)


class Stage:
    name = "words"

    def __init__(self, *replicas: Replica) -> None:
        self.replicas = replicas
        self.waits = Waits()


def fed(pressure: Pressure, begin_s: float, waits_s: list[float]) -> float:
    """Sample as the server does; returns when."""
    for waited_s in waits_s:
        begin_s += SAMPLE_S
        pressure.sample(waited_s, begin_s)
    return begin_s


def test_a_load_step_crosses_the_target_within_two_seconds() -> None:
    pressure = Pressure()
    pressure.sample(0.0, 100.0)
    # The oldest of a line that grows; it can have waited no longer than the load is there.
    for step in range(1, 8):
        pressure.sample(step * SAMPLE_S, 100.0 + step * SAMPLE_S)
    assert pressure.value_s > 2 * TARGET_S


def test_it_does_not_follow_the_teeth_of_a_saw() -> None:
    pressure = Pressure()
    at_s = fed(pressure, 0.0, [0.7] * 20)
    # A batch is taken every second: the oldest wait falls to nothing, and grows again.
    seen = []
    for _ in range(30):
        for waited_s in (0.0, 0.25, 0.5, 0.75):
            at_s = fed(pressure, at_s, [waited_s])
            seen.append(pressure.value_s)
    # One replica is asked to become as many at the lowest as at the highest.
    assert {math.ceil(value_s / TARGET_S) for value_s in seen} == {3}


def test_a_lull_counts_when_it_lasts_and_then_is_nothing() -> None:
    pressure = Pressure()
    at_s = fed(pressure, 0.0, [1.0] * 40)
    at_s = fed(pressure, at_s, [0.0] * int(5 / SAMPLE_S))
    assert pressure.value_s > 0.7
    fed(pressure, at_s, [0.0] * int(180 / SAMPLE_S))
    assert pressure.value_s == 0.0


def test_waits_here_and_in_the_fullest_replica_are_one_after_the_other() -> None:
    stage = Stage(Replica(100.0, 9.9), Replica(300.0, 9.9), Replica(5000.0, 7.0))
    stage.waits.begin(8.0)
    # The third has not reported for a while.
    assert wait_s(stage, 10.0) == pytest.approx(2.0 + 0.3)


async def test_sampled_again_and_again_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_S", 0.001)
    stage = Stage()
    pressures = Pressures([stage])
    stage.waits.begin(monotonic() - 5.0)
    pressures.start()
    await until(lambda: pressures.of("words") >= TARGET_S)
    await pressures.close()
    value_s = pressures.of("words")
    await asyncio.sleep(0.05)
    assert pressures.of("words") == value_s


def test_orchestrators_together_know_the_worst() -> None:
    assert joined(()) == Reading()
    few, many = Reading(wait_ms=10, replicas=2), Reading(wait_ms=300, active=True, replicas=1)
    assert joined([few, many]) == Reading(wait_ms=300, active=True, replicas=2)
