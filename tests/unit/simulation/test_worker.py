"""Simulated workers do with what they are told what real ones do."""

import asyncio
import random

from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.pool import Payload
from sluiceway_runtime.pool.transport.link import End
from sluiceway_runtime.pool.transport.messages import FromWorker, Leaving, Ready, Recall, Result, Run
from sluiceway_simulation.stages.models import Computed
from sluiceway_simulation.stages.pictures import Harm
from sluiceway_simulation.stages.profile import Curve, Profile
from sluiceway_simulation.stages.worker import SimulatedWorker, Workbench
from sluiceway_simulation.virtual_time import simulate


class _Echo:
    """Answers with what it was given."""

    def compute(self, item: Payload) -> Computed:
        return Computed(1, Harm.NONE, item)


def _run(batch_id: int, *names: str) -> Run:
    return Run(batch_id, tuple(Payload(name) for name in names))


async def _told(*said: Run | Recall | None) -> tuple[list[FromWorker], list[End], Workbench]:
    """What a worker says that is ready, is told all this at once (None is to stop), and is stopped at the end."""
    profile = Profile(batch_ms=Curve(((1, 100.0),)), start_s=0.5)
    bench = Workbench(_Echo(), profile, random.Random(1), lambda _: None)
    heard: list[FromWorker] = []
    ended: list[End] = []
    worker = SimulatedWorker(bench, Placement(0, "cpu", None, 1), 1, heard.append, ended.append)
    await asyncio.sleep(1)
    for message in said:
        if message is None:
            worker.stop()
        elif isinstance(message, Run):
            worker.send(message)
        else:
            worker.recall(message)
    await asyncio.sleep(10)
    worker.stop()
    await worker.wait_ended()
    return heard, ended, bench


def _results(heard: list[FromWorker]) -> dict[int, list[str | None]]:
    return {
        told.batch_id: [result.meta if isinstance(result, Payload) else None for result in told.results]
        for told in heard
        if isinstance(told, Result)
    }


def test_what_is_recalled_of_a_batch_that_waits_is_not_computed() -> None:
    heard, _, bench = simulate(
        lambda: _told(_run(1, "a", "b"), _run(2, "c", "d", "e"), _run(3, "f"), Recall(2, (0, 2)), Recall(3, (0,))),
        seed=1,
    )
    assert _results(heard) == {1: ["a", "b"], 2: [None, "d", None], 3: [None]}
    assert bench.computed == 3


def test_what_is_recalled_of_a_batch_that_was_begun_is_computed() -> None:
    heard, _, _ = simulate(lambda: _told(_run(1, "a", "b"), Recall(1, (0, 1)), Recall(7, (0,))), seed=1)
    assert _results(heard) == {1: ["a", "b"]}


def test_who_is_stopped_answers_what_it_has_begun_and_leaves() -> None:
    heard, ended, _ = simulate(lambda: _told(_run(1, "a"), _run(2, "b"), None), seed=1)
    assert [type(told) for told in heard] == [Ready, Result, Leaving]
    assert _results(heard) == {1: ["a"]}
    assert ended == [End("it exited with code 0", frozenset({2}))]
