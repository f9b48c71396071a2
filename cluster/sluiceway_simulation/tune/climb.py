"""From the smallest setting upward: each step adds what gains the most, until nothing gains any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sluiceway_simulation.planning.predict import Prediction, predict
from sluiceway_simulation.profiles.model import Workers, cluster_of, load_of
from sluiceway_simulation.profiles.profile import PipelineProfile
from sluiceway_simulation.tune.goal import ENOUGH, Aim, Goal

__all__ = ["Point", "Setting", "Step", "climb", "recommended"]

Setting = tuple[tuple[str, Workers], ...]
# A step that gains less is within what measurements differ by.
LEAST_GAIN = 0.02
# Simulated seconds of each setting: some hundred images on two cores.
LASTS_S = 12.0


@dataclass(frozen=True, slots=True)
class Point:
    """A setting and what it does, in the model."""

    setting: Setting
    prediction: Prediction
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Step:
    """One step upward.

    Attributes:
        what: that was added, in words.
        point: where it led.
        gain: the part by which it is better than the one before; 0 for the first.
    """

    what: str
    point: Point
    gain: float


def climb(
    profile: PipelineProfile, goal: Goal, tried: Callable[[Point], None] = lambda _: None
) -> tuple[list[Step], list[Point]]:
    """Climb until no single step gains anything, or the goal is met.

    Args:
        profile: of the machine.
        goal: what is wanted.
        tried: told of each setting.

    Returns:
        The steps from the smallest setting on, and all settings that were looked at.
    """
    known: dict[Setting, Point] = {}

    def look(setting: Setting) -> Point:
        if setting not in known:
            known[setting] = _point(profile, goal, setting)
            tried(known[setting])
        return known[setting]

    here = look(tuple((kind, Workers()) for kind in profile.stages))
    steps = [Step("the smallest", here, 0.0)]
    while not goal.met_by(here.prediction):
        ways = [(what, look(setting)) for what, setting in _further(here.setting, profile)]
        if not ways:
            break
        what, best = max(ways, key=lambda way: goal.worth(way[1].prediction))
        before, after = goal.worth(here.prediction), goal.worth(best.prediction)
        gain = after / before - 1 if before else 1.0
        if gain < LEAST_GAIN:
            break
        here = best
        steps.append(Step(what, here, gain))
    return steps, list(known.values())


def recommended(goal: Goal, steps: list[Step], points: list[Point]) -> Point:
    """The setting to take."""
    met = [point for point in points if goal.met_by(point.prediction)]
    if met:
        return min(met, key=lambda point: (point.memory_mb, point.prediction.p99_ms))
    if goal.aim is Aim.LEAST_MEMORY:
        best = max(point.prediction.per_s for point in points)
        enough = [point for point in points if point.prediction.per_s >= ENOUGH * best]
        return min(enough, key=lambda point: (point.memory_mb, -point.prediction.per_s))
    return steps[-1].point


def _point(profile: PipelineProfile, goal: Goal, setting: Setting) -> Point:
    workers = dict(setting)
    total = sum(its.workers for its in workers.values())
    prediction = predict(
        cluster_of(profile, workers, cores=profile.cores),
        load_of(profile, goal.rate_per_s or 1.0),
        lasts_s=LASTS_S,
        timeout_s=10.0,
        orchestrator_ms=profile.orchestrator_ms + profile.client_ms,
        # Twice what the workers hold: nobody waits for work, and little waits for a worker.
        callers=None if goal.rate_per_s else 2 * total,
    )
    memory_mb = sum(its.workers * profile.stages[kind].memory_mb for kind, its in setting)
    return Point(setting, prediction, memory_mb)


def _further(setting: Setting, profile: PipelineProfile) -> Iterator[tuple[str, Setting]]:
    """Each way to add a little: workers, or threads that were measured."""
    workers: Mapping[str, Workers] = dict(setting)
    for kind, its in workers.items():
        stage = profile.stages[kind]
        # In steps of a quarter, so that large machines are climbed as fast as small ones.
        more = its.workers + max(1, its.workers // 4)
        if more * its.threads <= profile.cores:
            yield f"{kind}: {more} workers", _with(setting, kind, Workers(more, its.threads))
        threads = [count for count in sorted(stage.batch_ms) if count > its.threads]
        if threads and its.workers * threads[0] <= profile.cores:
            yield f"{kind}: {threads[0]} threads", _with(setting, kind, Workers(its.workers, threads[0]))


def _with(setting: Setting, kind: str, its: Workers) -> Setting:
    return tuple((name, its if name == kind else other) for name, other in setting)
