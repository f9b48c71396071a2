"""KEDA's contract, asked as KEDA asks: of one orchestrator, for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from pydantic import ValidationError
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.scaler import external_scaler_pb2 as pb
from sluiceway_orchestrator.scaler import external_scaler_pb2_grpc as pb_grpc
from sluiceway_orchestrator.testing import Cluster, FakeDetection, picture
from sluiceway_runtime.errors import StartupError
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2

LISTENING: dict[str, Any] = {"enabled": True, "port": 0}


def of(stage: str, **metadata: str) -> pb.ScaledObjectRef:
    return pb.ScaledObjectRef(name="eye", namespace="see", scalerMetadata={"stage": stage, **metadata})


def source(number: int) -> pipeline_pb2.Source:
    return pipeline_pb2.Source(source_id=str(number), image=picture(number))


@asynccontextmanager
async def keda(cluster: Cluster) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{cluster.service.scaler.port}") as channel:
        yield pb_grpc.ExternalScalerStub(channel)


async def value(stub: Any, stage: str) -> int:
    answer = await stub.GetMetrics(pb.GetMetricsRequest(scaledObjectRef=of(stage), metricName="wait-ms"))
    [found] = answer.metricValues
    assert found.metricValueFloat == found.metricValue
    return int(found.metricValue)


def held() -> tuple[FakeDetection, asyncio.Event]:
    """A detector with one place, which answers when it is let."""
    let = asyncio.Event()

    async def before(_: int) -> None:
        await let.wait()

    return FakeDetection(capacity=1, before=before), let


@asynccontextmanager
async def crowded(cluster: Cluster, let: asyncio.Event) -> AsyncIterator[None]:
    """More work than a detector that is held takes; ended on leaving."""
    work = asyncio.create_task(cluster.process(*(source(number) for number in range(24))))
    try:
        yield
    finally:
        let.set()
        await work


async def test_waits_become_a_metric_and_work_an_activity() -> None:
    detector, let = held()
    async with Cluster([detector], scaler=LISTENING) as cluster, keda(cluster) as stub:
        spec = await stub.GetMetricSpec(of("detection", targetMs="100"))
        [metric] = spec.metricSpecs
        assert (metric.metricName, metric.targetSize, metric.targetSizeFloat) == ("wait-ms", 100, 100.0)
        assert not (await stub.IsActive(of("detection"))).result
        assert await value(stub, "detection") == 0

        async def waits() -> bool:
            return await value(stub, "detection") > 250

        async with crowded(cluster, let):
            await until(waits)
            assert (await stub.IsActive(of("detection"))).result
            # Nothing has come to this one yet.
            assert await value(stub, "recognition") == 0

        async def idle() -> bool:
            return not (await stub.IsActive(of("detection"))).result

        await until(idle)


async def test_a_stage_at_zero_is_woken_by_a_push() -> None:
    async with Cluster([FakeDetection()], [], scaler=LISTENING) as cluster, keda(cluster) as stub:
        told = stub.StreamIsActive(of("recognition"))
        async with asyncio.timeout(30):
            assert (await told.read()).result is False
            work = asyncio.create_task(cluster.process(source(1), timeout_s=20))
            assert (await told.read()).result is True

            async def waits() -> bool:
                return await value(stub, "recognition") > 100

            await until(waits)
            work.cancel()
            assert (await told.read()).result is False


async def test_what_waits_at_another_orchestrator_counts() -> None:
    detector, let = held()
    async with Cluster([detector], scaler=LISTENING) as busy:
        # Nobody answers at the second one: it is left out.
        peers = f"127.0.0.1:{busy.service.scaler.port},127.0.0.1:9"
        async with Cluster(scaler={**LISTENING, "peers": peers}) as asked, keda(asked) as stub:
            assert not (await stub.IsActive(of("detection"))).result

            async def waits() -> bool:
                return await value(stub, "detection") > 250

            async with crowded(busy, let):
                await until(waits)
                assert (await stub.IsActive(of("detection"))).result


async def test_the_sum_is_of_all_replicas() -> None:
    """KEDA divides it by their number, so that the target is what any work may wait."""
    (one, let), (two, also) = held(), held()
    async with Cluster([one, two], scaler=LISTENING) as cluster, keda(cluster) as stub:

        async def waits() -> bool:
            reading = cluster.service.wanted("detection")
            assert reading is not None
            return reading.wait_ms > 250 and reading.replicas == 2

        async with crowded(cluster, let):
            await until(waits)
            before = cluster.service.wanted("detection")
            found = await value(stub, "detection")
            after = cluster.service.wanted("detection")
            assert before is not None
            assert after is not None
            assert 2 * before.wait_ms <= found <= 2 * after.wait_ms
            also.set()


async def test_wrong_questions_are_answered_in_words() -> None:
    async with Cluster(scaler=LISTENING) as cluster, keda(cluster) as stub:
        metric = pb.GetMetricsRequest(scaledObjectRef=of("detection"), metricName="cpu")
        for call, message in (
            (stub.IsActive(of("text")), "no pipeline uses a stage that is called 'text'"),
            (stub.IsActive(pb.ScaledObjectRef()), "no pipeline uses a stage that is called ''"),
            (stub.GetMetricSpec(of("detection", targetMs="soon")), "targetMs: invalid literal"),
            (stub.GetMetricSpec(of("detection", targetMs="0")), "targetMs: must be at least 1"),
            (stub.GetMetrics(metric), "metricName: there is only wait-ms"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=message) as raised:
                await call
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_those_that_follow_are_let_go_as_the_server_ends() -> None:
    async with Cluster(scaler=LISTENING) as cluster, keda(cluster) as stub:
        told = stub.StreamIsActive(of("detection"))
        assert (await told.read()).result is False
        cluster.service.refuse()
        async with asyncio.timeout(20):
            assert await told.read() is grpc.aio.EOF
            assert await told.code() is grpc.StatusCode.OK


async def test_a_port_that_is_taken_fails_the_start() -> None:
    async with Cluster(scaler=LISTENING) as cluster:
        second = Cluster(scaler={**LISTENING, "port": cluster.service.scaler.port})
        with pytest.raises(StartupError, match="cannot listen on"):
            await second.__aenter__()
        await second.server.stop()
        for server in (*second.detection, *second.recognition):
            await server.stop()


def test_peers_are_a_name_for_all() -> None:
    with pytest.raises(ValidationError, match="a name that stands for every orchestrator"):
        OrchestratorConfig.model_validate({"scaler": {"peers": "unix:/run/peers"}})
