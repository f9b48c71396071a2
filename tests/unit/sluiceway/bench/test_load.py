"""The load generator, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from virtual_time import run

from sluiceway.bench.arrivals import Arrival, evenly
from sluiceway.bench.load import Load
from sluiceway.bench.outcome import NOT_SENT, OK, TIMED_OUT, Answer


class Sleeper:
    """A server with so many places, each taken for the same time; requests wait in a line."""

    def __init__(self, places: int, sleep_s: float) -> None:
        self.line = asyncio.Semaphore(places)
        self.sleep_s = sleep_s
        self.begun: list[float] = []
        self.sources: list[int] = []

    async def __call__(self, source: int, timeout_s: float) -> Answer:
        self.begun.append(asyncio.get_running_loop().time())
        self.sources.append(source)
        try:
            async with asyncio.timeout(timeout_s), self.line:
                await asyncio.sleep(self.sleep_s)
        except TimeoutError:
            return Answer(TIMED_OUT)
        return Answer(OK)


def opened(server: Sleeper, arrivals: list[Arrival], *, timeout_s: float = 100, max_in_flight: int = 1000) -> Load:
    load = Load(server, timeout_s=timeout_s, max_in_flight=max_in_flight)
    run(load.open(arrivals))
    return load


def test_arrivals_never_wait_for_answers() -> None:
    server = Sleeper(1, 10.0)
    load = opened(server, list(evenly(1, 5, 2)))
    assert server.begun == pytest.approx([0, 1, 2, 3, 4])
    assert server.sources == [0, 1, 0, 1, 0]
    # One after the other, each since it was due.
    assert [outcome.latency_s for outcome in load.outcomes] == pytest.approx([10, 19, 28, 37, 46])
    assert (load.due, load.in_flight) == (5, 0)


def test_what_the_generator_loses_is_part_of_the_latency() -> None:
    """Coordinated omission: this process stands still for 5 s, and what was due meanwhile has waited that long."""
    server = Sleeper(100, 0.1)

    async def stand_still() -> Load:
        load = Load(server, timeout_s=100)
        sending = asyncio.create_task(load.open(evenly(10, 3, 1)))
        await asyncio.sleep(1.05)
        # As if nothing ran here: every timer comes due at once.
        asyncio.get_running_loop().advance(5.0)  # type: ignore[attr-defined]
        await sending
        return load

    load = run(stand_still())
    late = [outcome for outcome in load.outcomes if outcome.late_s > 0.5]
    assert len(load.outcomes) == 30
    assert len(late) == 19
    assert max(outcome.late_s for outcome in late) == pytest.approx(4.95, abs=0.01)
    assert all(outcome.latency_s >= outcome.late_s + 0.1 - 1e-9 for outcome in late)


def test_time_that_is_left_counts_from_when_a_request_was_due() -> None:
    left: list[float] = []

    async def send(_source: int, timeout_s: float) -> Answer:
        left.append(timeout_s)
        return Answer(OK)

    async def stand_still() -> Load:
        load = Load(send, timeout_s=2.0)
        sending = asyncio.create_task(load.open(evenly(1, 5, 1)))
        await asyncio.sleep(0.5)
        asyncio.get_running_loop().advance(3.0)  # type: ignore[attr-defined]
        await sending
        return load

    load = run(stand_still())
    # The second one was due at 1 and sent at 3.5: nobody waits for it any more.
    assert left == pytest.approx([2.0, 0.5, 1.5, 2.0])
    assert [outcome.answer.kind for outcome in load.outcomes].count(TIMED_OUT) == 1


def test_a_server_that_never_answers_fills_no_memory() -> None:
    load = opened(Sleeper(1, 50.0), list(evenly(10, 2, 1)), max_in_flight=3)
    kinds = [outcome.answer.kind for outcome in load.outcomes]
    assert kinds.count(NOT_SENT) == 17
    assert load.in_flight == 0


def test_callers_that_wait_send_one_after_the_other() -> None:
    async def closed() -> Load:
        load = Load(Sleeper(2, 0.25), timeout_s=100)
        await load.closed(4, 1.9, 3)
        return load

    load = run(closed())
    # Two places: the other two callers wait a round, and what was sent is answered.
    assert len(load.outcomes) == load.due == 18
    assert {round(outcome.latency_s, 6) for outcome in load.outcomes[4:]} == {0.5}


def test_a_caller_that_is_refused_waits_before_it_comes_again() -> None:
    async def refuse(_source: int, _timeout_s: float) -> Answer:
        return Answer("QUEUE_FULL")

    async def closed() -> Load:
        load = Load(refuse, timeout_s=100)
        await load.closed(2, 0.99, 1)
        return load

    load = run(closed())
    assert {outcome.answer.kind for outcome in load.outcomes} == {"QUEUE_FULL"}
    assert len(load.outcomes) == 40


def test_a_fault_of_the_sender_ends_the_load() -> None:
    async def broken(_source: int, _timeout_s: float) -> Answer:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        run(Load(broken, timeout_s=1).open(evenly(10, 1, 1)))
    assert caught.group_contains(ZeroDivisionError)
