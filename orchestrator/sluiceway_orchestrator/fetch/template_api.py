"""APIs that are described in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    ConfigurationError,
    DeadlineExceeded,
    ImageTooLarge,
    InvalidImage,
    InvalidOption,
    SluicewayError,
    UpstreamFailed,
    UpstreamRefused,
    UrlNotAllowed,
)

from sluiceway.figures import ApiFigures
from sluiceway_orchestrator.config.apis import ApiConfig
from sluiceway_orchestrator.fetch.api import Brought, check_params, within
from sluiceway_orchestrator.fetch.caller import Call
from sluiceway_orchestrator.fetch.document import chosen_detection, decode_image, image_at, parse_json, values_at
from sluiceway_orchestrator.fetch.guard import LookUp, UrlPolicy, host_of
from sluiceway_orchestrator.fetch.http import Attempts, Body, HttpClient, Request, open_session
from sluiceway_orchestrator.fetch.limits import Limits
from sluiceway_orchestrator.fetch.request_template import RequestTemplate
from sluiceway_orchestrator.fetch.room import Estimate, Room
from sluiceway_orchestrator.fetch.url_text import is_data_url, resolved
from sluiceway_orchestrator.job import Buffer

__all__ = ["TemplateApi"]

# What a JSON answer may hold besides a base64 image.
JSON_ROOM_BYTES = 2**20


class TemplateApi:
    """An API that is described in the configuration."""

    def __init__(
        self,
        name: str,
        config: ApiConfig,
        *,
        environment: Mapping[str, str],
        max_image_bytes: int,
        look_up: LookUp,
    ) -> None:
        assert config.url is not None
        self.name = name
        self.params = config.params
        self.brings_image = config.image != "none"
        self.brings_values = bool(config.values)
        self._config = config
        self._template = RequestTemplate(name, config, environment)
        self._max_image_bytes = max_image_bytes
        with_base64 = max_image_bytes * 4 // 3 + JSON_ROOM_BYTES
        # A URL in the answer may be a data: URL, which holds the image.
        self._max_answer_bytes = {"body": max_image_bytes, "base64": with_base64, "url": with_base64}.get(
            config.image, JSON_ROOM_BYTES
        )
        self.expected = Estimate(max(max_image_bytes, self._max_answer_bytes))
        # JSON that says where the image is; what it takes says nothing of the image.
        self._expected_answer = Estimate(with_base64) if config.image == "url" else self.expected
        self._look_up = look_up
        try:
            host = host_of(config.url)
        except ValueError as error:
            raise ConfigurationError(f"api.{name}.url: cannot be read") from error
        self._policy = UrlPolicy(config.allow_hosts, config.allow_cidrs, trusted_host=host)
        self._session: aiohttp.ClientSession | None = None
        self._limits = Limits(
            name, config, refusals=(UpstreamRefused, InvalidOption, InvalidImage, ImageTooLarge, UrlNotAllowed)
        )
        self._attempts = Attempts(config.timeout_s, config.retries, config.hedge_after_s, config.safe_to_repeat)

    async def start(self) -> None:
        """Open the pool of connections."""
        # Twice the calls: a hedged call has two requests.
        slots = 2 * self._config.max_in_flight
        self._session = open_session(
            self._policy,
            per_host=slots,
            total=slots,
            look_up=self._look_up,
            repeatable=self._config.safe_to_repeat,
            proxy=self._config.proxy,
        )

    async def close(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()

    def use(self) -> ApiFigures:
        """How many calls there are now, and may be."""
        return self._limits.use()

    async def call(self, call: Call, room: Room) -> Brought:
        """Make a call."""
        check_params(self.params, call.params)
        # Before the breaker is asked: what is refused here is never sent, and says nothing about the API.
        request = self._template.fill(call.params)
        self._policy.parse(request.url)
        async with self._limits.call(call.deadline, room, self.expected):
            return await self._call(request, call, room)

    async def _call(self, request: Request, call: Call, room: Room) -> Brought:
        assert self._session is not None
        config = self._config
        client = HttpClient(self._policy, self._session, max_bytes=self._max_answer_bytes)
        body = await client.fetch(request, self._attempts, call.deadline, room, self._expected_answer)
        if config.image == "body":
            if call.want_image:
                return Brought(memoryview(body.data))
            body.holding.release()
            return Brought()
        document = parse_json(body.data)
        brought = Brought(
            values=values_at(document, config.values), detection=chosen_detection(document, config.detection)
        )
        if not call.want_image or config.image_pointer is None:
            body.holding.release()
            return brought
        found = image_at(document, config.image_pointer)
        if config.image == "base64":
            brought.image = within(decode_image(found), self._max_image_bytes)
            body.holding.settle(len(brought.image))
            return brought
        brought.image = await self._fetch_url(found, body, call.deadline, room)
        return brought

    async def _fetch_url(self, found: Any, answer: Body, deadline: Deadline, room: Room) -> Buffer:
        """Bring what the answer names, relative to itself; of a list, the first that can be had."""
        assert self._session is not None
        urls = found if isinstance(found, list) else [found]
        if not urls or not all(isinstance(url, str) for url in urls):
            raise UpstreamFailed("the answer has no URL where the configuration says")
        if any(is_data_url(url) for url in urls):
            # An image is here and stays counted: beside it nothing may wait for more room.
            room.waits = False
        else:
            # Released first: holding some room while waiting for more could stop everything.
            answer.holding.release()
        client = HttpClient(self._policy, self._session, max_bytes=self._max_image_bytes)
        attempts = Attempts(self._config.timeout_s, self._config.retries, self._config.hedge_after_s)
        failure: SluicewayError | None = None
        for url in urls:
            try:
                if is_data_url(url):
                    image = within(decode_image(url), self._max_image_bytes)
                    answer.holding.settle(len(image))
                    return image
                request = Request(resolved(answer.url, url))
                body = await client.fetch(request, attempts, deadline, room, self.expected)
            except DeadlineExceeded:
                raise
            except SluicewayError as error:
                failure = failure or error
            else:
                answer.holding.release()
                return memoryview(body.data)
        assert failure is not None
        raise failure
