"""The server runtime with a service that does nothing but what each test asks of it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import Cancelled, ModelFailed, QueueFull, StartupError, Unavailable
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.calls import current_request_id, deadline_of, request_id_of
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc
from sluiceway.recognition.v1 import recognition_pb2, recognition_pb2_grpc

NAME = "sluiceway.detection.v1.DetectionService"
CONFIG = ServerConfig(port=0, operations_port=0, drain_grace_s=5, drain_notice_s=0)


class Scripted(detection_pb2_grpc.DetectionServiceServicer, recognition_pb2_grpc.RecognitionServiceServicer):
    """A service whose answers are functions that tests set."""

    names = (NAME, "sluiceway.recognition.v1.RecognitionService")

    def __init__(self) -> None:
        self.starting: Callable[[], Awaitable[None]] = self._nothing
        self.detect: Callable[[Any], Awaitable[Any]] = self._empty
        self.closed_streams = 0
        self.refuses = False
        self.drained_s: float | None = None
        self.drains = True
        self.closed = 0
        self.is_ready = True

    async def _nothing(self) -> None: ...

    async def _empty(self, _: Any) -> Any:
        return detection_pb2.DetectResponse(width=1)

    async def Detect(self, request: Any, context: Any) -> Any:
        return await self.detect(context)

    async def Describe(self, request: Any, context: Any) -> Any:
        return detection_pb2.DescribeResponse(server_version="test")

    async def Recognize(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            yield recognition_pb2.RecognizeResponse()
            await asyncio.sleep(30)
        finally:
            self.closed_streams += 1

    async def start(self) -> None:
        await self.starting()

    def register(self, server: grpc.aio.Server) -> None:
        detection_pb2_grpc.add_DetectionServiceServicer_to_server(self, server)
        recognition_pb2_grpc.add_RecognitionServiceServicer_to_server(self, server)

    def collectors(self, registry: CollectorRegistry) -> None: ...

    def ready(self) -> bool:
        return self.is_ready

    def status(self) -> Mapping[str, Any]:
        return {"answer": 42}

    def refuse(self) -> None:
        self.refuses = True

    async def drain(self, grace_s: float) -> bool:
        self.drained_s = grace_s
        return self.drains

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def service() -> Scripted:
    return Scripted()


@pytest.fixture
async def server(service: Scripted) -> AsyncIterator[Server]:
    server = Server(service, CONFIG)
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.01)


async def get(server: Server, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.operations_port}{path}") as response,
    ):
        return response.status, await response.text()


async def test_operations_port_tells_state_metrics_and_status(server: Server, channel: grpc.aio.Channel) -> None:
    await detection_pb2_grpc.DetectionServiceStub(channel).Detect(detection_pb2.DetectRequest())
    assert await get(server, "/livez") == (200, "ready\n")
    assert await get(server, "/readyz") == (200, "ready\n")
    code, text = await get(server, "/metrics")
    assert code == 200
    method = "sluiceway.detection.v1.DetectionService/Detect"
    labels = f'{{rpc_method="{method}",rpc_response_status_code="OK"}}'
    assert f"rpc_server_call_duration_seconds_count{labels} 1.0" in text
    memory = {"limit_bytes": server.budget.total_bytes, "held_bytes": 0, "waiting": 0}
    assert json.loads((await get(server, "/statusz"))[1]) == {"state": "ready", "memory": memory, "answer": 42}


async def test_health_follows_the_service(server: Server, service: Scripted, channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)

    async def state() -> Any:
        return (await stub.Check(health_pb2.HealthCheckRequest(service=NAME))).status

    await eventually(lambda: _is(state, health_pb2.HealthCheckResponse.SERVING))
    service.is_ready = False
    await eventually(lambda: _is(state, health_pb2.HealthCheckResponse.NOT_SERVING))
    assert (await get(server, "/readyz"))[0] == 503
    assert (await get(server, "/livez"))[0] == 200


async def _is(read: Callable[[], Awaitable[Any]], value: Any) -> bool:
    return bool(await read() == value)


async def test_nothing_is_served_before_the_service_has_started(service: Scripted) -> None:
    release = asyncio.Event()
    service.starting = release.wait  # type: ignore[assignment]
    server = Server(service, CONFIG)
    starting = asyncio.create_task(server.start())
    await eventually(lambda: _truth(server.port))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", NAME):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name), wait_for_ready=True)
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await detection_pb2_grpc.DetectionServiceStub(channel).Detect(detection_pb2.DetectRequest())
        error = from_rpc_error(caught.value)
        assert isinstance(error, Unavailable)
        assert error.retry_after_s
        assert (await get(server, "/readyz"))[0] == 503
        release.set()
        await starting
        assert (await get(server, "/readyz"))[0] == 200
    await server.close()


async def _truth(value: object) -> bool:
    return bool(value)


async def test_a_service_that_cannot_start_fails_the_server(service: Scripted) -> None:
    async def broken() -> None:
        raise StartupError("no weights")

    service.starting = broken
    server = Server(service, CONFIG)
    with pytest.raises(StartupError, match="no weights"):
        await server.start()
    await server.close()
    assert service.closed == 1


@pytest.mark.parametrize("error", [QueueFull("full", retry_after_s=0.2), ModelFailed("the model failed")])
async def test_errors_arrive_with_reason_and_delay(service: Scripted, channel: grpc.aio.Channel, error: Any) -> None:
    async def fail(_: Any) -> Any:
        raise error

    service.detect = fail
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await detection_pb2_grpc.DetectionServiceStub(channel).Detect(detection_pb2.DetectRequest())
    back = from_rpc_error(caught.value)
    assert (type(back), back.message, back.retry_after_s) == (type(error), error.message, error.retry_after_s)


async def test_bugs_are_internal_and_show_nothing(
    service: Scripted, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    async def bug(_: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    service.detect = bug
    stub = detection_pb2_grpc.DetectionServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Detect(detection_pb2.DetectRequest(), metadata=(("x-request-id", "abc-1"),))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (caught.value.details() or "")
    assert ("x-request-id", "abc-1") in tuple(caught.value.trailing_metadata() or ())
    assert "secret detail" in caplog.text
    service.detect = service._empty
    assert (await stub.Detect(detection_pb2.DetectRequest())).width == 1


async def test_a_request_without_an_id_gets_one_for_all_that_is_said_of_it(
    service: Scripted, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    async def look(context: Any) -> Any:
        seen.extend([request_id_of(context), request_id_of(context), current_request_id.get()])
        raise ModelFailed("no")

    service.detect = look
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await detection_pb2_grpc.DetectionServiceStub(channel).Detect(detection_pb2.DetectRequest())
    (told,) = [value for key, value in caught.value.trailing_metadata() or () if key == "x-request-id"]
    assert seen == [told] * 3
    assert told != "-"


async def test_deadlines_have_a_default_and_a_maximum(service: Scripted, channel: grpc.aio.Channel) -> None:
    seen = []

    async def look(context: Any) -> Any:
        seen.append(deadline_of(context, CONFIG).remaining_s())
        return detection_pb2.DetectResponse()

    service.detect = look
    stub = detection_pb2_grpc.DetectionServiceStub(channel)
    for timeout in (None, 20, 10_000):
        await stub.Detect(detection_pb2.DetectRequest(), timeout=timeout)
    expected = (CONFIG.default_deadline_s, 20, CONFIG.max_deadline_s)
    assert seen == [pytest.approx(limit, abs=4) for limit in expected]


async def test_a_client_that_leaves_closes_the_stream(service: Scripted, channel: grpc.aio.Channel) -> None:
    call = recognition_pb2_grpc.RecognitionServiceStub(channel).Recognize(recognition_pb2.RecognizeRequest())
    assert await call.read() != grpc.aio.EOF
    call.cancel()
    await eventually(lambda: _truth(service.closed_streams))


async def test_reflection_lists_the_services(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answer = await call.read()
    names = {entry.name for entry in answer.list_services_response.service}
    assert {*Scripted.names, "grpc.health.v1.Health"} <= names
    call.cancel()


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
    await eventually(lambda: _truth(server.lifecycle.state.value == "draining"))
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
        await eventually(lambda: _truth(server.lifecycle.state.value == "draining"))
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


async def test_two_servers_on_one_port_is_an_error_not_a_lottery(server: Server) -> None:
    second = Server(Scripted(), CONFIG.model_copy(update={"port": server.port}))
    with pytest.raises(StartupError, match=str(server.port)):
        await second.start()
    await second.close()


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
