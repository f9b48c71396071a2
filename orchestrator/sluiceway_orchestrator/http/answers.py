"""Answers of the HTTP port: a stream of events, or one document when all is done."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from aiohttp import web
from sluiceway_runtime.account import Account, Phase
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import Internal, SluicewayError
from sluiceway_runtime.http.problem import problem_body
from sluiceway_runtime.server.calls import current_request_id

from sluiceway_orchestrator.http.convert import event_to_json
from sluiceway_orchestrator.http.results import Results
from sluiceway_orchestrator.outbox import Addressed

__all__ = ["EVENTS", "JSON", "NDJSON", "answer_type", "send_document", "send_events"]

log = logging.getLogger(__name__)

NDJSON, EVENTS, JSON = "application/x-ndjson", "text/event-stream", "application/json"
# For clients that take anything.
_ANY = {"*/*": NDJSON, "application/*": NDJSON, "text/*": EVENTS}
# A client that reads none of this for so long after the time of its job is cut off.
_UNREAD_S = 0.5


def answer_type(accepted: str) -> str:
    """The type of the answer that a client likes best, of those that there are.

    Args:
        accepted: its `Accept` header.

    Raises:
        web.HTTPNotAcceptable: it takes none of them.
    """
    liked: list[tuple[float, str]] = []
    for item in accepted.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        kind = _ANY.get(name, name)
        weight = next((_weight(text[2:]) for text in parameters if text.startswith("q=")), 1.0)
        if kind in (NDJSON, EVENTS, JSON) and weight > 0:
            liked.append((weight, kind))
    if not liked:
        raise web.HTTPNotAcceptable(reason=f"answers are {NDJSON}, {EVENTS} or {JSON}")
    # Of equal ones the first.
    return max(liked, key=lambda entry: entry[0])[1]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


async def send_document(
    request: web.Request, results: Results, deadline: Deadline, account: Account, events: AsyncGenerator[Addressed]
) -> web.StreamResponse:
    """Write one document with the results of the whole job.

    Args:
        request: to answer.
        results: where events become results; empty.
        deadline: of the job.
        account: what is kept until the end is counted here.
        events: all of them are read first.
    """
    async for event in events:
        account.add(results.add(event), Phase.WORK)
    status, text = results.document()
    body = f"{text}\n".encode()
    response = web.StreamResponse(
        status=status, headers={"Content-Type": f"{JSON}; charset=utf-8", "Cache-Control": "no-store"}
    )
    response.content_length = len(body)

    async def write() -> None:
        await response.write(body)
        await response.write_eof()

    await response.prepare(request)
    return await _in_time(request, response, deadline, write)


async def send_events(
    request: web.Request, kind: str, deadline: Deadline, events: AsyncGenerator[Addressed]
) -> web.StreamResponse:
    """Write events as they come, until the time of the job is over.

    A job that fails before its first event gets a status of its own.
    """
    first = await anext(events)
    response = web.StreamResponse(headers={"Content-Type": f"{kind}; charset=utf-8", "Cache-Control": "no-store"})
    # Proxies that buffer would turn the stream into one late answer.
    response.headers["X-Accel-Buffering"] = "no"
    await response.prepare(request)
    return await _in_time(request, response, deadline, lambda: _write(response, kind, first, events))


async def _in_time(
    request: web.Request, response: web.StreamResponse, deadline: Deadline, write: Callable[[], Awaitable[None]]
) -> web.StreamResponse:
    """Write while the job has time.

    A client that does not read is cut off: what it has not read is given up by then, and its connection holds nothing
    but what fits into the socket.
    """
    try:
        async with asyncio.timeout(max(0.0, deadline.remaining_s()) + _UNREAD_S):
            await write()
    except TimeoutError:
        log.info("request %s: the client did not read its answer in time", current_request_id.get())
        if request.transport is not None:
            request.transport.abort()
    return response


async def _write(response: web.StreamResponse, kind: str, first: Addressed, events: AsyncGenerator[Addressed]) -> None:
    await response.write(_frame(kind, *event_to_json(first)))
    try:
        async for event in events:
            await response.write(_frame(kind, *event_to_json(event)))
    except ConnectionError:
        # The client left; leaving the generator ends its job.
        return
    except SluicewayError as error:
        await response.write(_late_problem(kind, error, current_request_id.get()))
    except Exception:
        log.exception("request %s: the stream broke", current_request_id.get())
        await response.write(_late_problem(kind, Internal("internal error"), current_request_id.get()))
    await response.write_eof()


def _frame(kind: str, name: str, text: str) -> bytes:
    return (f"{text}\n" if kind == NDJSON else f"event: {name}\ndata: {text}\n\n").encode()


def _late_problem(kind: str, error: SluicewayError, request_id: str) -> bytes:
    """Frame a failure of the job after its first event: the status is sent already."""
    return _frame(kind, "problem", json.dumps({"problem": problem_body(error, request_id)}, ensure_ascii=False))
