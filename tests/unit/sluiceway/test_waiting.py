"""What a run says while nothing comes, in virtual time: within two seconds of typing it, however busy the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from virtual_time import run

from sluiceway.cli.waiting import Waiting
from sluiceway.client import AsyncClient
from sluiceway.errors import DeadlineExceeded, InvalidOption, Unavailable

# A second and a half of the two: the interpreter and its libraries have the rest.
WITHIN_S = 1.5
MISSING = "no replica of recognition takes work"


class Asked:
    """A client whose server is in a state of the test's choice, and the times at which it was asked."""

    address = "vision:50051"

    def __init__(self, answer: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        self.answer = answer
        self.at_s: list[float] = []

    async def check_ready(self, timeout_s: float, *, pipeline: str | None) -> None:
        assert pipeline == "read"
        self.at_s.append(asyncio.get_running_loop().time())
        await self.answer(timeout_s)


async def ready(_: float) -> None: ...


async def missing(_: float) -> None:
    raise Unavailable(MISSING)


async def refused(_: float) -> None:
    raise Unavailable("cannot reach vision:50051: connection refused")


async def silent(timeout_s: float) -> None:
    await asyncio.sleep(timeout_s)
    raise DeadlineExceeded("no answer")


async def wrong(_: float) -> None:
    raise InvalidOption("the call itself fails with that")


def said(answer: Callable[[float], Coroutine[Any, Any, None]], seconds: float = 10) -> list[tuple[float, str]]:
    """What people are told by when, while for so many seconds no result comes."""
    told: list[tuple[float, str]] = []

    async def watch() -> None:
        def say(why: str) -> None:
            told.append((asyncio.get_running_loop().time(), why))

        async with Waiting(cast("AsyncClient", Asked(answer)), "read", say).watching():
            await asyncio.sleep(seconds)

    run(watch())
    return told


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (missing, MISSING),
        (refused, "cannot reach vision:50051: connection refused"),
        (silent, "vision:50051 does not answer"),
    ],
    ids=["a stage is missing", "nobody listens", "nobody answers"],
)
def test_why_nothing_comes_is_told_in_time_and_once(
    answer: Callable[[float], Coroutine[Any, Any, None]], words: str
) -> None:
    [(at_s, why)] = said(answer)
    assert why == f"{words}; waiting"
    assert at_s <= WITHIN_S


@pytest.mark.parametrize("answer", [ready, wrong], ids=["ready", "the call tells it"])
def test_nothing_is_told_where_nothing_is_waited_for(answer: Callable[[float], Coroutine[Any, Any, None]]) -> None:
    assert said(answer) == []


def test_another_reason_is_told_when_it_is_another() -> None:
    reasons = iter([missing, missing, refused, ready, refused, missing])

    async def change(timeout_s: float) -> None:
        await next(reasons, ready)(timeout_s)

    assert [why.partition(":")[0].partition(";")[0] for _, why in said(change)] == [
        MISSING,
        "cannot reach vision",
        MISSING,
    ]


def test_a_run_that_comes_along_asks_nobody() -> None:
    client = Asked(missing)
    told: list[str] = []

    async def work() -> None:
        waiting = Waiting(cast("AsyncClient", client), "read", told.append)
        async with waiting.watching():
            for _ in range(50):
                await asyncio.sleep(0.2)
                waiting.heard()

    run(work())
    assert (client.at_s, told) == ([], [])
