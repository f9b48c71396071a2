"""What waiting for a state gives, and what it says if the state never comes."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import waiting
from waiting import until, wait_until

SHORT_S = 0.05
Wait = Callable[..., Any]


async def blocking(condition: Callable[[], Any], **options: Any) -> Any:
    return wait_until(condition, **options)


@pytest.fixture(params=[until, blocking], ids=["until", "wait_until"])
def wait(request: pytest.FixtureRequest) -> Wait:
    made: Wait = request.param
    return made


async def test_it_gives_what_was_found_at_last(wait: Wait) -> None:
    looks = itertools.count()
    assert await wait(lambda: next(looks) // 3) == 1
    assert next(looks) == 4


async def test_a_condition_that_is_awaited() -> None:
    looks = itertools.count()

    async def third() -> int:
        return next(looks) // 3

    assert await until(third) == 1


async def test_the_loop_goes_on_meanwhile() -> None:
    there = asyncio.Event()
    asyncio.get_running_loop().call_soon(there.set)
    await until(there.is_set)


async def test_another_thread_goes_on_meanwhile() -> None:
    there = threading.Event()
    threading.Timer(SHORT_S, there.set).start()
    wait_until(there.is_set)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"what": "two are there"}, "not within 0.05 s: two are there"),
        ({"what": "two are there", "state": lambda: ["one"]}, "not within 0.05 s: two are there, but ['one']"),
        ({"state": lambda: 7}, "len(found) == 2, within_s=SHORT_S, **options), but 7"),
        ({}, "not within 0.05 s: await wait(lambda: len(found) == 2, within_s=SHORT_S, **options)"),
    ],
)
async def test_what_never_comes_is_said(wait: Wait, options: dict[str, Any], said: str) -> None:
    found = ["one"]
    with pytest.raises(AssertionError) as failed:
        await wait(lambda: len(found) == 2, within_s=SHORT_S, **options)
    assert str(failed.value).endswith(said)


async def test_what_the_last_look_found_is_said_where_it_says_something(wait: Wait) -> None:
    found: list[int] = []
    with pytest.raises(AssertionError, match=r"not within 0.05 s: list.copy, but \[\]$"):
        await wait(found.copy, within_s=SHORT_S)


async def test_a_machine_that_stood_still_is_looked_at_once_more(wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    """All the time passes during one pause, and so does what was waited for."""
    times = iter([0.0, 1.0])
    clock = SimpleNamespace(monotonic=lambda: next(times, 1000.0), sleep=time.sleep)
    monkeypatch.setattr(waiting, "time", clock)
    looks = iter([False, True])
    assert await wait(lambda: next(looks))


async def test_one_look_that_never_ends_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        await until(asyncio.Event().wait, within_s=SHORT_S)
