"""APIs that are a user's own class."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
from sluiceway_runtime.cancellation import was_asked_to_end
from sluiceway_runtime.errors import (
    ConfigurationError,
    ImageTooLarge,
    InvalidOption,
    SluicewayError,
    UpstreamFailed,
    UpstreamRefused,
)
from sluiceway_runtime.server.convert import error_to_proto

from sluiceway.figures import ApiFigures
from sluiceway_orchestrator.config.apis import ApiConfig
from sluiceway_orchestrator.fetch.api import Brought, check_params, within
from sluiceway_orchestrator.fetch.caller import Answer, Call, DetectionChoice
from sluiceway_orchestrator.fetch.content import encodable
from sluiceway_orchestrator.fetch.http import open_session
from sluiceway_orchestrator.fetch.limits import Limits
from sluiceway_orchestrator.fetch.load import load_caller
from sluiceway_orchestrator.fetch.room import Estimate, Room
from sluiceway_orchestrator.fetch.values import checked_values

__all__ = ["UserApi"]

log = logging.getLogger(__name__)

# For a caller to close what it opened.
CLOSE_S = 5.0


class UserApi:
    """A user's class behind a name. Errors that it does not name are UPSTREAM_FAILED; their text goes to the log."""

    # Which of them an answer has is known only when it is here.
    brings_image = True
    brings_values = True

    def __init__(self, name: str, config: ApiConfig, *, max_image_bytes: int) -> None:
        assert config.caller is not None
        self.name = name
        self._config = config
        self._max_image_bytes = max_image_bytes
        self._caller = load_caller(config.caller, key=f"api.{name}.caller")
        self.params = tuple(self._caller.params)
        self.expected = Estimate(max_image_bytes)
        self._limits = Limits(name, config, refusals=(UpstreamRefused, InvalidOption, ImageTooLarge))
        self._session: aiohttp.ClientSession | None = None
        self._is_set_up = False

    async def start(self) -> None:
        """Open its pool of connections and set it up."""
        limit = self._config.max_in_flight
        self._session = open_session(None, per_host=limit, total=limit, proxy=self._config.proxy)
        try:
            await self._caller.setup(self._session, self._config.config)
        except Exception as error:
            raise ConfigurationError(f"api.{self.name}.caller: setup failed: {error!r}") from error
        self._is_set_up = True

    async def close(self) -> None:
        """Let it close what it opened, if it was set up, and close the pool."""
        try:
            if self._is_set_up:
                self._is_set_up = False
                await self._close_caller()
        finally:
            if self._session is not None:
                await self._session.close()

    async def _close_caller(self) -> None:
        close = getattr(self._caller, "close", None)
        if close is None:
            return
        task = asyncio.ensure_future(_awaited(close))
        try:
            # Not a timeout: that would wait for a caller that does not let itself be cancelled.
            await asyncio.wait({task}, timeout=CLOSE_S)
        finally:
            if not task.done():
                task.cancel()
        if not task.done():
            log.error("api %s: the caller was not closed within %g s", self.name, CLOSE_S)
        elif not task.cancelled() and (error := task.exception()) is not None:
            log.error("api %s: closing the caller failed", self.name, exc_info=error)

    def use(self) -> ApiFigures:
        """How many calls there are now, and may be."""
        return self._limits.use()

    async def call(self, call: Call, room: Room) -> Brought:
        """Make a call."""
        check_params(self.params, call.params)
        async with self._limits.call(call.deadline, room, self.expected):
            if not call.want_image:
                brought = await self._called(call)
                brought.image = b""
                return brought
            # With a slot only: calls in line for one would keep the bytes from every other fetch.
            holding = await room.take(self.expected.size_bytes)
            brought = await self._called(call)
            holding.settle(len(brought.image))
            if brought.image:
                self.expected.learn(len(brought.image))
            return brought

    async def _called(self, call: Call) -> Brought:
        """What the caller returned, or why it did not, in a form that the contract's messages can carry."""
        try:
            async with asyncio.timeout(self._config.timeout_s):
                answer = await self._caller(call)
            brought = _checked(answer)
        except TimeoutError:
            raise UpstreamFailed(f"{self.name} did not answer in time") from None
        except (Exception, asyncio.CancelledError) as error:
            if _ends_this_call(error) or (isinstance(error, SluicewayError) and _can_be_told(error)):
                raise
            log.exception("api %s: the caller failed", self.name)
            raise UpstreamFailed(f"{self.name} failed") from error
        if call.want_image:
            within(brought.image, self._max_image_bytes)
        return brought


async def _awaited(close: object) -> None:
    assert callable(close)
    await close()


def _checked(answer: object) -> Brought:
    """Raise TypeError or ValueError unless it is what `Caller` says; type hints bind nobody's caller."""
    if not isinstance(answer, Answer):
        raise TypeError(f"returned {type(answer).__name__}, not Answer")
    if not isinstance(answer.image, bytes | None):
        raise TypeError(f"returned an image of type {type(answer.image).__name__}, not bytes")
    if not isinstance(answer.detection, DetectionChoice | None):
        raise TypeError(f"returned detection of type {type(answer.detection).__name__}, not DetectionChoice")
    return Brought(answer.image or b"", checked_values(answer.values), answer.detection)


def _ends_this_call(error: BaseException) -> bool:
    """Whether the call is cancelled; what the caller cancelled within itself, passed on, would end the whole job."""
    return isinstance(error, asyncio.CancelledError) and was_asked_to_end()


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
