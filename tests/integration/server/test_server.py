"""The server runtime with a service that does nothing but what each test asks of it."""

import asyncio
import json
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from scripted_service import CONFIG, NAME, Scripted, get
from sluiceway_runtime.errors import ModelFailed, QueueFull, StartupError, Unavailable
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.calls import current_request_id, deadline_of, request_id_of
from sluiceway_runtime.server.status import from_rpc_error
from waiting import until

from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc
from sluiceway.recognition.v1 import recognition_pb2, recognition_pb2_grpc


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

    async def is_told(status: Any) -> bool:
        return bool((await stub.Check(health_pb2.HealthCheckRequest(service=NAME))).status == status)

    await until(lambda: is_told(health_pb2.HealthCheckResponse.SERVING))
    service.is_ready = False
    await until(lambda: is_told(health_pb2.HealthCheckResponse.NOT_SERVING))
    assert (await get(server, "/readyz"))[0] == 503
    assert (await get(server, "/livez"))[0] == 200


async def test_nothing_is_served_before_the_service_has_started(service: Scripted) -> None:
    release = asyncio.Event()
    service.starting = release.wait  # type: ignore[assignment]
    server = Server(service, CONFIG)
    starting = asyncio.create_task(server.start())
    await until(lambda: server.port)
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
    await until(lambda: service.closed_streams)


async def test_reflection_lists_the_services(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answer = await call.read()
    names = {entry.name for entry in answer.list_services_response.service}
    assert {*Scripted.names, "grpc.health.v1.Health"} <= names
    call.cancel()


async def test_two_servers_on_one_port_is_an_error_not_a_lottery(server: Server) -> None:
    second = Server(Scripted(), CONFIG.model_copy(update={"port": server.port}))
    with pytest.raises(StartupError, match=str(server.port)):
        await second.start()
    await second.close()
