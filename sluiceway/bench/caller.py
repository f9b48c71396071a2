"""Sends sources to a server, each as a job of its own, and reads no more of the answer than a measurement needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import count
from uuid import uuid4

from sluiceway.bench.outcome import OK, TIMED_OUT, Answer
from sluiceway.client.connection import Connection
from sluiceway.client.convert import from_response, to_request
from sluiceway.client.events import SourceDone, SourceFailed
from sluiceway.client.options import Options
from sluiceway.client.sources import Content, load_source
from sluiceway.errors import DeadlineExceeded, SluicewayError

__all__ = ["REGIONS_FAILED", "Caller"]

REGIONS_FAILED = "regions failed"
# The events that say how a source ended. Others are not turned into objects: the time that takes would be this
# process's, and look like the server's.
_ENDS = frozenset({"done", "failed"})


class Caller:
    """Sends by position; a `sluiceway.bench.load.Send`.

    Nothing is tried again: a refusal is an outcome.

    Args:
        connection: to the server; closed by its owner.
        sources: files are read here, once.
        options: how to process them.
        pipeline: None for the server's default.
        params: for the call steps of the pipeline.

    Raises:
        SluicewayError: a source cannot be read, or an option cannot be sent.
    """

    def __init__(
        self,
        connection: Connection,
        sources: Sequence[Content],
        options: Options,
        *,
        pipeline: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> None:
        self._connection = connection
        self._options = options
        loaded = [replace(load_source(source), params=dict(params or {})) for source in sources]
        self._requests = [to_request([source], options, pipeline=pipeline) for source in loaded]
        run = f"bench-{uuid4().hex[:8]}"
        # By which the logs of the servers tell this load from other work.
        self._names = (f"{run}.{number}" for number in count())

    async def __call__(self, source: int, timeout_s: float) -> Answer:
        """Send one and wait for its end."""
        answer = Answer("no end")
        try:
            request = self._requests[source]
            call = self._connection.process(request, self._options, timeout_s, next(self._names))
            async with aclosing(call) as responses:
                async for response in responses:
                    if response.WhichOneof("event") in _ENDS:
                        answer = _answer(from_response(response, ("",)))
        except DeadlineExceeded:
            return Answer(TIMED_OUT)
        except SluicewayError as error:
            return Answer(error.reason)
        return answer


def _answer(event: object) -> Answer:
    match event:
        case SourceDone():
            failed = any(report.failed for report in event.steps)
            return Answer(REGIONS_FAILED if failed else OK, event.timings)
        case SourceFailed():
            timed_out = isinstance(event.error, DeadlineExceeded)
            return Answer(TIMED_OUT if timed_out else event.error.reason)
    return Answer("no end")
