"""A fetcher by itself, with a budget of bytes around it that has to be empty at the end."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import load_apis
from sluiceway_orchestrator.fetch import Answer, Call, Region
from sluiceway_orchestrator.fetch.fetcher import CallContext, Fetched, Fetcher
from sluiceway_orchestrator.fetch.guard import LookUp, system_look_up
from sluiceway_orchestrator.job import ApiCall, Source
from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.deadline import Deadline

__all__ = ["Fetching", "call", "context", "fetching", "given_by", "use_caller"]


def call(api: str, name: str | None = None, **params: str) -> ApiCall:
    """Of a configured API, by its own name unless there is another one."""
    return ApiCall(api, params, name or api)


def context(seconds: float = 60, **fields: Any) -> CallContext:
    """For a source of a test, with a deadline so far away."""
    named: dict[str, Any] = {"job_id": "job", "source_id": "source", "request_id": "request", **fields}
    return CallContext(deadline=Deadline.after(seconds), **named)


@dataclass
class Fetching:
    """A started fetcher and the budget of its accounts."""

    fetcher: Fetcher
    budget: MemoryBudget

    async def fetch(
        self, calls: Sequence[ApiCall] = (), *, within_s: float = 60, keep: bool = False, **source: Any
    ) -> Fetched:
        """Fetch a source; unless it is kept, its room is given back, and the image left to look at."""
        fetched = await self.fetcher.fetch(Source("source", **source), calls, context(within_s), self.budget.account())
        if not keep:
            image = fetched.image
            fetched.release()
            fetched.image = image
        return fetched

    async def call(self, call: ApiCall, region: Region | None = None, regions: tuple[Region, ...] = ()) -> Answer:
        """Make the call of a step."""
        return await self.fetcher.call(call, context(), self.budget.account(), region=region, regions=regions)


@asynccontextmanager
async def fetching(
    apis: Mapping[str, Any] | None = None,
    *,
    budget_bytes: int = 2**30,
    environment: Mapping[str, str] | None = None,
    look_up: LookUp = system_look_up,
    **options: Any,
) -> AsyncIterator[Fetching]:
    """A fetcher with these APIs and options of `[orchestrator]`; afterwards nothing may be left in its budget."""
    config = OrchestratorConfig.model_validate({"url_allow_cidrs": ["127.0.0.0/8"], **options})
    fetcher = Fetcher(config, load_apis({"api": apis or {}}), environment or {}, look_up=look_up)
    budget = MemoryBudget(budget_bytes)
    await fetcher.start()
    try:
        yield Fetching(fetcher, budget)
    finally:
        await fetcher.close()
    assert (budget.used_bytes, budget.waiting) == (0, 0)


def use_caller(monkeypatch: pytest.MonkeyPatch, caller: type, name: str = "own_callers:Own") -> str:
    """Make a class one that a configuration can name; the name."""
    module, _, attribute = name.partition(":")
    made = ModuleType(module)
    setattr(made, attribute, caller)
    monkeypatch.setitem(sys.modules, module, made)
    return name


def given_by(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[Call], Awaitable[Any]], params: Sequence[str] = ("item",)
) -> str:
    """A caller that answers as the function does; its name."""
    names = params

    class Own:
        params = names

        async def setup(self, session: object, config: Mapping[str, Any]) -> None:
            pass

        async def __call__(self, call: Call) -> Answer:
            answered: Answer = await answer(call)
            return answered

    return use_caller(monkeypatch, Own)
