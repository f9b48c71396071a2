"""The loop of a worker: what is begun when, and what is answered in which order."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sluiceway_runtime.pool import Payload, Placement
from sluiceway_runtime.pool.execution import serve
from sluiceway_runtime.pool.transport.messages import Lost, Raised, Recall, Result, Run


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

    def __init__(self, *tasks: Run | Recall | Lost | None) -> None:
        self.inbox: deque[Any] = deque((*tasks, None) if None not in tasks else tasks)
        self.left = False
        self.answers: list[Result | Raised | Lost] = []

    def get(self) -> Any:
        task = self.inbox.popleft()
        self.left |= task is None
        return task

    def empty(self) -> bool:
        # A signal to leave is no message: it is noticed by whoever waits for one.
        return not self.inbox or self.inbox[0] is None

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
    bench.inbox.pop()
    # The second comes, and after it the end, once the first is done: by itself nothing more would come.
    coming = {1: run(2), 2: None}
    handler = Overlapping(lambda number: bench.inbox.append(coming[number]))
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
    bench = Bench(run(1), Lost(2, "lost"), run(3))
    assert bench.serve(Overlapping()) == [("Lost", 2), ("Result", 1), ("Result", 3)]


def test_what_was_recalled_before_it_was_begun_is_not_computed() -> None:
    handler = Plain()
    bench = Bench(run(1), run(2), run(3), Recall(2, (0,)), Recall(1, ()), Recall(9, (0,)))
    assert bench.serve(handler) == [("Result", 2), ("Result", 1), ("Result", 3)]
    assert handler.journal == ["run 1", "run 3"]
    assert [answer.results[0] is None for answer in bench.answers] == [True, False, False]


def test_of_a_batch_that_was_recalled_in_part_the_rest_is_computed_in_its_places() -> None:
    three = Run(2, tuple(Payload({"id": number}) for number in range(3)))
    bench = Bench(run(1), three, Recall(2, (1,)))
    assert bench.serve(Overlapping(), overlap=2) == [("Result", 1), ("Result", 2)]
    results = bench.answers[1].results
    assert [result and result.meta["id"] for result in results] == [0, None, 2]


def test_memory_that_is_shared_is_not_its_own() -> None:
    program = """
import mmap
from sluiceway_runtime.resident import own_bytes
before = own_bytes()
shared = mmap.mmap(-1, 50 * 2**20)
shared.write(b"x" * len(shared))
with_shared = own_bytes()
own = bytearray(b"x") * (50 * 2**20)
print(with_shared - before < 10 * 2**20, own_bytes() - with_shared > 40 * 2**20)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_a_process_without_descriptors_answers_all_the_same() -> None:
    program = """
import resource
from sluiceway_runtime.resident import own_bytes
before = own_bytes()
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
print(before > 2**20, own_bytes())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "0"]
