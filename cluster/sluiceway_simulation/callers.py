"""API servers in memory: a caller as users write them, that takes its time and sometimes fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import aiohttp
from sluiceway_orchestrator.fetch.caller import Answer, Call
from sluiceway_runtime.errors import UpstreamFailed

__all__ = ["SimulatedApi"]


class SimulatedApi:
    """Says of whom it was asked what it was asked; `config` says how long it takes and how often it fails.

    Keys of `config`: `seed`, `mean_s` of its time, `failing` the part of calls that fail.
    """

    params: tuple[str, ...] = ()

    async def setup(self, session: aiohttp.ClientSession, config: Mapping[str, Any]) -> None:
        """Take the configuration."""
        del session
        self._chance = random.Random(f"{config['seed']}/api")
        self._mean_s = float(config["mean_s"])
        self._failing = float(config["failing"])

    async def __call__(self, call: Call) -> Answer:
        """Answer after a while."""
        fails = self._chance.random() < self._failing
        await asyncio.sleep(self._chance.expovariate(1 / self._mean_s))
        if fails:
            raise UpstreamFailed("the registry is out of order")
        return Answer(None, {"asked": call.region.text if call.region is not None else call.source_id})
