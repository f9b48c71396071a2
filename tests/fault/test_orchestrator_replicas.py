"""Replicas that die, come, go, drain or are not there yet: nothing is lost and nothing comes twice."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
import pytest
from sluiceway_orchestrator.stages.replica_set import EAGER_RESOLVE_S
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, FakeServer, picture
from sluiceway_orchestrator.testing.cluster import account
from sluiceway_runtime.errors import QueueFull, Unavailable
from waiting import until

from sluiceway.common.v1 import value_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2

Source = pipeline_pb2.Source


@asynccontextmanager
async def stage_processes(
    kind: str, count: int, *options: str
) -> AsyncIterator[tuple[list[asyncio.subprocess.Process], str]]:
    """Replicas in processes of their own, and a target that names them all."""
    processes, addresses = [], []
    try:
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sluiceway_orchestrator.testing", kind, "--capacity", "8", *options,
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            processes.append(process)
            assert process.stdout is not None
            addresses.append((await process.stdout.readline()).decode().strip())
        yield processes, ",".join(addresses)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("detection", ()), ("recognition", ()), ("recognition", ("--whole-crops", "8"))],
    ids=["detection", "recognition", "whole"],
)
async def test_kill_9_of_one_of_two_replicas_under_load_loses_and_doubles_nothing(
    kind: str, options: Sequence[str]
) -> None:
    images, regions = 2000, 3
    async with stage_processes(kind, 2, *options) as (processes, target), Cluster(**{kind: target}) as cluster:
        await until(lambda: sum(replica.ready for replica in cluster.service.stages[kind].replicas) == 2)

        async def jobs() -> AsyncIterator[pipeline_pb2.ProcessStreamRequest]:
            for number in range(images):
                if number == images // 2:
                    processes[0].send_signal(signal.SIGKILL)
                source = Source(source_id="s", image=picture(number, regions=regions))
                yield pipeline_pb2.ProcessStreamRequest(
                    job=pipeline_pb2.ProcessRequest(job_id=str(number), sources=[source])
                )

        async def events() -> AsyncIterator[pipeline_pb2.ProcessResponse]:
            async for response in cluster.stub.ProcessStream(jobs(), timeout=100):
                yield response.event

        ledger = await account(events())
        assert [replica.ready for replica in cluster.service.stages[kind].replicas].count(True) == 1
    assert len(ledger) == images
    for number in range(images):
        source = ledger[str(number)]["s"]
        assert source.error is None
        assert not source.region_errors
        assert source.texts == {f"{number}:{region}": 1 for region in range(regions)}


async def test_a_dead_replica_gets_no_work_after_a_second() -> None:
    async with stage_processes("detection", 2) as (processes, target), Cluster(detection=target) as cluster:
        stage = cluster.service.stages["detection"]
        await until(lambda: sum(replica.ready for replica in stage.replicas) == 2)
        processes[0].send_signal(signal.SIGKILL)
        await until(lambda: sum(replica.ready for replica in stage.replicas) == 1, within_s=20)
        dead = next(replica for replica in stage.replicas if not replica.ready)
        before = dead.occupancy.sent
        events = await cluster.process(*(Source(image=picture(number)) for number in range(50)))
        assert all(source.done is not None for source in events.values())
        assert dead.occupancy.sent == before


async def test_a_replica_that_comes_back_at_its_address_is_used_again() -> None:
    async with Cluster([FakeDetection()]) as cluster:
        await cluster.process(Source(image=picture(1)))
        first = cluster.detection[0]
        await first.stop()
        waiting = asyncio.create_task(cluster.process(Source(image=picture(2))))
        await until(lambda: cluster.service.stages["detection"].backlog_items == 1)
        again = FakeServer(FakeDetection())
        await again.start(first.address)
        (source,) = (await waiting).values()
        assert source.done is not None
        cluster.detection.append(again)


async def test_only_crops_without_an_answer_are_sent_again() -> None:
    """The first reader answers one crop of four and then breaks off."""
    hanging = asyncio.Event()

    async def hang(_number: int, region: int) -> None:
        if region > 0:
            hanging.set()
            await asyncio.Event().wait()

    first, second = FakeRecognition(before=hang), FakeRecognition()
    async with Cluster(readers=[first]) as cluster:
        job = asyncio.create_task(cluster.process(Source(image=picture(5, regions=4))))
        await hanging.wait()
        address = cluster.recognition[0].address
        await cluster.recognition[0].stop()
        replacement = FakeServer(second)
        await replacement.start(address)
        (source,) = (await job).values()
        cluster.recognition.append(replacement)
    assert source.texts == {f"5:{region}": 1 for region in range(4)}
    assert sorted(region for _, _, region in second.seen) == [1, 2, 3]


async def test_a_source_that_another_version_goes_on_with_is_told_as_one() -> None:
    """The reader breaks off, and one with other models comes in its place: the source begins again from its image."""
    hanging = asyncio.Event()

    async def hang(_number: int, region: int) -> None:
        if region > 0:
            hanging.set()
            await asyncio.Event().wait()

    class Noting(FakeDetection):
        async def Detect(self, request: detection_pb2.DetectRequest, context: Any) -> detection_pb2.DetectResponse:
            answer = await super().Detect(request, context)
            answer.notices.add(reason="SOMETHING", message="is worth knowing")
            return answer

    detector, second = Noting(), FakeRecognition(models=("fake-reader", "another"))
    async with Cluster([detector], readers=[FakeRecognition(before=hang)]) as cluster:
        job = asyncio.create_task(cluster.process(Source(image=picture(5, regions=4))))
        await hanging.wait()
        address = cluster.recognition[0].address
        await cluster.recognition[0].stop()
        replacement = FakeServer(second)
        await replacement.start(address)
        (source,) = (await job).values()
        cluster.recognition.append(replacement)
    assert detector.seen == {5: 2}
    assert source.texts == {f"5:{region}": 1 for region in range(4)}
    assert sorted(region for _, _, region in second.seen) == [1, 2, 3]
    assert source.order.count("regions") == 1
    assert source.done is not None
    assert [notice.reason for notice in source.done.notices] == ["SOMETHING"]


@pytest.mark.parametrize("seen_before", [False, True])
async def test_without_any_replica_a_source_fails_as_unavailable_within_its_deadline(seen_before: bool) -> None:
    async with Cluster([FakeDetection()], max_deadline_s=0.6) as cluster:
        if seen_before:
            await until(lambda: all(stage.members for stage in cluster.service.stages.values()))
        await cluster.detection[0].stop()
        await until(lambda: not any(replica.ready for replica in cluster.service.stages["detection"].replicas))
        started = monotonic()
        (source,) = (await cluster.process(Source(image=picture(2)), timeout_s=60)).values()
        assert monotonic() - started < 20
    assert source.error is not None
    assert source.error.reason == "UNAVAILABLE"
    assert source.error.retry_after_ms > 0


async def test_a_draining_replica_finishes_and_gets_nothing_more() -> None:
    release = asyncio.Event()

    async def hold(number: int) -> None:
        if number == 1:
            await release.wait()

    first, second = FakeDetection(before=hold), FakeDetection(before=hold)
    async with Cluster([first, second]) as cluster:
        await until(lambda: sum(replica.ready for replica in cluster.service.stages["detection"].replicas) == 2)
        job = asyncio.create_task(cluster.process(Source(image=picture(1))))
        await until(lambda: first.running + second.running == 1)
        busy = 0 if first.running else 1
        await cluster.detection[busy].serving(yes=False)
        await until(lambda: sum(replica.ready for replica in cluster.service.stages["detection"].replicas) == 1)
        await cluster.process(*(Source(image=picture(n)) for n in range(2, 22)))
        assert (first, second)[busy].seen == {1: 1}
        release.set()
        (source,) = (await job).values()
        assert source.done is not None


async def test_a_replica_that_refuses_is_left_for_another() -> None:
    """UNAVAILABLE and QUEUE_FULL that a stage itself says reach no client while another replica has room."""

    async def refuse(number: int) -> None:
        raise (Unavailable("draining") if number % 2 else QueueFull("full"))

    first, second = FakeDetection(before=refuse), FakeDetection()
    async with Cluster([first, second], retry_ratio=0) as cluster:
        events = await cluster.process(*(Source(image=picture(n)) for n in range(400)))
        assert all(source.done is not None for source in events.values())
        assert second.seen == dict.fromkeys(range(400), 1)
        assert first.seen.total() < 100, "refusals are followed by a pause"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_a_stage_that_breaks_every_call_is_given_up(code: grpc.StatusCode) -> None:
    """Whatever comes without a reason of the stage's own: from gRPC itself, or from a proxy on the way."""

    class Breaking(FakeDetection):
        async def Detect(self, request: object, context: object) -> None:  # type: ignore[override]
            self.seen[0] += 1
            await context.abort(code, "broken")  # type: ignore[attr-defined]

    stage = Breaking()
    async with Cluster([stage]) as cluster:
        (source,) = (await cluster.process(Source(image=picture(1)), timeout_s=60)).values()
    assert source.error is not None
    assert source.error.reason == "UNAVAILABLE"
    assert stage.seen[0] == 2, "what broke two fronts is not tried on more"


async def test_a_unix_socket_is_passed_to_grpc_as_it_is(tmp_path: Path) -> None:
    server = FakeServer(FakeDetection())
    target = await server.start(f"unix:{tmp_path}/detection.sock")
    async with Cluster([], detection=target) as cluster:
        (source,) = (await cluster.process(Source(image=picture(1)))).values()
        assert source.done is not None
        assert [replica.address for replica in cluster.service.stages["detection"].replicas] == [target]
    await server.stop()


async def test_a_reader_that_repeats_or_forgets_crops_is_put_right() -> None:
    """Each region comes once: repeated and unknown answers are dropped, missing ones are asked for again."""
    asked: list[list[int]] = []

    class Careless(FakeRecognition):
        async def Recognize(  # type: ignore[override]
            self, request: recognition_pb2.RecognizeRequest, context: object
        ) -> AsyncIterator[recognition_pb2.RecognizeResponse]:
            ids = [crop.id for crop in request.crops]
            asked.append(ids)
            for crop_id in (ids[0], ids[0], 99):
                text = value_pb2.Text(text=f"r{crop_id}")
                yield recognition_pb2.RecognizeResponse(
                    recognitions=[recognition_pb2.Recognition(crop_id=crop_id, text=text)]
                )

    async with Cluster(readers=[Careless()]) as cluster:
        (two,) = (await cluster.process(Source(image=picture(1, regions=2)))).values()
        (many,) = (await cluster.process(Source(image=picture(1, regions=20)))).values()
    assert two.texts == {"r0": 1, "r1": 1}
    assert asked[:2] == [[0, 1], [1]]
    # One that never gets anywhere is given up after two calls, and the rest of the regions are told so.
    assert many.texts == {f"r{region}": 1 for region in range(2)}
    assert {error.reason for error in many.region_errors.values()} == {"UNAVAILABLE"}
    assert sorted(many.region_errors) == list(range(2, 20))


async def test_a_replica_that_leaves_is_kept_until_its_calls_have_ended() -> None:
    """It has answered every crop, and its name goes to another replica before the call is over."""
    answered, end = asyncio.Event(), asyncio.Event()

    class Lingering(FakeRecognition):
        async def Recognize(  # type: ignore[override]
            self, request: recognition_pb2.RecognizeRequest, context: object
        ) -> AsyncIterator[recognition_pb2.RecognizeResponse]:
            async for answer in super().Recognize(request, context):  # type: ignore[arg-type]
                yield answer
            answered.set()
            await end.wait()

    first, second = FakeServer(Lingering()), FakeServer(FakeRecognition())
    port = (await first.start()).rpartition(":")[2]
    await second.start(f"127.0.0.2:{port}")
    addresses = ["127.0.0.1"]

    async def look_up(_name: str, _port: int) -> Sequence[str]:
        return tuple(addresses)

    options = {"recognition": f"recognition.test:{port}", "resolve_interval_s": 0.3}
    async with Cluster(readers=[], service={"stage_lookup": look_up}, **options) as cluster:
        job = asyncio.create_task(cluster.process(Source(image=picture(1))))
        await answered.wait()
        addresses[:] = ["127.0.0.2"]
        stage = cluster.service.stages["recognition"]
        await until(lambda: [replica.address for replica in stage.replicas if replica.ready] == [f"127.0.0.2:{port}"])
        # As often as it is looked whether the replica can go.
        await asyncio.sleep(2 * EAGER_RESOLVE_S)
        end.set()
        (source,) = (await job).values()
        assert source.done is not None
        assert source.texts == {"1:0": 1, "1:1": 1}
        await until(lambda: len(stage._set._replicas) <= 1)
    await first.stop()
    await second.stop()
