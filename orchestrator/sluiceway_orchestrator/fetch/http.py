"""One HTTP request with everything that it needs: guard, redirects by hand, size cap, retries, hedging."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp
from aiohttp.connector import Connection
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    SluicewayError,
    UpstreamFailed,
    UpstreamRefused,
    UrlNotAllowed,
)

from sluiceway_orchestrator.fetch.guard import GuardedResolver, LookUp, UrlPolicy, system_look_up
from sluiceway_orchestrator.fetch.room import Estimate, Holding, Room
from sluiceway_orchestrator.fetch.url_text import resolved

__all__ = ["Attempts", "Body", "HttpClient", "Request", "open_session"]

MAX_REDIRECTS = 5
CHUNK_BYTES = 256 * 1024
# Full jitter between zero and this, doubled for every attempt.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
# "Try again" from the other side, besides 5xx.
_TRANSIENT = frozenset((408, 425, 429))
# These turn the request into a GET; 307 and 308 repeat it as it is.
_SEE_OTHER = frozenset((301, 302, 303))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
# Never sent on to another origin.
_CREDENTIALS = frozenset(("authorization", "cookie", "proxy-authorization"))


@dataclass(frozen=True, slots=True)
class Request:
    """What to send.

    Attributes:
        secret_headers: names (lower case) of headers that stay with the first origin.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    secret_headers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Attempts:
    """How hard to try.

    Attributes:
        repeatable: whether the request may be sent more than once.
    """

    timeout_s: float
    retries: int = 0
    hedge_after_s: float | None = None
    repeatable: bool = True


@dataclass(slots=True)
class Body:
    """An answer, and its part of the room of the call. Whoever gets it releases that, or the room.

    Attributes:
        url: what answered, after all redirects.
    """

    url: str
    data: bytearray
    holding: Holding


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A request with all that its answer needs here."""

    request: Request
    room: Room
    expected: Estimate


class _Clock:
    """The time of one attempt. It stands still while the attempt waits for this server and not for the other one."""

    def __init__(self, timer: asyncio.Timeout) -> None:
        self._timer = timer
        self._left_s = 0.0

    def stop(self) -> None:
        ends_s = self._timer.when()
        assert ends_s is not None
        self._left_s = ends_s - asyncio.get_running_loop().time()
        self._timer.reschedule(None)

    def go_on(self) -> None:
        self._timer.reschedule(asyncio.get_running_loop().time() + self._left_s)


class HttpClient:
    """Requests of one trust domain: one pool of connections, and one policy for all that goes over them.

    Pools are not shared between policies: a connection that one of them allowed would be open to the other.
    """

    def __init__(
        self,
        policy: UrlPolicy,
        session: aiohttp.ClientSession,
        *,
        max_bytes: int,
    ) -> None:
        self._policy = policy
        self._session = session
        self._max_bytes = max_bytes

    async def fetch(
        self, request: Request, attempts: Attempts, deadline: Deadline, room: Room, expected: Estimate
    ) -> Body:
        """Send a request until it is answered.

        Args:
            request: what to send.
            attempts: how hard to try.
            deadline: by when.
            room: where the answer is counted.
            expected: the size of an answer that does not say its own; learns from those that come.

        Raises:
            UrlNotAllowed, UpstreamRefused (4xx), ImageTooLarge: final, whatever the attempts.
            UpstreamFailed: every attempt failed.
            DeadlineExceeded: the time ran out.
        """
        self._policy.parse(request.url)
        wanted = _Wanted(request, room, expected)
        tries = attempts.retries + 1 if attempts.repeatable else 1
        for attempt in range(1, tries + 1):
            try:
                async with asyncio.timeout(deadline.remaining_s()):
                    return await self._hedged(wanted, attempts)
            except TimeoutError:
                raise DeadlineExceeded("the time ran out while fetching") from None
            except UpstreamFailed as error:
                if attempt == tries:
                    raise
                pause_s = random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempt - 1)))
                pause_s = max(pause_s, error.retry_after_s or 0)
                if pause_s >= deadline.remaining_s():
                    raise
                await asyncio.sleep(pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _hedged(self, wanted: _Wanted, attempts: Attempts) -> Body:
        def once() -> Awaitable[Body]:
            return self._timed(wanted, attempts.timeout_s)

        if attempts.hedge_after_s is None or not attempts.repeatable:
            return await once()
        return await _race(once, attempts.hedge_after_s)

    async def _timed(self, wanted: _Wanted, timeout_s: float) -> Body:
        try:
            async with asyncio.timeout(timeout_s) as timer:
                return await self._once(wanted, _Clock(timer))
        except TimeoutError:
            raise UpstreamFailed("no answer in time", metadata={"timeout_s": f"{timeout_s:g}"}) from None
        except SluicewayError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The guard speaks from inside the client's connector, which may wrap what it says.
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, UrlNotAllowed):
                    raise cause from None
                cause = cause.__cause__ or cause.__context__
            raise UpstreamFailed("the connection failed", metadata={"kind": type(error).__name__}) from error

    async def _once(self, wanted: _Wanted, clock: _Clock) -> Body:
        request = wanted.request
        url = self._policy.parse(request.url)
        method, body, headers = request.method, request.body, dict(request.headers)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False, trace_request_ctx=clock
            ) as response:
                if response.status not in _REDIRECTS or "Location" not in response.headers:
                    return await self._read(response, str(url), clock, wanted)
                target = self._policy.parse(resolved(str(url), response.headers["Location"]))
                if response.status in _SEE_OTHER and method != "GET":
                    method, body = "GET", None
                if target.origin() != url.origin():
                    headers = {
                        name: value
                        for name, value in headers.items()
                        if name.lower() not in _CREDENTIALS and name.lower() not in request.secret_headers
                    }
                    if body is not None:
                        raise UrlNotAllowed("a request with a body is not redirected to another server")
                url = target
        raise UpstreamFailed("too many redirects")

    async def _read(self, response: aiohttp.ClientResponse, url: str, clock: _Clock, wanted: _Wanted) -> Body:
        if response.status in _TRANSIENT or response.status >= 500:
            raise UpstreamFailed(
                f"answered with status {response.status}",
                metadata={"status": str(response.status)},
                retry_after_s=_retry_after_s(response.headers.get("Retry-After")),
            )
        if not 200 <= response.status < 300:
            raise UpstreamRefused(f"answered with status {response.status}", metadata={"status": str(response.status)})
        length = response.content_length
        if length is not None and length > self._max_bytes:
            raise self._too_large()
        # Content-Length is that of the compressed body: what comes out of it is only known to be within the limit.
        known = length is not None and "Content-Encoding" not in response.headers
        clock.stop()
        holding = await wanted.room.take(length if known and length is not None else wanted.expected.size_bytes)
        clock.go_on()
        try:
            data = await self._collect(response, holding)
        except BaseException:
            holding.release()
            raise
        holding.settle(len(data))
        wanted.expected.learn(len(data))
        return Body(url, data, holding)

    async def _collect(self, response: aiohttp.ClientResponse, holding: Holding) -> bytearray:
        """The body in one piece, which is never copied: an image may be large."""
        data = bytearray()
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            data += chunk
            if len(data) > self._max_bytes:
                raise self._too_large()
            if len(data) > holding.size_bytes:
                # Waiting for more, with some of it here, could stop everything: what comes is let in.
                holding.settle(len(data))
        return data

    def _too_large(self) -> ImageTooLarge:
        return ImageTooLarge("the answer is larger than allowed", metadata={"max_image_bytes": str(self._max_bytes)})


async def _race(once: Callable[[], Awaitable[Body]], hedge_after_s: float) -> Body:
    """The first good answer of two requests, the second sent only if the first is slow; the other one is cancelled."""
    tasks = {asyncio.ensure_future(once())}
    failure: BaseException | None = None
    hedged = False
    try:
        while tasks:
            timeout_s = None if hedged else hedge_after_s
            done, tasks = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    for other in done - {task}:
                        if not other.exception():
                            other.result().holding.release()
                    return task.result()
                failure = failure or error
            if not done and not hedged:
                hedged = True
                tasks.add(asyncio.ensure_future(once()))
            elif not hedged:
                break
        assert failure is not None
        raise failure
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled() and task.exception() is None:
                    task.result().holding.release()


def _retry_after_s(text: str | None) -> float | None:
    """Seconds of a Retry-After header; its date form is not worth a clock comparison with a stranger."""
    return min(float(text), LONGEST_PAUSE_S) if text is not None and text.isdecimal() else None


def _line_for_connections() -> aiohttp.TraceConfig:
    """Stops the clock of an attempt while every connection that it could have is in use."""

    async def begins(_session: aiohttp.ClientSession, context: SimpleNamespace, _what: object) -> None:
        if isinstance(context.trace_request_ctx, _Clock):
            context.trace_request_ctx.stop()

    async def ends(_session: aiohttp.ClientSession, context: SimpleNamespace, _what: object) -> None:
        if isinstance(context.trace_request_ctx, _Clock):
            context.trace_request_ctx.go_on()

    config = aiohttp.TraceConfig()
    config.on_connection_queued_start.append(begins)
    config.on_connection_queued_end.append(ends)
    return config


class _SentOnce(aiohttp.ClientResponse):
    """The answer to a request that must not be sent again.

    When a connection ends before the answer, aiohttp sends any GET and PUT a second time by itself; not after an error
    that it does not know as the end of a connection.
    """

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        try:
            return await super().start(connection)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise aiohttp.ClientConnectionError("the connection ended before the answer") from error


def open_session(
    policy: UrlPolicy | None,
    *,
    per_host: int,
    total: int,
    look_up: LookUp = system_look_up,
    repeatable: bool = True,
    proxy: str | None = None,
) -> aiohttp.ClientSession:
    """A pooled session; with a policy its connector connects to allowed addresses only. The caller closes it.

    With a proxy nothing but that is connected to: it looks the names up, and decides what they may stand for.
    """
    resolver = None if policy is None or proxy is not None else GuardedResolver(policy, look_up)
    connector = aiohttp.TCPConnector(limit=total, limit_per_host=per_host, resolver=resolver, ttl_dns_cache=10)
    return aiohttp.ClientSession(
        connector=connector,
        # Cookies would carry something from one client's request into another's.
        cookie_jar=aiohttp.DummyCookieJar(),
        # Proxies and credentials of the environment are not for requests that strangers ask for.
        trust_env=False,
        proxy=proxy,
        trace_configs=[_line_for_connections()],
        response_class=aiohttp.ClientResponse if repeatable else _SentOnce,
        # Times are kept per attempt and per deadline, around everything.
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"User-Agent": "sluiceway"},
    )
