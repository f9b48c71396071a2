"""Two API callers for steps of a pipeline: one is asked about each vehicle, one about the whole picture.

vehicles.toml names them. They ask nobody, so that the example runs by itself; a real one would use the session that
`setup` is given, as caller.py does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from sluiceway_orchestrator.fetch import Answer, Call
from sluiceway_runtime.errors import UpstreamRefused


class Tariff:
    """What a vehicle pays. Called once for each region, with what its step says in `params`."""

    params = ("vehicle", "colour", "permit")

    async def setup(self, session: aiohttp.ClientSession, config: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Called once, with the table `[api.tariff.config]`."""
        self._prices: Mapping[str, float] = config["prices"]
        self._taxi_colour: str = config["taxi_colour"]

    async def __call__(self, call: Call) -> Answer:
        """The price of one vehicle. With a refusal only this region has an error; the others are not affected."""
        price = self._prices.get(call.params["vehicle"])
        if price is None:
            raise UpstreamRefused(f"there is no price for a {call.params['vehicle']}")
        free = bool(call.params["permit"]) or call.params["colour"] == self._taxi_colour
        return Answer(values={"price": 0.0 if free else price, "colour": call.params["colour"]})


class Ledger:
    """The bill of a picture. Called once for each source, when the steps in `after` have ended."""

    params = ()

    async def setup(self, session: aiohttp.ClientSession, config: Mapping[str, Any]) -> None:
        """There is nothing to open."""

    async def __call__(self, call: Call) -> Answer:
        """Add up what the step `fee` said of the regions. `call.regions` has all of them with all that was said."""
        fees = [region.values["fee"]["price"] for region in call.regions if "price" in region.values.get("fee", {})]
        return Answer(values={"vehicles": len(fees), "total": sum(fees)})
