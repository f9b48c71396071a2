"""Brings the image of a source, whatever kind of source it is, and makes the calls of sources and steps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from sluiceway_runtime.account import Account, Phase
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.documents.kind import is_pdf
from sluiceway_runtime.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidImage,
    InvalidOption,
    SluicewayError,
    UnknownApi,
    UpstreamFailed,
    UrlNotAllowed,
)
from sluiceway_runtime.images.signatures import ACCEPTED

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import ApiConfig
from sluiceway_orchestrator.fetch.api import Api, Brought, within
from sluiceway_orchestrator.fetch.caller import Answer, Call, DetectionChoice, Region
from sluiceway_orchestrator.fetch.content import is_image
from sluiceway_orchestrator.fetch.guard import LookUp, UrlPolicy, system_look_up
from sluiceway_orchestrator.fetch.http import Attempts, HttpClient, Request, open_session
from sluiceway_orchestrator.fetch.room import Estimates, Room
from sluiceway_orchestrator.fetch.template_api import TemplateApi
from sluiceway_orchestrator.fetch.url_text import data_url_bytes, is_data_url
from sluiceway_orchestrator.fetch.user_api import UserApi
from sluiceway_orchestrator.job import ApiCall, Buffer, Source
from sluiceway_orchestrator.metrics.apis import URLS, ApiMetrics

__all__ = ["CallContext", "Fetched", "Fetcher"]


@dataclass(frozen=True, slots=True)
class CallContext:
    """For whom calls are made.

    Attributes:
        deadline: bounds every wait.
        values: what earlier calls of the source answered, by their names.
    """

    job_id: str
    source_id: str
    request_id: str
    deadline: Deadline
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Fetched:
    """An image that is here, and what APIs said; `release` once its bytes are not needed any more.

    Attributes:
        image: bytes of its own, or those that came with the request, which this does not count.
        values: what calls answered, by their names; those without any are left out.
        call_errors: calls that failed, by their names.
        detection: options that answers chose, the later calls winning.
    """

    image: Buffer
    fetch_ms: float = 0.0
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    call_errors: dict[str, SluicewayError] = field(default_factory=dict)
    detection: DetectionChoice | None = None
    room: Room | None = None

    def release(self) -> None:
        """Let go of the bytes, and take them off the account; twice does no harm."""
        self.image = b""
        if self.room is not None:
            self.room.release()

    def add(self, name: str, brought: Brought) -> None:
        """Join what a call said, after all earlier ones."""
        if brought.values:
            self.values[name] = dict(brought.values)
        if brought.detection is not None:
            self.detection = brought.detection.over(self.detection)


class Fetcher:
    """All of fetching: URLs and configured APIs. Owns the connections, from `start` to `close`.

    Attributes:
        apis: by name.
        metrics: of what was called and fetched.
    """

    def __init__(
        self,
        config: OrchestratorConfig,
        apis: Mapping[str, ApiConfig],
        environment: Mapping[str, str],
        *,
        look_up: LookUp = system_look_up,
    ) -> None:
        self._config = config
        self._look_up = look_up
        self._policy = UrlPolicy(config.url_allow_hosts, config.url_allow_cidrs)
        self._session: aiohttp.ClientSession | None = None
        self._expected = Estimates(config.max_image_bytes)
        self._attempts = Attempts(config.url_timeout_s, config.url_retries, config.url_hedge_after_s)
        self.apis: dict[str, Api] = {}
        faults = []
        for name, api in apis.items():
            try:
                self.apis[name] = self._api(name, api, environment)
            except ConfigurationError as error:
                faults.append(str(error))
        if faults:
            raise ConfigurationError("\n".join(faults))
        self.metrics = ApiMetrics(self.apis)

    def _api(self, name: str, api: ApiConfig, environment: Mapping[str, str]) -> Api:
        limit = self._config.max_image_bytes
        if api.caller is not None:
            return UserApi(name, api, max_image_bytes=limit)
        return TemplateApi(name, api, environment=environment, max_image_bytes=limit, look_up=self._look_up)

    async def start(self) -> None:
        """Open the pools of connections. Raises ConfigurationError if a user's caller cannot be set up."""
        self._session = open_session(
            self._policy,
            per_host=self._config.fetch_per_host,
            total=self._config.fetch_total,
            look_up=self._look_up,
            proxy=self._config.proxy,
        )
        for api in self.apis.values():
            await api.start()

    async def close(self) -> None:
        """Close them, and let users' callers close what they opened, all at once, in bounded time."""
        await asyncio.gather(*(api.close() for api in self.apis.values()))
        if self._session is not None:
            await self._session.close()

    async def fetch(self, source: Source, calls: Sequence[ApiCall], context: CallContext, account: Account) -> Fetched:
        """Bring the image of a source, and at the same time make calls.

        A source without image, URL and API call gets the image of the first of `calls` whose answer has one.

        Args:
            source: whose `calls` are not looked at.
            calls: all of them, each with a name of its own.
            context: for whom.
            account: where the image is counted, in the phase FETCH, until `Fetched.release`. The image of the request
                is not: it is counted with the request.

        Raises:
            SluicewayError: the image cannot be had. Failing calls are reported in the result instead. Nothing is left
                in the account; this holds for cancelling, too.
        """
        if source.image is not None and not calls:
            return Fetched(self._given(source.image))
        started_s = monotonic()
        rooms: list[Room] = []
        tasks: list[asyncio.Task[Brought | SluicewayError]] = []
        try:
            bare = source.image is None and source.url is None and source.api_call is None
            rooms += await self._rooms(calls, context, account) if bare else _counted(calls, account)
            for call, room in zip(calls, rooms, strict=True):
                tasks.append(asyncio.create_task(self._ended(call, context, room, want_image=bare)))
            fetched = Fetched(b"")
            if not bare:
                fetched.room = Room(account)
                rooms.append(fetched.room)
                await self._bring(source, context, fetched, fetched.room)
            answers = [await task for task in tasks]
            for call, answer in zip(calls, answers, strict=True):
                if isinstance(answer, SluicewayError):
                    fetched.call_errors[call.name] = answer
                else:
                    fetched.add(call.name, answer)
            if bare:
                self._choose(fetched, calls, answers, rooms)
        except BaseException:
            try:
                # Only here: when all went well none is left, and no wait in which to be cancelled with the image here.
                await _stop(tasks)
            finally:
                for room in rooms:
                    room.release()
            raise
        fetched.fetch_ms = (monotonic() - started_s) * 1000
        return fetched

    async def call(
        self,
        call: ApiCall,
        context: CallContext,
        account: Account,
        *,
        region: Region | None = None,
        regions: tuple[Region, ...] = (),
    ) -> Answer:
        """Make the call of a step, for what it says alone.

        Raises:
            SluicewayError: there is no answer. Nothing is left in the account, with an answer neither.
        """
        room = Room(account, waits=False)
        try:
            brought = await self._call(call, context, room, region=region, regions=regions)
        finally:
            room.release()
        return Answer(None, brought.values, brought.detection)

    async def _bring(self, source: Source, context: CallContext, fetched: Fetched, room: Room) -> None:
        """The image of a source that says where it is."""
        if source.image is not None:
            fetched.image = self._given(source.image)
        elif source.url is not None:
            image = await self.metrics.watched(URLS, self._url(source.url, context.deadline, room))
            fetched.image = _checked(image)
        else:
            call = source.api_call
            assert call is not None
            api = self.apis.get(call.api)
            if api is not None and not api.brings_image:
                raise InvalidOption(f"api_call: {api.name} brings no image")
            brought = await self._call(call, context, room, want_image=True)
            fetched.image = _checked(brought.image)
            fetched.add(call.name, brought)

    async def _rooms(self, calls: Sequence[ApiCall], context: CallContext, account: Account) -> list[Room]:
        """Rooms for calls of which each may bring the image.

        What all of them are expected to take is taken before the first of them is made: an image that is here must not
        wait for room for another one of the same source.
        """
        sizes = []
        for call in calls:
            api = self.apis.get(call.api)
            sizes.append(api.expected.size_bytes if api is not None and api.brings_image else 0)
        if not any(sizes):
            raise InvalidOption("source: one of image, url and api_call must be set, or a call that brings the image")
        try:
            async with asyncio.timeout(context.deadline.remaining_s()):
                await account.reserve(sum(sizes), Phase.FETCH)
        except TimeoutError:
            raise DeadlineExceeded("the time ran out while waiting for room") from None
        return [Room(account, waits=False, taken_bytes=size) for size in sizes]

    def _choose(
        self,
        fetched: Fetched,
        calls: Sequence[ApiCall],
        answers: Sequence[Brought | SluicewayError],
        rooms: Sequence[Room],
    ) -> None:
        """Take the first image there is, and drop the others."""
        failure: SluicewayError | None = None
        for call, answer, room in zip(calls, answers, rooms, strict=True):
            if isinstance(answer, SluicewayError):
                if call.api in self.apis and self.apis[call.api].brings_image:
                    failure = failure or answer
            elif answer.image and fetched.room is None:
                fetched.image, fetched.room = _checked(answer.image), room
            else:
                room.release()
        if fetched.room is None:
            raise failure or UpstreamFailed("no call brought an image")

    async def _url(self, url: str, deadline: Deadline, room: Room) -> Buffer:
        if is_data_url(url):
            return await self._held_by(url, deadline, room)
        if not self._config.url_sources:
            raise UrlNotAllowed("this server does not fetch URLs")
        assert self._session is not None
        client = HttpClient(self._policy, self._session, max_bytes=self._config.max_image_bytes)
        expected = self._expected.of(self._policy.parse(url).host or "")
        body = await client.fetch(Request(url), self._attempts, deadline, room, expected)
        return memoryview(body.data)

    async def _held_by(self, data_url: str, deadline: Deadline, room: Room) -> Buffer:
        """The image that a `data:` URL holds. The text itself is counted with the request that brought it."""
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                holding = await room.take(len(data_url) * 3 // 4)
        except TimeoutError:
            raise DeadlineExceeded("the time ran out while waiting for room") from None
        try:
            image = data_url_bytes(data_url)
        except ValueError as error:
            raise InvalidImage(f"the data: URL cannot be read: {error}") from None
        holding.settle(len(image))
        return within(image, self._config.max_image_bytes)

    async def _ended(
        self, call: ApiCall, context: CallContext, room: Room, *, want_image: bool
    ) -> Brought | SluicewayError:
        """What the call brought, or why it did not; its room is held on for an image alone."""
        try:
            brought = await self._call(call, context, room, want_image=want_image)
        except SluicewayError as error:
            room.release()
            return error
        if not brought.image:
            room.release()
        return brought

    async def _call(
        self,
        call: ApiCall,
        context: CallContext,
        room: Room,
        *,
        want_image: bool = False,
        region: Region | None = None,
        regions: tuple[Region, ...] = (),
    ) -> Brought:
        api = self.apis.get(call.api)
        if api is None:
            raise UnknownApi("no API of this name is configured", metadata={"api": call.api[:64]})
        made = Call(
            api=call.api,
            name=call.name,
            params=dict(call.params),
            source_id=context.source_id,
            job_id=context.job_id,
            request_id=context.request_id,
            deadline=context.deadline,
            want_image=want_image and api.brings_image,
            values=context.values,
            region=region,
            regions=regions,
        )
        return await self.metrics.watched(call.api, api.call(made, room))

    def _given(self, image: Buffer) -> Buffer:
        if not image:
            raise InvalidImage("the image is empty")
        return within(image, self._config.max_image_bytes)


def _counted(calls: Sequence[ApiCall], account: Account) -> list[Room]:
    return [Room(account, waits=False) for _ in calls]


def _checked(image: Buffer) -> Buffer:
    if not is_image(image) and not is_pdf(image):
        raise InvalidImage(f"what was fetched is not a {ACCEPTED} file, and no PDF")
    return image


async def _stop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    left = [task for task in tasks if not task.done()]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)
