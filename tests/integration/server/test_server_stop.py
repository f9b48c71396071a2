"""How a server ends, with a service that does nothing but what each test asks of it."""

import asyncio
import contextlib
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from scripted_service import CONFIG, Scripted, get
from sluiceway_runtime.errors import Cancelled, Unavailable
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.status import from_rpc_error
from waiting import until

from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc
from sluiceway.recognition.v1 import recognition_pb2, recognition_pb2_grpc


async def test_draining_finishes_what_runs_and_refuses_what_comes(
    server: Server, service: Scripted, channel: grpc.aio.Channel
) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(_: Any) -> Any:
        started.set()
        await release.wait()
        return detection_pb2.DetectResponse(width=7)

    service.detect = slow
    stub = detection_pb2_grpc.DetectionServiceStub(channel)
    running = asyncio.ensure_future(stub.Detect(detection_pb2.DetectRequest()))
    await started.wait()
    stopping = asyncio.create_task(server.stop())
    await until(lambda: server.lifecycle.state.value == "draining")
    # What comes another way than by gRPC has the same time to end in, and so as early a notice.
    assert service.refuses
    assert service.drained_s is None
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Detect(detection_pb2.DetectRequest())
    # gRPC itself says CANCELLED to a call that comes in the very moment; our clients take it for the same.
    assert isinstance(from_rpc_error(caught.value), Unavailable | Cancelled)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Detect(detection_pb2.DetectRequest())
    assert isinstance(from_rpc_error(caught.value), Unavailable)
    release.set()
    assert (await running).width == 7
    assert await stopping is True
    assert service.drained_s is not None
    assert server.lifecycle.state.value == "stopped"


async def test_clients_behind_one_address_leave_a_draining_server_at_once(server: Server, service: Scripted) -> None:
    """A balancer of connections, as a Service in a cluster is one: who is connected stays, unless told to go."""
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(_: Any) -> Any:
        started.set()
        await release.wait()
        return detection_pb2.DetectResponse(width=7)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", behind.port)
        await asyncio.gather(pass_on(reader, behind_writer), pass_on(behind_reader, writer))

    behind, other = server, Server(Scripted(), CONFIG)
    await other.start()
    balancer = await asyncio.start_server(connect, "127.0.0.1", 0)
    address = f"127.0.0.1:{balancer.sockets[0].getsockname()[1]}"
    async with grpc.aio.insecure_channel(address) as channel:
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        assert (await stub.Detect(detection_pb2.DetectRequest())).width != 7
        service.detect = slow
        long = asyncio.ensure_future(stub.Detect(detection_pb2.DetectRequest()))
        await started.wait()
        behind = other
        stopping = asyncio.create_task(server.stop())
        await until(lambda: server.lifecycle.state.value == "draining")
        refused: list[tuple[int, grpc.StatusCode]] = []
        for attempt in range(20):
            try:
                assert (await stub.Detect(detection_pb2.DetectRequest(), timeout=20)).width != 7
            except grpc.aio.AioRpcError as error:
                refused.append((attempt, error.code()))
        # gRPC says so to a call that comes in the very moment; our clients try it again.
        assert refused in ([], [(0, grpc.StatusCode.CANCELLED)])
        release.set()
        assert (await long).width == 7
        assert await stopping is True
    balancer.close()
    await other.stop()


async def test_draining_ends_at_its_grace_time(service: Scripted) -> None:
    config = CONFIG.model_copy(update={"drain_grace_s": 0.2})
    server = Server(service, config)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = recognition_pb2_grpc.RecognitionServiceStub(channel).Recognize(recognition_pb2.RecognizeRequest())
        await call.read()
        began = asyncio.get_running_loop().time()
        assert await server.stop() is False
        assert asyncio.get_running_loop().time() - began < 20
        call.cancel()


async def test_a_stop_is_not_clean_if_the_service_could_not_finish(service: Scripted) -> None:
    service.drains = False
    server = Server(service, CONFIG)
    await server.start()
    assert await server.stop() is False


async def test_an_open_health_watch_does_not_hold_up_a_stop(service: Scripted) -> None:
    server = Server(service, CONFIG.model_copy(update={"drain_grace_s": 60}))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        began = asyncio.get_running_loop().time()
        assert await server.stop() is True
        assert asyncio.get_running_loop().time() - began < 30
        watch.cancel()


class Failing(Scripted):
    """A service with a bug in one of the steps of its end."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self._step = step

    def _fail_in(self, step: str) -> None:
        if step == self._step:
            raise RuntimeError("a bug of the service")

    def refuse(self) -> None:
        self._fail_in("refuse")

    async def drain(self, grace_s: float) -> bool:
        self._fail_in("drain")
        return True

    async def close(self) -> None:
        self.closed += 1
        self._fail_in("close")


@pytest.mark.parametrize("step", ["refuse", "drain", "close"])
async def test_whatever_raises_while_a_server_stops_all_of_it_is_released(step: str) -> None:
    service = Failing(step)
    server = Server(service, CONFIG)
    await server.start()
    with pytest.raises(RuntimeError, match="a bug"):
        await server.stop()
    assert service.closed == 1
    with pytest.raises(aiohttp.ClientError):
        await get(server, "/livez")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await detection_pb2_grpc.DetectionServiceStub(channel).Describe(detection_pb2.DescribeRequest(), timeout=5)
