"""A client that keeps account of its own: what it asked, and every answer that came, however often."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

import grpc
import grpc.aio
from ledger_models import Deed, draw
from sluiceway_runtime.server.status import from_rpc_error, names_itself
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc

OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]


@dataclass
class Answer:
    """What came for one picture.

    Attributes:
        ends: how often the source, the job and the call ended, whatever way; each must be 1 in the end.
        reason: OK, or the reason of the error.
        code: of the call as a whole.
        details: what gRPC said to that, and who said it: our server names its errors, and gRPC itself does not.
    """

    texts: Counter[str] = field(default_factory=Counter)
    region_errors: Counter[str] = field(default_factory=Counter)
    boxes: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    reason: str = ""
    code: str = "OK"
    details: str = ""
    retry_after_s: float | None = None
    took_s: float = 0.0

    def add(self, response: pipeline_pb2.ProcessResponse) -> None:
        """Take one event down."""
        kind = response.WhichOneof("event")
        if kind == "regions":
            self.boxes += len(response.regions.regions)
        elif kind == "values":
            for item in response.values.values:
                if item.HasField("error"):
                    self.region_errors[item.error.reason] += 1
                else:
                    self.texts[item.text.text] += 1
        elif kind == "done":
            self.ends["source"] += 1
            self.reason = "OK"
        elif kind == "failed":
            self.ends["source"] += 1
            self.reason, self.retry_after_s = response.failed.error.reason, response.failed.error.retry_after_ms / 1000
        elif kind == "job_done":
            self.ends["job"] += 1
        elif kind == "job_refused":
            self.ends["job"] += 1
            self.ends["source"] += 1
            self.reason = response.job_refused.error.reason

    def is_right(self, number: int, regions: int) -> bool:
        """Whether every region was answered exactly once, with what was in the picture, and nothing else came."""
        wanted = {f"{number}:{region}": 1 for region in range(regions)}
        return self.reason == "OK" and dict(self.texts) == wanted and not self.region_errors and self.ended_once

    @property
    def ended_once(self) -> bool:
        """Whether its end was told exactly once."""
        return self.ends["source"] == 1 and self.ends["job"] <= 1

    @property
    def doubled(self) -> bool:
        """Whether anything was told more than once."""
        return self.ends["source"] > 1 or self.ends["job"] > 1 or any(count > 1 for count in self.texts.values())


def job_of(image: bytes, **options: object) -> pipeline_pb2.ProcessRequest:
    """A job with one picture."""
    return pipeline_pb2.ProcessRequest(
        sources=[pipeline_pb2.Source(source_id="s", image=image)],
        options=pipeline_pb2.ProcessOptions(**options),  # type: ignore[arg-type]
    )


class Caller:
    """Calls one orchestrator."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = pipeline_pb2_grpc.PipelineServiceStub(channel)

    async def send(self, image: bytes, *, timeout_s: float = 20, **options: object) -> Answer:
        """Process one picture and take every event down; an error of the call is an end like any other."""
        answer, started_s = Answer(), monotonic()
        call = self.stub.Process(job_of(image, **options), timeout=timeout_s)
        try:
            async for response in call:
                answer.add(response)
        except grpc.aio.AioRpcError as error:
            answer.code = error.code().name
            answer.details = f"{'named' if names_itself(error) else 'not named'}: {error.debug_error_string()}"
            # A connection may break after the picture was done: that ends the call, and not the picture a second time.
            if not answer.ends["source"]:
                answer.ends["source"] += 1
                known = from_rpc_error(error)
                answer.reason, answer.retry_after_s = known.reason, known.retry_after_s
        finally:
            call.cancel()
        answer.took_s = monotonic() - started_s
        return answer

    async def ask(
        self, number: int, regions: int = 2, deed: Deed = Deed.NOTHING, argument: int = 0, *, timeout_s: float = 20
    ) -> Answer:
        """Process the picture of a number."""
        return await self.send(draw(number, regions, deed, argument), timeout_s=timeout_s)

    async def expect(self, number: int, regions: int = 2) -> None:
        """The server serves, and rightly."""
        answer = await self.ask(number, regions)
        assert answer.is_right(number, regions), answer

    async def expect_soon(self, number: int, within_s: float = 30) -> float:
        """As `expect`, after whatever just happened; returns how long that took."""
        started_s = monotonic()
        while not (answer := await self.ask(number, timeout_s=within_s)).is_right(number, 2):
            assert monotonic() - started_s < within_s, answer
            await asyncio.sleep(0.05)
        return monotonic() - started_s


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Caller]:
    """A connection of its own."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        yield Caller(channel)


class Load:
    """Steady load from a number of callers, from entering to leaving; then `answers` has all there were, by number.

    Attributes:
        answers: all that came, by number.
        right: how many of them were right.
    """

    def __init__(
        self, caller: Caller, clients: int = 8, first: int = 1_000_000, regions: int = 2, timeout_s: float = 20
    ) -> None:
        self._caller, self._clients, self._next, self._regions = caller, clients, first, regions
        self._timeout_s = timeout_s
        self._running = True
        self.answers: dict[int, Answer] = {}
        self.right = 0

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running = False
        await asyncio.gather(*self._tasks)

    async def _client(self) -> None:
        while self._running:
            number, self._next = self._next, self._next + 1
            answer = self.answers[number] = await self._caller.ask(number, self._regions, timeout_s=self._timeout_s)
            if answer.is_right(number, self._regions):
                self.right += 1
            else:
                # A refusal comes at once: without a pause, a server that is away would be asked as fast as can be.
                await asyncio.sleep(0.02)

    async def more(self, count: int, within_s: float = 60) -> None:
        """Wait until so many more were answered, and rightly."""
        goal = self.right + count
        await until(lambda: self.right >= goal, within_s=within_s)

    @property
    def wrong(self) -> dict[int, Answer]:
        """Those that were not answered rightly."""
        return {n: answer for n, answer in self.answers.items() if not answer.is_right(n, self._regions)}
