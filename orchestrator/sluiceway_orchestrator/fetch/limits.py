"""What every call of an API goes through: its breaker, its slots, and the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded, SluicewayError, UpstreamFailed

from sluiceway.figures import ApiFigures
from sluiceway_orchestrator.config.apis import ApiConfig
from sluiceway_orchestrator.fetch.breaker import Breaker, BreakerState
from sluiceway_orchestrator.fetch.room import Estimate, Room
from sluiceway_orchestrator.fetch.slots import Slots

__all__ = ["Limits"]


class Limits:
    """The limits of one API.

    Args:
        name: of the API.
        config: its limits.
        refusals: errors that show that the API lives; every other one but for the deadline counts as its failure.
    """

    def __init__(self, name: str, config: ApiConfig, *, refusals: tuple[type[SluicewayError], ...]) -> None:
        self._name = name
        self._breaker = Breaker(config.breaker_failures, config.breaker_open_s)
        self._slots = Slots(config.max_in_flight)
        self._refusals = refusals

    def use(self) -> ApiFigures:
        """How much of them is in use now."""
        slots = self._slots
        broken = self._breaker.state is not BreakerState.CLOSED
        return ApiFigures(self._name, slots.in_flight, slots.total, slots.waiting, broken)

    @asynccontextmanager
    async def call(self, deadline: Deadline, room: Room, expected: Estimate) -> AsyncIterator[None]:
        """Make a call in this block.

        Raises:
            UpstreamFailed: the API failed too often of late; the call is not made.
            DeadlineExceeded: the time ran out.
        """
        wait_s = self._breaker.admit(monotonic())
        if wait_s is not None:
            raise UpstreamFailed(f"{self._name} failed too often of late", retry_after_s=wait_s)
        try:
            async with asyncio.timeout(deadline.remaining_s()), self._slots.slot(room, expected):
                yield
        except TimeoutError:
            self._breaker.abandoned()
            raise DeadlineExceeded("the time ran out while fetching") from None
        except SluicewayError as error:
            if isinstance(error, self._refusals):
                self._breaker.succeeded()
            elif isinstance(error, DeadlineExceeded):
                self._breaker.abandoned()
            else:
                self._breaker.failed(monotonic())
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
