"""APIs that are a user's own class."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import logging
from collections.abc import Mapping
from time import monotonic

import aiohttp
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidOption,
    SluicewayError,
    UpstreamFailed,
    UpstreamRefused,
)

from sluiceway_orchestrator.config import ApiConfig
from sluiceway_orchestrator.fetch.api import ApiAnswer, check_params, within
from sluiceway_orchestrator.fetch.breaker import Breaker
from sluiceway_orchestrator.fetch.budget import ByteBudget
from sluiceway_orchestrator.fetch.caller import Caller, FetchedImage
from sluiceway_orchestrator.fetch.http import open_session

__all__ = ["UserApi", "load_caller"]

log = logging.getLogger(__name__)

ENTRY_POINTS = "sluiceway.callers"


class UserApi:
    """A user's class behind a name. Errors that it does not name are UPSTREAM_FAILED; their text goes to the log."""

    def __init__(self, name: str, config: ApiConfig, budget: ByteBudget, *, max_image_bytes: int) -> None:
        assert config.caller is not None
        self.name = name
        self._config = config
        self._budget = budget
        self._max_image_bytes = max_image_bytes
        self._caller = load_caller(config.caller, key=f"api.{name}.caller")
        self.params = tuple(self._caller.params)
        self._breaker = Breaker(config.breaker_failures, config.breaker_open_s)
        self._slots = asyncio.Semaphore(config.max_in_flight)
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open its pool of connections and set it up."""
        limit = self._config.max_in_flight
        self._session = open_session(None, per_host=limit, total=limit)
        try:
            await self._caller.setup(self._session)
        except Exception as error:
            raise ConfigurationError(f"api.{self.name}.caller: setup failed: {error!r}") from error

    async def close(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()

    async def call(self, params: Mapping[str, str], deadline: Deadline, *, want_image: bool) -> ApiAnswer:
        """Make a call."""
        check_params(self.params, params)
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                reservation = await self._budget.reserve(self._max_image_bytes)
        except TimeoutError:
            raise DeadlineExceeded("the time ran out before fetching") from None
        try:
            fetched = await self._guarded_call(params, deadline)
            within(fetched.image, self._max_image_bytes)
            reservation.shrink(len(fetched.image))
        except BaseException:
            reservation.release()
            raise
        return ApiAnswer(fetched.image if want_image else b"", dict(fetched.metadata), reservation)

    async def _guarded_call(self, params: Mapping[str, str], deadline: Deadline) -> FetchedImage:
        wait_s = self._breaker.admit(monotonic())
        if wait_s is not None:
            raise UpstreamFailed(f"{self.name} failed too often of late", retry_after_s=wait_s)
        try:
            async with asyncio.timeout(min(deadline.remaining_s(), self._config.timeout_s)), self._slots:
                fetched = await self._caller(dict(params))
        except (UpstreamRefused, InvalidOption):
            self._breaker.succeeded()
            raise
        except TimeoutError:
            self._breaker.failed(monotonic())
            if deadline.expired:
                raise DeadlineExceeded("the time ran out while fetching") from None
            raise UpstreamFailed(f"{self.name} did not answer in time") from None
        except SluicewayError:
            self._breaker.failed(monotonic())
            raise
        except Exception as error:
            self._breaker.failed(monotonic())
            log.exception("api %s: the caller raised", self.name)
            raise UpstreamFailed(f"{self.name} failed") from error
        except BaseException:
            self._breaker.abandoned()
            raise
        if not isinstance(fetched, FetchedImage):
            log.error("api %s: the caller returned %s, not FetchedImage", self.name, type(fetched).__name__)
            raise UpstreamFailed(f"{self.name} failed")
        self._breaker.succeeded()
        return fetched


def load_caller(name: str, *, key: str) -> Caller:
    """Make the caller that `module:Class`, or an entry point of the group `sluiceway.callers`, names.

    Raises:
        ConfigurationError: there is none, or it is not a caller.
    """
    try:
        if ":" in name:
            module, _, attribute = name.partition(":")
            factory = getattr(importlib.import_module(module), attribute)
        else:
            (entry,) = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
            factory = entry.load()
        caller: Caller = factory()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{key}: {name!r} cannot be loaded: {error}") from error
    for attribute in ("params", "setup", "__call__"):
        if not hasattr(caller, attribute):
            raise ConfigurationError(f"{key}: {name!r} has no {attribute}")
    return caller
