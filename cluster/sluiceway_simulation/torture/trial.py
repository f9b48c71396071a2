"""Running one trial: first what must never happen, under all faults; then what must happen, once they are over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from sluiceway_simulation.clients import Ask, Heard, Stream
from sluiceway_simulation.cluster import Cluster
from sluiceway_simulation.stages.pictures import Picture
from sluiceway_simulation.torture.checkers.answers import check_answer
from sluiceway_simulation.torture.checkers.bounds import check_bounds
from sluiceway_simulation.torture.checkers.ending import check_ending
from sluiceway_simulation.torture.checkers.log import listening
from sluiceway_simulation.torture.faults import befall
from sluiceway_simulation.torture.plan import Fault, Job, Trial
from sluiceway_simulation.torture.story import Story
from sluiceway_simulation.virtual_time import Stuck, current_loop, simulate

__all__ = ["Verdict", "run"]

LOOK_EVERY_S = 0.25
# Before the faults end: for the last of them to happen, and longer than most last.
CALM_AFTER_S = 3.0
# Between the end of all faults and the jobs that must succeed: a broken connection is noticed after 15 s, and a worker
# that was restarted in vain is tried again after 2 s.
SETTLE_S = 20.0
PROBE_TIMEOUT_S = 30.0
# Of a trial: far above what any takes.
MOST_S = 1000.0


@dataclass(slots=True)
class Verdict:
    """What came of a trial.

    Attributes:
        wrong: what must not be, in the order in which it was found; empty if all is well.
        digest: of everything that happened.
        events: messages, timers, arrivals and faults.
        outcomes: how jobs ended, by reason.
        story: lines for people.
    """

    seed: int
    wrong: list[str] = field(default_factory=list)
    digest: str = ""
    events: int = 0
    simulated_s: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)


def run(trial: Trial) -> Verdict:
    """Run a trial."""
    verdict = Verdict(trial.seed)
    with listening() as logged:
        try:
            simulate(partial(_run, trial, verdict), seed=trial.seed)
        except Stuck as error:
            verdict.wrong.append(f"stuck: {error}")
        except TimeoutError:
            verdict.wrong.append(f"it has not ended within {MOST_S:g} s")
    verdict.wrong += logged
    return verdict


async def _run(trial: Trial, verdict: Verdict) -> None:
    await _Trial(trial, verdict).run()


class _Trial:
    """A trial while it runs."""

    def __init__(self, trial: Trial, verdict: Verdict) -> None:
        self._trial = trial
        self._verdict = verdict
        self._story = Story()
        self._cluster = Cluster(trial.cluster, trial.seed, self._story.note, watched=True)
        self._loop = current_loop()
        self._heard: list[Heard] = []
        self._streams: dict[str, Stream] = {}

    async def run(self) -> None:
        begun_s = self._loop.time()
        try:
            async with asyncio.timeout(MOST_S):
                await self._phases(begun_s)
        finally:
            verdict = self._verdict
            verdict.wrong = [*dict.fromkeys(self._cluster.faults), *verdict.wrong]
            verdict.digest = self._story.digest
            verdict.events = self._loop.fired
            verdict.simulated_s = self._loop.time() - begun_s
            verdict.story = list(self._story.lines)

    async def _phases(self, begun_s: float) -> None:
        trial, cluster = self._trial, self._cluster
        await cluster.start()
        watch = asyncio.create_task(self._watch())
        faults = [asyncio.create_task(self._befall(fault, begun_s)) for fault in trial.faults]
        jobs = [asyncio.create_task(self._ask(job, begun_s)) for job in trial.jobs]
        last_s = max([job.at_s for job in trial.jobs] + [fault.at_s for fault in trial.faults], default=0.0)
        await asyncio.sleep(last_s + CALM_AFTER_S)
        self._story.tell("all faults end")
        for fault in faults:
            fault.cancel()
        if faults:
            await asyncio.wait(faults)
        if jobs:
            await asyncio.wait(jobs)
        for stream in self._streams.values():
            await stream.finish()
            self._note_wrong(stream.faults)
        await asyncio.sleep(SETTLE_S)
        await self._probe()
        watch.cancel()
        await asyncio.wait((watch,))
        self._note_wrong([f"{task.get_name()}: {task.exception()!r}" for task in (*jobs, *faults) if _broke(task)])
        self._note_wrong(wrong for heard in self._heard for wrong in check_answer(trial, heard))
        async for wrong in check_ending(cluster):
            self._note_wrong([wrong])

    async def _befall(self, fault: Fault, begun_s: float) -> None:
        await asyncio.sleep(begun_s + fault.at_s - self._loop.time())
        self._story.tell(f"fault: {fault}")
        try:
            await befall(self._cluster, fault)
        finally:
            self._story.tell(f"over: {fault}")

    async def _ask(self, job: Job, begun_s: float) -> None:
        await asyncio.sleep(begun_s + job.at_s - self._loop.time())
        ask = job.ask
        self._story.tell(f"{ask.job_id}: {len(ask.pictures)} sources, {ask.priority.name}, {ask.timeout_s:g} s")
        if self._trial.streams:
            heard = await self._stream(job.client).ask(ask)
        else:
            client = self._cluster.client(job.client)
            heard = await client.ask(ask)
            await client.close()
        self._heard.append(heard)
        outcome = heard.reason or ("done" if heard.succeeded else "some failed")
        self._verdict.outcomes[outcome] = self._verdict.outcomes.get(outcome, 0) + 1
        self._story.tell(f"{ask.job_id}: {outcome} {dict(heard.failures()) or ''} after {heard.took_s:.4f} s")

    def _stream(self, client: str) -> Stream:
        known = self._streams.get(client)
        if known is None:
            known = self._streams[client] = self._cluster.stream(client)
        return known

    async def _probe(self) -> None:
        """With all faults over, everything works."""
        for number in range(self._trial.probes):
            for pipeline in self._trial.pipelines:
                picture = Picture(1_000_000 + number, 3)
                ask = Ask(f"probe {number} {pipeline}", (picture,), timeout_s=PROBE_TIMEOUT_S, pipeline=pipeline)
                heard = await self._cluster.client("probe").ask(ask)
                self._note_wrong(check_answer(self._trial, heard))
                if not heard.succeeded:
                    self._note_wrong([f"{ask.job_id} after all faults: {heard.reason or heard.failures()}"])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._note_wrong(check_bounds(self._cluster))

    def _note_wrong(self, wrong: Iterable[str]) -> None:
        for text in wrong:
            self._story.tell(f"WRONG: {text}")
            self._verdict.wrong.append(text)


def _broke(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None
