"""The loop of a worker: what is begun when, and what is answered in which order."""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sluiceway_runtime.pool import Payload, Placement
from sluiceway_runtime.pool.execution import serve
from sluiceway_runtime.pool.transport.messages import Raised, Result, Run, Undelivered


class Overlapping:
    """Notes what is launched and finished; the meta of an item says what goes wrong."""

    def __init__(self, on_finish: Callable[[int], None] = lambda _: None) -> None:
        self.journal: list[str] = []
        self.on_finish = on_finish

    def setup(self, placement: Placement) -> dict[str, Any]:
        return {}

    def run(self, batch: Sequence[Payload]) -> list[Payload]:
        self.journal.append(f"run {batch[0].meta['id']}")
        return list(batch)

    def launch(self, batch: Sequence[Payload]) -> Callable[[], list[Payload]]:
        meta = batch[0].meta
        self.journal.append(f"launch {meta['id']}")
        if meta.get("fault") == "launch":
            raise ValueError("no start")

        def finish() -> list[Payload]:
            self.journal.append(f"finish {meta['id']}")
            self.on_finish(meta["id"])
            if meta.get("fault") == "finish":
                raise SystemExit("no end")
            return [] if meta.get("fault") == "count" else list(batch)

        return finish


class Plain:
    """A handler that cannot launch."""

    def __init__(self) -> None:
        self.journal: list[str] = []

    setup = Overlapping.setup
    run = Overlapping.run


class Bench:
    """An inbox with batches; None in it is the signal to leave."""

    def __init__(self, *tasks: Run | Undelivered | None) -> None:
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for task in (*tasks, None) if None not in tasks else tasks:
            self.inbox.put(task)
        self.left = False
        self.answers: list[Result | Raised | Undelivered] = []

    def get(self) -> Any:
        task = self.inbox.get(timeout=5)
        self.left |= task is None
        return task

    def empty(self) -> bool:
        return self.inbox.empty()

    def serve(self, handler: Any, overlap: int = 2) -> list[tuple[str, int]]:
        serve(handler, self, self.answers.append, lambda: self.left, overlap=overlap)
        return [(type(answer).__name__, answer.batch_id) for answer in self.answers]


def run(number: int, **meta: Any) -> Run:
    return Run(number, (Payload({"id": number, **meta}),))


def test_the_next_batch_is_launched_before_the_one_before_it_is_waited_for() -> None:
    handler = Overlapping()
    answers = Bench(run(1), run(2), run(3)).serve(handler)
    assert handler.journal == ["launch 1", "launch 2", "finish 1", "launch 3", "finish 2", "finish 3"]
    assert answers == [("Result", 1), ("Result", 2), ("Result", 3)]


def test_a_batch_never_waits_for_one_that_has_not_come() -> None:
    bench = Bench(run(1))
    while not bench.inbox.empty():
        bench.inbox.get()
    bench.inbox.put(run(1))
    # The second comes, and after it the end, once the first is done: by itself nothing more would come.
    coming = {1: run(2), 2: None}
    handler = Overlapping(lambda number: bench.inbox.put(coming[number]))
    assert bench.serve(handler, overlap=3) == [("Result", 1), ("Result", 2)]
    assert handler.journal == ["launch 1", "finish 1", "launch 2", "finish 2"]


def test_one_at_a_time_where_nothing_overlaps() -> None:
    plain, single = Plain(), Overlapping()
    assert len(Bench(run(1), run(2)).serve(plain, overlap=3)) == 2
    assert plain.journal == ["run 1", "run 2"]
    Bench(run(1), run(2)).serve(single, overlap=1)
    assert single.journal == ["run 1", "run 2"]


@pytest.mark.parametrize("fault", ["launch", "finish", "count"])
def test_a_fault_fails_its_own_batch(fault: str) -> None:
    bench = Bench(run(1), run(2, fault=fault), run(3))
    assert bench.serve(Overlapping(), overlap=3) == [("Result", 1), ("Raised", 2), ("Result", 3)]
    raised = bench.answers[1]
    assert isinstance(raised, Raised)
    assert any(text in raised.message for text in ("ValueError: no start", "SystemExit: no end", "0 results for 1"))


def test_what_was_begun_is_finished_before_leaving_and_nothing_more_is_begun() -> None:
    handler = Overlapping()
    answers = Bench(run(1), run(2), None, run(3)).serve(handler, overlap=3)
    assert handler.journal == ["launch 1", "launch 2", "finish 1", "finish 2"]
    assert answers == [("Result", 1), ("Result", 2)]


def test_what_was_lost_on_the_way_is_told_at_once() -> None:
    bench = Bench(run(1), Undelivered(2, "lost"), run(3))
    assert bench.serve(Overlapping()) == [("Undelivered", 2), ("Result", 1), ("Result", 3)]


def test_a_process_without_descriptors_answers_all_the_same() -> None:
    program = """
import resource
from sluiceway_runtime.pool.execution import resident_bytes
before = resident_bytes()
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
print(before > 2**20, resident_bytes())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "0"]
