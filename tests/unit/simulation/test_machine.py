"""Cores that are shared: what can be worked out by hand."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from sluiceway_simulation.machine import Machine
from sluiceway_simulation.virtual_time import current_loop, simulate


def run(main: Coroutine[Any, Any, Any]) -> Any:
    async def inside() -> Any:
        return await main

    return simulate(inside, seed=1)


async def ends_of(machine: Machine, *works: tuple[float, float, int]) -> list[float]:
    """When works end that begin at their times, take so long with enough cores, and have so many threads."""
    loop, ends = current_loop(), [0.0] * len(works)
    begun_s = loop.time()

    def note(number: int) -> None:
        ends[number] = round(loop.time() - begun_s, 6)

    for number, (at_s, seconds, threads) in enumerate(works):
        loop.call_later(at_s, machine.begin, seconds, threads, lambda number=number: note(number))
    await asyncio.sleep(100)
    return ends


@pytest.mark.parametrize(
    ("cores", "works", "ends"),
    [
        (2, [(0, 1, 1), (0, 1, 1)], [1, 1]),
        (1, [(0, 1, 1), (0, 1, 1)], [2, 2]),
        # Alone for half a second, then beside another, then alone again.
        (1, [(0, 1, 1), (0.5, 1, 1)], [1.5, 2.0]),
        (2, [(0, 1, 2), (0, 1, 2)], [2, 2]),
        (2, [(0, 1, 2), (0, 1, 1)], [1.5, 1.5]),
    ],
)
def test_cores_are_divided_evenly(cores: int, works: list[tuple[float, float, int]], ends: list[float]) -> None:
    async def main() -> list[float]:
        return await ends_of(Machine(cores), *works)

    assert run(main()) == pytest.approx(ends)


def test_what_is_cancelled_leaves_its_core_to_the_others() -> None:
    async def main() -> tuple[float, str]:
        machine, loop = Machine(1), current_loop()
        begun_s = loop.time()
        given_up = machine.begin(10, 1, lambda: pytest.fail("it was cancelled"))
        loop.call_later(1, given_up.cancel)
        await machine.work(2)
        return loop.time() - begun_s, repr(machine)

    assert run(main()) == (pytest.approx(2.5), "<Machine 0 threads on 1 cores>")


def test_a_machine_has_cores() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="at least one core"):
            Machine(0)

    run(main())
