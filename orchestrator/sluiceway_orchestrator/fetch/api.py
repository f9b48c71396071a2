"""APIs by name: what every kind has in common, and requests that are made from a template."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import aiohttp
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    ConfigurationError,
    DeadlineExceeded,
    ImageTooLarge,
    InvalidOption,
    SluicewayError,
    UpstreamFailed,
)

from sluiceway_orchestrator.config import PLACEHOLDER, ApiConfig
from sluiceway_orchestrator.fetch.breaker import Breaker
from sluiceway_orchestrator.fetch.budget import ByteBudget, Reservation
from sluiceway_orchestrator.fetch.content import metadata_text, resolve_pointer
from sluiceway_orchestrator.fetch.guard import LookUp, UrlPolicy
from sluiceway_orchestrator.fetch.http import Attempts, HttpClient, Request, open_session
from sluiceway_orchestrator.fetch.slots import Slots

__all__ = ["Api", "ApiAnswer", "TemplateApi", "check_params", "within"]

# What a JSON answer may hold besides a base64 image.
JSON_ROOM_BYTES = 2**20
MAX_PARAM = 8192
MAX_NAME, MAX_UNKNOWN = 64, 8


@dataclass(slots=True)
class ApiAnswer:
    """What an API gave; whoever gets it releases the reservation."""

    image: bytes
    metadata: Mapping[str, str]
    reservation: Reservation | None


class Api(Protocol):
    """Something that a source can call by name."""

    params: tuple[str, ...]

    async def start(self) -> None:
        """Prepare. Raises ConfigurationError."""

    async def close(self) -> None:
        """Release connections."""

    async def call(
        self, params: Mapping[str, str], deadline: Deadline, budget: ByteBudget, *, want_image: bool
    ) -> ApiAnswer:
        """Make a call; without `want_image` the image is neither fetched nor decoded.

        Args:
            params: exactly those that are declared.
            deadline: by when.
            budget: where room for the answer is reserved; not the one of images for a call without `want_image`.
            want_image: whether the image is wanted, or the metadata alone.

        Raises:
            SluicewayError: there is no answer. No reservation is left.
        """
        ...


def check_params(declared: Sequence[str], given: Mapping[str, str]) -> None:
    """Raise InvalidOption unless exactly the declared parameters are given, each of a sensible length."""
    missing = sorted(set(declared) - set(given))
    unknown = sorted(set(given) - set(declared))
    if missing or unknown:
        # Of what a client made up, enough to find it by.
        named = (name[:MAX_NAME] for name in unknown[:MAX_UNKNOWN])
        faults = [*(f"missing {name}" for name in missing), *(f"unknown {name}" for name in named)]
        raise InvalidOption(f"api_call.params: {', '.join(faults)}")
    for name, value in given.items():
        if len(value) > MAX_PARAM:
            raise InvalidOption(f"api_call.params.{name}: longer than {MAX_PARAM} characters")


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
        self._config = config
        self._url = config.url
        self._max_image_bytes = max_image_bytes
        self._look_up = look_up
        absent = [variable for variable in config.secrets.values() if variable not in environment]
        if absent:
            raise ConfigurationError(f"api.{name}.secrets: not in the environment: {', '.join(sorted(absent))}")
        self._secrets = {key: environment[variable] for key, variable in config.secrets.items()}
        self._secret_headers = frozenset(
            header.lower() for header, text in config.headers.items() if "{secret." in text
        )
        host = urlsplit(config.url).hostname
        self._policy = UrlPolicy(config.allow_hosts, config.allow_cidrs, trusted_host=host)
        self._session: aiohttp.ClientSession | None = None
        self._breaker = Breaker(config.breaker_failures, config.breaker_open_s)
        self._slots = Slots(config.max_in_flight)
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
        )

    async def close(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()

    async def call(
        self, params: Mapping[str, str], deadline: Deadline, budget: ByteBudget, *, want_image: bool
    ) -> ApiAnswer:
        """Make a call."""
        check_params(self.params, params)
        if want_image and self._config.image == "none":
            raise InvalidOption(f"api_call: {self.name} brings no image")
        # Before the breaker is asked: what is refused here is never sent, and says nothing about the API.
        request = self._request(params)
        wait_s = self._breaker.admit(monotonic())
        if wait_s is not None:
            raise UpstreamFailed(f"{self.name} failed too often of late", retry_after_s=wait_s)
        try:
            async with asyncio.timeout(deadline.remaining_s()), self._slots.slot(want_image=want_image):
                answer = await self._call(request, deadline, budget, want_image=want_image)
        except UpstreamFailed:
            self._breaker.failed(monotonic())
            raise
        except TimeoutError:
            self._breaker.abandoned()
            raise DeadlineExceeded("the time ran out while fetching") from None
        except DeadlineExceeded:
            self._breaker.abandoned()
            raise
        except SluicewayError:
            self._breaker.succeeded()
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return answer

    async def _call(self, request: Request, deadline: Deadline, budget: ByteBudget, *, want_image: bool) -> ApiAnswer:
        assert self._session is not None
        kind = self._config.image
        if kind == "body":
            limit = self._max_image_bytes
        elif kind == "base64" or want_image:
            limit = self._max_image_bytes * 4 // 3 + JSON_ROOM_BYTES
        else:
            limit = JSON_ROOM_BYTES
        client = HttpClient(self._policy, budget, self._session, max_bytes=limit)
        answer = await client.fetch(request, self._attempts, deadline)
        if kind == "body":
            return ApiAnswer(answer.data if want_image else b"", {}, answer.reservation)
        try:
            document = _json(answer.data)
            metadata = self._metadata(document)
            if not want_image or self._config.image_pointer is None:
                answer.reservation.release()
                return ApiAnswer(b"", metadata, None)
            found = _image_value(document, self._config.image_pointer)
            if kind == "base64":
                image = within(_decode(found), self._max_image_bytes)
                answer.reservation.shrink(len(image))
                return ApiAnswer(image, metadata, answer.reservation)
        except BaseException:
            answer.reservation.release()
            raise
        # Released first: holding one reservation while waiting for another could stop everything.
        answer.reservation.release()
        return await self._fetch_url(found, metadata, deadline, budget)

    def _metadata(self, document: Any) -> dict[str, str]:
        """The configured fields; those that this answer does not have are left out."""
        metadata = {}
        for name, pointer in self._config.metadata.items():
            with suppress(KeyError):
                metadata[name] = metadata_text(resolve_pointer(document, pointer))
        return metadata

    async def _fetch_url(
        self, found: Any, metadata: Mapping[str, str], deadline: Deadline, budget: ByteBudget
    ) -> ApiAnswer:
        """Fetch what the answer names; of a list, the first that can be had."""
        assert self._session is not None
        urls = found if isinstance(found, list) else [found]
        if not urls or not all(isinstance(url, str) for url in urls):
            raise UpstreamFailed("the answer has no URL where the configuration says")
        client = HttpClient(self._policy, budget, self._session, max_bytes=self._max_image_bytes)
        attempts = Attempts(self._config.timeout_s, self._config.retries, self._config.hedge_after_s)
        failure: SluicewayError | None = None
        for url in urls:
            try:
                body = await client.fetch(Request(url), attempts, deadline)
            except DeadlineExceeded:
                raise
            except SluicewayError as error:
                failure = failure or error
            else:
                return ApiAnswer(body.data, metadata, body.reservation)
        assert failure is not None
        raise failure

    def _request(self, params: Mapping[str, str]) -> Request:
        """Fill the template in. Raises InvalidOption and UrlNotAllowed."""
        config = self._config
        url = self._fill(self._url, params, _url_text)
        self._policy.parse(url)
        headers = {name: self._fill(text, params, _header_value) for name, text in config.headers.items()}
        body = None
        if config.body is not None:
            content_type = next((text for name, text in headers.items() if name.lower() == "content-type"), None)
            if content_type is None:
                content_type = headers["Content-Type"] = "application/json"
            escape = _json_text if "json" in content_type else _url_text
            body = self._fill(config.body, params, escape).encode()
        return Request(url, config.method, headers, body, self._secret_headers)

    def _fill(self, template: str, params: Mapping[str, str], escape: Any) -> str:
        return PLACEHOLDER.sub(
            lambda match: escape(match[2], self._secrets[match[2]] if match[1] else params[match[2]]), template
        )


def within(image: bytes, max_image_bytes: int) -> bytes:
    """The image, unless it is larger than allowed."""
    if len(image) > max_image_bytes:
        raise ImageTooLarge("the image is larger than allowed", metadata={"max_image_bytes": str(max_image_bytes)})
    return image


def _image_value(document: Any, pointer: str) -> Any:
    try:
        return resolve_pointer(document, pointer)
    except KeyError:
        raise UpstreamFailed("the answer has no image where the configuration says") from None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UpstreamFailed("the answer is not JSON") from error


def _decode(value: Any) -> bytes:
    """Base64 with or without a `data:` prefix, line breaks and padding."""
    if not isinstance(value, str):
        raise UpstreamFailed("the image in the answer is no text")
    text = value.partition(",")[2] if value.startswith("data:") else value
    text = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise UpstreamFailed("the image in the answer is not base64") from error


def _url_text(name: str, value: str) -> str:
    if value in (".", ".."):
        # Percent-encoding does not protect dots: servers read them as a step in the path.
        raise InvalidOption(f"api_call.params.{name}: must not be a path step")
    return quote(value, safe="")


def _json_text(_name: str, value: str) -> str:
    return json.dumps(value)[1:-1]


def _header_value(name: str, value: str) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        raise InvalidOption(f"api_call.params.{name}: must not hold control characters")
    return value
