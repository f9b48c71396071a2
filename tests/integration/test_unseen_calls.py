"""Calls that a server is slow to look at: gRPC ends none of them by itself, with a word that nobody has said."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack

import grpc
import grpc.aio
import pytest
from raw_service import SERVICE, serve_methods
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.server import listening
from waiting import wait_until

METHOD = f"/{SERVICE}/Method"
# gRPC itself takes 1,000 without a word, unless told otherwise, and none above 3,000.
AT_ONCE = 3500


async def answer(request: bytes, _: object) -> bytes:
    return request


METHODS = {"Method": grpc.unary_unary_rpc_method_handler(answer)}


async def code_of(call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


async def test_thousands_that_come_at_once_are_all_answered() -> None:
    async with serve_methods(METHODS) as address, grpc.aio.insecure_channel(address) as channel:
        method = channel.unary_unary(METHOD)
        await method(b"")
        ends = Counter(await asyncio.gather(*(code_of(method(b"", timeout=60)) for _ in range(AT_ONCE))))
    assert ends == {"OK": AT_ONCE}


async def test_those_that_came_while_the_process_got_no_time_are_answered_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a machine that is busy, or that was asleep, keeps it: here for longer than one server says that calls wait."""

    def call(where: str, sent: list[float]) -> Counter[str]:
        with grpc.insecure_channel(where) as channel:
            method = channel.unary_unary(METHOD)
            calls = [method.future(b"", timeout=60) for _ in range(5)]
            sent.append(time.monotonic())
            return Counter(future.code().name for future in calls)

    async with AsyncExitStack() as servers:
        patient = await servers.enter_async_context(serve_methods(METHODS))
        monkeypatch.setattr(listening, "LONGEST_UNSEEN_S", 1)
        impatient = await servers.enter_async_context(serve_methods(METHODS))
        sent: list[float] = []
        calling = [asyncio.create_task(asyncio.to_thread(call, where, sent)) for where in (patient, impatient)]
        await asyncio.sleep(0)
        # Nothing of this thread runs, and so nothing of either server.
        wait_until(lambda: len(sent) == 2 and time.monotonic() >= max(sent) + 2.5)
        seen, ended = await asyncio.gather(*calling)
    assert seen == {"OK": 5}
    assert ended["CANCELLED"] > 0, "it is this that ends calls that wait"


def test_what_a_call_may_wait_is_said_by_its_own_deadline() -> None:
    assert ServerConfig(port=0, operations_port=0).max_deadline_s < listening.LONGEST_UNSEEN_S
