"""Time that passes when nothing is left to do, in the same way each time."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator

import pytest
from sluiceway_runtime.clock import monotonic, running_on
from sluiceway_runtime.deadline import Deadline
from sluiceway_simulation.virtual_time import Stuck, current_loop, simulate


def test_an_hour_passes_at_once_on_every_clock() -> None:
    async def main() -> tuple[float, float, float]:
        loop_s, clock_s, deadline = asyncio.get_running_loop().time(), monotonic(), Deadline.after(7200)
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - loop_s, monotonic() - clock_s, deadline.remaining_s()

    begun_s = time.monotonic()
    assert simulate(main, seed=1) == pytest.approx((3600, 3600, 3600))
    assert time.monotonic() - begun_s < 60
    assert abs(monotonic() - time.monotonic()) < 60


def test_the_same_seed_has_the_same_order_of_tasks_and_chance() -> None:
    async def main() -> list[float]:
        order: list[float] = []

        async def work(number: int) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                order.append(number + random.random())

        # A set of tasks, which is cancelled in its order.
        tasks = {asyncio.ensure_future(work(number)) for number in range(50)}
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return order

    first = simulate(main, seed=7)
    keep = [object() for _ in range(1000)]
    assert simulate(main, seed=7) == first
    assert simulate(main, seed=8) != first
    del keep


def test_no_timer_is_early() -> None:
    """Not by the least: time stands still, and whoever waited for the moment would wait for it again for ever."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        for _ in range(100):
            at_s = loop.time() + random.random()
            # Another is due just before it, so that the clock stands there when both are looked at.
            before = asyncio.ensure_future(asyncio.sleep(math.nextafter(at_s, 0.0) - loop.time()))
            woken = loop.create_future()
            loop.call_at(at_s, woken.set_result, None)
            await woken
            assert loop.time() >= at_s
            await before
        return loop.time()

    assert simulate(main, seed=1) > 1000.0


def test_what_raises_is_told_and_ends_nothing() -> None:
    async def main() -> list[str]:
        loop, told = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _, context: told.append(repr(context["exception"])))
        cancelled = [loop.call_soon(told.append, "no"), loop.call_later(1, told.append, "no")]
        loop.call_soon(int, "nothing")
        for handle in cancelled:
            handle.cancel()
            assert handle.cancelled()
        await asyncio.sleep(2)
        return told

    assert simulate(main, seed=1) == ["ValueError(\"invalid literal for int() with base 10: 'nothing'\")"]


def test_generators_that_are_left_in_the_middle_are_closed() -> None:
    closed: list[float] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.append(current_loop().time())

    async def main() -> float:
        async for _ in numbers():
            break
        await asyncio.sleep(1)
        return current_loop().time()

    assert simulate(main, seed=1) - closed[0] == 1.0


def test_timers_that_are_cancelled_are_not_kept() -> None:
    async def main() -> int:
        loop = current_loop()
        for _ in range(10_000):
            loop.call_later(3600, int).cancel()
        return loop.waiting_timers

    assert simulate(main, seed=1) < 3000


def test_who_waits_for_ever_is_told() -> None:
    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck, match="nothing will happen"):
        simulate(waits, seed=1)


def test_time_that_does_not_pass_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluiceway_simulation.virtual_time.MOST_TURNS_AT_A_MOMENT", 1000)

    async def runs_in_circles() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="took no time"):
        simulate(runs_in_circles, seed=1)


def test_threads_are_refused_as_they_have_a_time_of_their_own() -> None:
    async def main() -> None:
        await asyncio.to_thread(int)

    with pytest.raises(RuntimeError, match="may leave its loop"):
        simulate(main, seed=1)


def test_a_clock_that_jumps_makes_everything_late() -> None:
    async def main() -> float:
        loop = current_loop()
        begun_s = loop.time()
        waiting = asyncio.create_task(asyncio.sleep(1))
        await asyncio.sleep(0.5)
        loop.jump(10)
        await waiting
        return loop.time() - begun_s

    assert simulate(main, seed=1) == pytest.approx(10.5)


def test_a_process_has_one_clock() -> None:
    with running_on(lambda: 5.0):
        assert monotonic() == 5.0
        with pytest.raises(RuntimeError, match="another clock"), running_on(lambda: 6.0):
            pass
        assert monotonic() == 5.0
