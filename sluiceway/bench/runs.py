"""Runs of a benchmark: load, and what is made of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sluiceway.bench.arrivals import Arrival, poisson
from sluiceway.bench.load import Load, Send
from sluiceway.bench.search import Closed, Knee, KneeSearch, Open
from sluiceway.bench.summary import Summary, summarise

__all__ = ["Watch", "Window", "find_knee", "run_closed", "run_open"]

# Told of each stretch of load as it begins: what it is, how long it will last in seconds, and the load itself.
Watch = Callable[[str, float, Load], None]


@dataclass(frozen=True, slots=True)
class Window:
    """What of a run counts: `seconds`, behind a warm-up."""

    warm_up_s: float
    seconds: float

    @property
    def end_s(self) -> float:
        """When the last request that counts is due, at the latest."""
        return self.warm_up_s + self.seconds

    def summary(self, load: Load, goal_s: float | None, *, by_end: bool = False) -> Summary:
        """Sum up what was due inside or, for callers that wait, what ended inside."""
        return summarise(load.outcomes, self.warm_up_s, self.end_s, goal_s, by_end=by_end)


async def run_open(send: Send, arrivals: Iterable[Arrival], window: Window, *, timeout_s: float, watch: Watch) -> Load:
    """Send arrivals as they are due, and wait for their ends."""
    load = Load(send, timeout_s=timeout_s)
    watch("open loop", window.end_s, load)
    await load.open(arrivals)
    return load


async def run_closed(
    send: Send, in_flight: int, sources: int, window: Window, *, timeout_s: float, watch: Watch
) -> Load:
    """Let callers that wait for their answers send until the window ends."""
    load = Load(send, timeout_s=timeout_s)
    watch(f"closed loop, {in_flight} in flight", window.end_s, load)
    await load.closed(in_flight, window.end_s, sources)
    return load


async def find_knee(
    send: Send, sources: int, *, goal_s: float, budget_s: float, chance: random.Random, watch: Watch
) -> tuple[Knee, Summary | None]:
    """Look for the highest rate that keeps the goal.

    Returns:
        The knee, and the figures of the trial whose rate was nearest to it; None without one.
    """
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    search = KneeSearch(goal_s, budget_s)
    summaries: dict[float, Summary] = {}
    while (trial := search.next_trial(loop.time() - begun_s)) is not None:
        load = Load(send, timeout_s=search.give_up_s)
        trial_begun_s = loop.time()
        match trial:
            case Closed():
                watch(f"{trial.in_flight} callers", trial.seconds, load)
                await load.closed(trial.in_flight, trial.seconds, sources)
                latencies_s = [outcome.latency_or_never_s for outcome in load.outcomes]
                search.add_closed(latencies_s, loop.time() - trial_begun_s)
            case Open():
                watch(f"{trial.rate_per_s:.1f} a second", trial.seconds, load)
                await load.open(poisson(trial.rate_per_s, trial.seconds, sources, chance))
                counted = sorted(
                    (outcome for outcome in load.outcomes if outcome.due_s >= trial.warm_up_s),
                    key=lambda outcome: outcome.due_s,
                )
                search.add_open(trial, [outcome.latency_or_never_s for outcome in counted])
                window = Window(trial.warm_up_s, trial.seconds - trial.warm_up_s)
                summaries[trial.rate_per_s] = window.summary(load, goal_s)
    knee = search.knee()
    if knee.rate_per_s is None or not summaries:
        return knee, None
    nearest = min(summaries, key=lambda rate: abs(rate - (knee.rate_per_s or 0.0)))
    return knee, summaries[nearest]
