"""What the page is served by in tests of it: a real orchestrator with stages without models, or a script of events."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import struct
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from google.protobuf import json_format
from PIL import Image
from sluiceway_orchestrator.http.page.files import page_routes

from sluiceway.pipeline.v1 import pipeline_pb2

__all__ = ["Background", "Script", "photograph", "read_in"]

_SEGMENT_BYTES = 12


class Background:
    """An event loop in a thread of its own: selenium blocks, servers must not.

    One serves all tests: servers of gRPC that are forgotten still want their loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._open: list[AbstractAsyncContextManager[Any]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run it there; returns what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def enter(self, make: Callable[[], AbstractAsyncContextManager[Any]]) -> Any:
        """Make something there and enter it; it is left when this is."""

        async def made() -> AbstractAsyncContextManager[Any]:
            return make()

        manager = self.run(made())
        entered = self.run(manager.__aenter__())
        self._open.append(manager)
        return entered

    def leave(self) -> None:
        """Leave all that was entered."""
        while self._open:
            self.run(self._open.pop().__aexit__(None, None, None))

    def call(self, function: Any, *arguments: Any) -> None:
        """Call it there, soon."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        gc.collect()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


def photograph(path: Path, number: int, regions: int, size: tuple[int, int] = (640, 480)) -> Path:
    """Write a JPEG that browsers draw, in which `FakeDetection` finds `regions` lines of 20 pixels each.

    Its first segment is where `FakeDetection` looks: four bytes of the number (of them two are the length of the
    segment), of the regions, and of the bytes of a crop.
    """
    head = b"\xff\xd8\xff\xe0" + struct.pack(">HHII", _SEGMENT_BYTES, number, regions, 48)
    path.write_bytes(head + _jpeg(size)[2:])
    return path


def read_in(number: int, region: int) -> str:
    """The text that `FakeRecognition` reads in a region of such a photograph."""
    return f"{_SEGMENT_BYTES << 16 | number}:{region}"


@cache
def _jpeg(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    # A gradient with an edge: neither a plain area, which decodes at once, nor noise, which is as large as its pixels.
    picture = Image.linear_gradient("L").resize(size)
    picture.paste(Image.radial_gradient("L").resize((size[0] // 3, size[1] // 3)), (size[0] // 8, size[1] // 8))
    Image.merge("RGB", (picture, picture.rotate(180), picture)).save(file, "JPEG", quality=90)
    return file.getvalue()


class Script:
    """A port with the page on which each job gets the next of some answers.

    An answer is the events of a job, as dictionaries of `ProcessResponse`; or a status and a problem. Events of the
    form `{"problem": ...}` and the text "broken off" end a job as a server that fails would.
    """

    def __init__(self, description: dict[str, Any], answers: Sequence[Any]) -> None:
        self.description = json.dumps(_plain(pipeline_pb2.DescribeResponse, description))
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**26)
        app.add_routes(
            [*page_routes(), web.get("/v1/describe", self._describe), web.post("/v1/process", self._process)]
        )
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _describe(self, _: web.Request) -> web.Response:
        return web.Response(text=self.description, content_type="application/json")

    async def _process(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        parsed = json.loads(body) if request.content_type == "application/json" else body
        self.requests.append({"query": dict(request.query), "body": parsed})
        answer = self.answers.pop(0)
        if isinstance(answer, tuple):
            status, problem = answer
            return web.json_response(problem, status=status, content_type="application/problem+json")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for event in answer:
            if event == "broken off":
                assert request.transport is not None
                request.transport.abort()
                break
            plain = event if "problem" in event else _plain(pipeline_pb2.ProcessResponse, event)
            await response.write(json.dumps(plain).encode() + b"\n")
        return response


def _plain(kind: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """A message in JSON as the server writes it; what is no such message is refused."""
    message = json_format.ParseDict(fields, kind())
    plain: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return plain
