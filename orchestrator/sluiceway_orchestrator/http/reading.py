"""Requests of the HTTP port: whatever form a job comes in, it is read once there is room for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from multidict import MultiDict
from sluiceway_runtime.account import Account, Phase, phase_of_request
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded, ImageTooLarge, InvalidOption
from sluiceway_runtime.http.body import BODY_COPIES, JSON_COPIES, json_limit_bytes, length_of, make_room, read_body

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.convert.request import Request
from sluiceway_orchestrator.http.convert import request_from_form, request_from_image, request_from_json
from sluiceway_orchestrator.http.form import Untyped, form_from_text, look_at, read_form

__all__ = ["JobReader"]

# Parsing more than this would hold up the loop noticeably.
_PARSE_ELSEWHERE_BYTES = 256 * 2**10

_JSON, _FORM, _PLAIN_FORM = "application/json", "multipart/form-data", "application/x-www-form-urlencoded"
_IMAGES = ("application/octet-stream", "application/pdf")


class JobReader:
    """Reads jobs.

    Attributes:
        limit_bytes: of a body.
    """

    def __init__(self, config: OrchestratorConfig) -> None:
        self._config = config
        self.limit_bytes = json_limit_bytes(config.max_message_bytes)

    async def read(self, request: web.Request, query: MultiDict[str], deadline: Deadline, account: Account) -> Request:
        """Read the job of a request, which the account holds from then on.

        Args:
            request: whose body is not read yet.
            query: its options.
            deadline: a client that stopped sending must not keep its place for ever.
            account: where there has to be room before a body is read. One that does not say how long it is takes room
                for the longest.

        Raises:
            InvalidOption: it is no job.
            ImageTooLarge: it is too long.
            DeadlineExceeded: it was not here in time.
            web.HTTPUnsupportedMediaType: of a type that no job has.
        """
        length = length_of(request)
        phase = Phase.DOOR if length is None else phase_of_request(length)
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                job = await self._read(request, query, account, phase)
        except TimeoutError:
            raise DeadlineExceeded("the time ran out before the body was here") from None
        except web.RequestPayloadError:
            raise InvalidOption("body: it is not encoded as its headers say") from None
        account.settle(job.size_bytes, phase)
        return job

    async def _read(self, request: web.Request, query: MultiDict[str], account: Account, phase: Phase) -> Request:
        kind = request.content_type
        if kind == _JSON:
            await self._reserve(request, account, phase, JSON_COPIES)
            return await _job_in_json(await read_body(request, self.limit_bytes), query)
        if kind == _FORM:
            await self._reserve(request, account, phase, BODY_COPIES)
            return request_from_form(await read_form(request, self.limit_bytes, self._config.max_sources), query)
        untyped = kind == _PLAIN_FORM or "Content-Type" not in request.headers
        if not untyped and kind not in _IMAGES and not kind.startswith("image/"):
            raise web.HTTPUnsupportedMediaType(
                reason=f"send an image (image/*), {_JSON}, or a form with files ({_FORM})"
            )
        self._require_size_of_image(request)
        await self._reserve(request, account, phase, BODY_COPIES)
        body = await read_body(request, self.limit_bytes)
        match look_at(body) if untyped else Untyped.IMAGE:
            case Untyped.JSON:
                account.add((JSON_COPIES - BODY_COPIES) * len(body), phase)
                return await _job_in_json(body, query)
            case Untyped.FORM:
                return request_from_form(form_from_text(body), query)
        return request_from_image(body, query)

    def _require_size_of_image(self, request: web.Request) -> None:
        limit = self._config.max_image_bytes
        if (request.content_length or 0) > limit:
            raise ImageTooLarge("the image is larger than the limit", metadata={"max_image_bytes": str(limit)})

    async def _reserve(self, request: web.Request, account: Account, phase: Phase, copies: int) -> None:
        await make_room(request, account, phase, self.limit_bytes, copies=copies)


async def _job_in_json(body: bytearray, query: MultiDict[str]) -> Request:
    if query:
        raise InvalidOption(f"{next(iter(query))}: options of a JSON request go into its body")
    parse: Callable[[bytearray], Request] = request_from_json
    return parse(body) if len(body) < _PARSE_ELSEWHERE_BYTES else await asyncio.to_thread(parse, body)
