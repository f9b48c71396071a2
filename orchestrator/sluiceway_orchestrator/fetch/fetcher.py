"""Brings the image of a source, whatever kind of source it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

import aiohttp
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    ConfigurationError,
    InvalidImage,
    InvalidOption,
    SluicewayError,
    UnknownApi,
    UrlNotAllowed,
)

from sluiceway_orchestrator.config import ApiConfig, OrchestratorConfig
from sluiceway_orchestrator.fetch.api import Api, ApiAnswer, TemplateApi, within
from sluiceway_orchestrator.fetch.budget import ByteBudget, Reservation
from sluiceway_orchestrator.fetch.content import is_image
from sluiceway_orchestrator.fetch.guard import LookUp, UrlPolicy, system_look_up
from sluiceway_orchestrator.fetch.http import Attempts, HttpClient, Request, open_session
from sluiceway_orchestrator.fetch.user_api import UserApi
from sluiceway_orchestrator.job import ApiCall, Source

__all__ = ["Fetched", "Fetcher"]


@dataclass(slots=True)
class Fetched:
    """An image that is here; `release` once its bytes are not needed any more."""

    image: bytes
    fetch_ms: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict)
    metadata_errors: Mapping[str, SluicewayError] = field(default_factory=dict)
    reservation: Reservation | None = None

    def release(self) -> None:
        """Give its part of the byte budget back, and let go of the bytes."""
        self.image = b""
        if self.reservation is not None:
            self.reservation.release()


class Fetcher:
    """All of fetching: URLs and configured APIs. Owns the connections, from `start` to `close`."""

    def __init__(
        self,
        config: OrchestratorConfig,
        apis: Mapping[str, ApiConfig],
        environment: Mapping[str, str],
        *,
        look_up: LookUp = system_look_up,
    ) -> None:
        self.budget = ByteBudget(config.fetch_bytes)
        self._metadata_budget = ByteBudget(config.fetch_bytes)
        self._config = config
        self._look_up = look_up
        self._policy = UrlPolicy(config.url_allow_hosts, config.url_allow_cidrs)
        self._session: aiohttp.ClientSession | None = None
        # An image that is kept until such an API has brought metadata could keep the room that the call with the API's
        # one slot waits for.
        self._metadata_first = frozenset(
            name for name, api in apis.items() if api.max_in_flight == 1 and api.image != "none"
        )
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
        )
        for api in self.apis.values():
            await api.start()

    async def close(self) -> None:
        """Close them."""
        for api in self.apis.values():
            await api.close()
        if self._session is not None:
            await self._session.close()

    async def fetch(self, source: Source, deadline: Deadline) -> Fetched:
        """Bring the image of a source, and at the same time the metadata that it asks for.

        Raises:
            SluicewayError: the image cannot be had. Failing metadata calls are reported in the result instead.
        """
        if source.image is not None and not source.metadata_calls:
            return Fetched(self._given(source.image))
        started_s = monotonic()
        calls = [asyncio.create_task(self._metadata(call, deadline)) for call in source.metadata_calls]
        fetched: Fetched | None = None
        try:
            if any(call.api in self._metadata_first for call in source.metadata_calls):
                await asyncio.wait(calls)
            fetched = await self._image(source, deadline)
            metadata, failures = dict(fetched.metadata), dict[str, SluicewayError]()
            for call, task in zip(source.metadata_calls, calls, strict=True):
                result = await task
                if isinstance(result, SluicewayError):
                    failures[call.api] = result
                else:
                    metadata |= result
        except BaseException:
            if fetched is not None:
                fetched.release()
            raise
        finally:
            # None is left when all went well: whoever is cancelled during a wait here would leave the image behind.
            left = [task for task in calls if not task.done()]
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)
        if source.image is None or source.metadata_calls:
            fetched.fetch_ms = (monotonic() - started_s) * 1000
        fetched.metadata, fetched.metadata_errors = metadata, failures
        return fetched

    async def _image(self, source: Source, deadline: Deadline) -> Fetched:
        if source.image is not None:
            return Fetched(self._given(source.image))
        if source.url is not None:
            return await self._url(source.url, deadline)
        if source.api_call is None:
            raise InvalidOption("source: one of image, url and api_call must be set")
        answer = await self._call(source.api_call, deadline, want_image=True)
        fetched = Fetched(answer.image, metadata=_named(source.api_call.api, answer), reservation=answer.reservation)
        return _checked(fetched)

    async def _url(self, url: str, deadline: Deadline) -> Fetched:
        if not self._config.url_sources:
            raise UrlNotAllowed("this server does not fetch URLs")
        assert self._session is not None
        client = HttpClient(self._policy, self.budget, self._session, max_bytes=self._config.max_image_bytes)
        body = await client.fetch(Request(url), self._attempts, deadline)
        return _checked(Fetched(body.data, reservation=body.reservation))

    async def _call(self, call: ApiCall, deadline: Deadline, *, want_image: bool) -> ApiAnswer:
        api = self.apis.get(call.api)
        if api is None:
            raise UnknownApi("no API of this name is configured", metadata={"api": call.api[:64]})
        budget = self.budget if want_image else self._metadata_budget
        return await api.call(call.params, deadline, budget, want_image=want_image)

    async def _metadata(self, call: ApiCall, deadline: Deadline) -> dict[str, str] | SluicewayError:
        try:
            answer = await self._call(call, deadline, want_image=False)
        except SluicewayError as error:
            return error
        if answer.reservation is not None:
            answer.reservation.release()
        return _named(call.api, answer)

    def _given(self, image: bytes) -> bytes:
        if not image:
            raise InvalidImage("the image is empty")
        return within(image, self._config.max_image_bytes)


def _checked(fetched: Fetched) -> Fetched:
    if not is_image(fetched.image):
        fetched.release()
        raise InvalidImage("what was fetched is not a JPEG, PNG, WebP, BMP or TIFF file")
    return fetched


def _named(api: str, answer: ApiAnswer) -> dict[str, str]:
    return {f"{api}.{name}": value for name, value in answer.metadata.items()}
