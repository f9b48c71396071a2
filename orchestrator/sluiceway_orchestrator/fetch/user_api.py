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
    ImageTooLarge,
    InvalidOption,
    SluicewayError,
    UpstreamFailed,
    UpstreamRefused,
)
from sluiceway_runtime.server.convert import error_to_proto

from sluiceway_orchestrator.config import ApiConfig
from sluiceway_orchestrator.fetch.api import ApiAnswer, check_params, within
from sluiceway_orchestrator.fetch.breaker import Breaker
from sluiceway_orchestrator.fetch.budget import ByteBudget
from sluiceway_orchestrator.fetch.caller import Caller, FetchedImage
from sluiceway_orchestrator.fetch.content import encodable
from sluiceway_orchestrator.fetch.http import open_session
from sluiceway_orchestrator.fetch.slots import Slots

__all__ = ["UserApi", "load_caller"]

log = logging.getLogger(__name__)

ENTRY_POINTS = "sluiceway.callers"


class UserApi:
    """A user's class behind a name. Errors that it does not name are UPSTREAM_FAILED; their text goes to the log."""

    def __init__(self, name: str, config: ApiConfig, *, max_image_bytes: int) -> None:
        assert config.caller is not None
        self.name = name
        self._config = config
        self._max_image_bytes = max_image_bytes
        self._caller = load_caller(config.caller, key=f"api.{name}.caller")
        self.params = tuple(self._caller.params)
        self._breaker = Breaker(config.breaker_failures, config.breaker_open_s)
        self._slots = Slots(config.max_in_flight)
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

    async def call(
        self, params: Mapping[str, str], deadline: Deadline, budget: ByteBudget, *, want_image: bool
    ) -> ApiAnswer:
        """Make a call."""
        check_params(self.params, params)
        wait_s = self._breaker.admit(monotonic())
        if wait_s is not None:
            raise UpstreamFailed(f"{self.name} failed too often of late", retry_after_s=wait_s)
        try:
            async with asyncio.timeout(deadline.remaining_s()), self._slots.slot(want_image=want_image):
                answer = await self._call(params, budget, want_image=want_image)
        except (UpstreamRefused, InvalidOption, ImageTooLarge):
            self._breaker.succeeded()
            raise
        except TimeoutError:
            self._breaker.abandoned()
            raise DeadlineExceeded("the time ran out while fetching") from None
        except SluicewayError:
            self._breaker.failed(monotonic())
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return answer

    async def _call(self, params: Mapping[str, str], budget: ByteBudget, *, want_image: bool) -> ApiAnswer:
        # With a slot only: calls in line for one would keep the bytes from every other fetch.
        reservation = await budget.reserve(self._max_image_bytes)
        try:
            fetched = await self._fetched(params)
            image = within(fetched.image, self._max_image_bytes) if want_image else b""
            metadata = {encodable(name): encodable(value) for name, value in fetched.metadata.items()}
        except BaseException:
            reservation.release()
            raise
        reservation.shrink(len(image))
        return ApiAnswer(image, metadata, reservation)

    async def _fetched(self, params: Mapping[str, str]) -> FetchedImage:
        """What the caller returned, or why it did not, in a form that the contract's messages can carry."""
        try:
            async with asyncio.timeout(self._config.timeout_s):
                fetched = await self._caller(dict(params))
            _check(fetched)
        except TimeoutError:
            raise UpstreamFailed(f"{self.name} did not answer in time") from None
        except (Exception, asyncio.CancelledError) as error:
            if _ends_this_call(error) or (isinstance(error, SluicewayError) and _can_be_told(error)):
                raise
            log.exception("api %s: the caller failed", self.name)
            raise UpstreamFailed(f"{self.name} failed") from error
        return fetched


def _check(fetched: object) -> None:
    """Raise TypeError unless it is what `Caller` says; type hints bind nobody's caller."""
    if not isinstance(fetched, FetchedImage):
        raise TypeError(f"returned {type(fetched).__name__}, not FetchedImage")
    if not isinstance(fetched.image, bytes):
        raise TypeError(f"returned an image of type {type(fetched.image).__name__}, not bytes")
    if not isinstance(fetched.metadata, Mapping):
        raise TypeError(f"returned metadata of type {type(fetched.metadata).__name__}, not a mapping")
    for name, value in fetched.metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"returned metadata that is not text: {name!r} is of type {type(value).__name__}")


def _ends_this_call(error: BaseException) -> bool:
    """Whether the call is cancelled; what the caller cancelled within itself, passed on, would end the whole job."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _can_be_told(error: SluicewayError) -> bool:
    """Whether an error that the caller made can become a message; half characters in it are replaced."""
    try:
        error.message = encodable(error.message)
        error.metadata = {encodable(name): encodable(value) for name, value in error.metadata.items()}
        error_to_proto(error)
    except Exception:
        log.exception("a caller raised an error that cannot be told")
        return False
    return True


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
