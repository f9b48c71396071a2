"""Early refusal as a table of arrivals and ends, and the same through a real server."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from heapq import heappop, heappush
from time import monotonic

import grpc
import grpc.aio
import pytest
from sluiceway_orchestrator.admission import REMEMBER_S, SHARE, Admission, Throughput
from sluiceway_orchestrator.plan import Pipeline
from sluiceway_orchestrator.testing import Cluster, FakeDetection, picture
from sluiceway_runtime.errors import QueueFull
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway.pipeline.v1 import pipeline_pb2

NORMAL = Priority.NORMAL


def at_ten_a_second(waiting: int, client: str = "a", longest_s: float | None = None) -> Admission:
    """An admission that has seen ten sources a second leave, until time 10, with some left."""
    admission = Admission(longest_s)
    admission.enter(client, NORMAL, waiting + 50)
    admission.check(client, NORMAL, 1e9, 5.0, busy=True)
    for number in range(50):
        admission.leave(client, NORMAL, 5.1 + number / 10, busy=True)
    return admission


def refused(admission: Admission, remaining_s: float, *, client: str = "a", busy: bool = True, now_s: float = 10.0,
            priority: Priority = NORMAL) -> float | None:  # fmt: skip
    try:
        admission.check(client, priority, remaining_s, now_s, busy=busy)
    except QueueFull as error:
        return error.retry_after_s
    return None


def test_what_fits_is_taken_and_what_does_not_is_told_when_to_come_back() -> None:
    admission = at_ten_a_second(waiting=29)
    assert refused(admission, 3.1 / SHARE) is None
    # Three seconds of work, and room for two.
    assert refused(admission, 2.0 / SHARE) == pytest.approx(1.0, abs=0.1)


def test_nothing_is_refused_while_a_worker_is_free_or_nothing_is_known() -> None:
    assert refused(at_ten_a_second(waiting=1000), 0.1, busy=False) is None
    fresh = Admission()
    fresh.enter("a", NORMAL, 10_000)
    assert refused(fresh, 0.1) is None


def test_a_bound_refuses_what_its_deadline_would_allow_unless_it_is_bulk_work() -> None:
    assert refused(at_ten_a_second(waiting=3, longest_s=0.5), 60) is None
    bounded = at_ten_a_second(waiting=19, longest_s=0.5)
    assert refused(bounded, 60) == pytest.approx(1.5, abs=0.1)
    with pytest.raises(QueueFull, match="latency_bound_ms"):
        bounded.check("a", NORMAL, 60, 10.0, busy=True)
    assert refused(bounded, 60, busy=False) is None, "a worker is free"
    assert refused(bounded, 60, priority=Priority.BULK) is None
    assert refused(at_ten_a_second(waiting=19), 60) is None
    # The deadline, where that is nearer.
    with pytest.raises(QueueFull, match="deadline"):
        bounded.check("a", NORMAL, 0.2 / SHARE, 10.0, busy=True)


def test_another_clients_queue_is_not_mine() -> None:
    admission = at_ten_a_second(waiting=1000)
    assert refused(admission, 5) is not None
    assert refused(admission, 5, client="b") is None


def test_a_higher_class_does_not_wait_for_a_lower_one() -> None:
    admission = at_ten_a_second(waiting=1000)
    assert refused(admission, 5, client="b", priority=Priority.INTERACTIVE) is None
    assert refused(admission, 5, client="b", priority=Priority.BULK) is not None


def test_idle_time_does_not_count_as_slowness() -> None:
    throughput = Throughput()
    throughput.observe(0.0, busy=True)
    for number in range(1, 21):
        throughput.left(number / 10)
    assert throughput.per_s(2.0) == pytest.approx(10, rel=0.1)
    throughput.observe(2.0, busy=False)
    throughput.observe(9.0, busy=True)
    assert throughput.per_s(9.1) == pytest.approx(10, rel=0.1), "what was known last, until there is a new measure"
    for number in range(1, 21):
        throughput.left(9.0 + number / 5)
    assert throughput.per_s(13.0) == pytest.approx(5, rel=0.1)


def test_a_measure_is_forgotten_so_that_a_slow_moment_does_not_refuse_for_ever() -> None:
    admission = at_ten_a_second(waiting=1000)
    admission.check("a", NORMAL, 1e9, 10.0, busy=False)
    assert refused(admission, 1.0, now_s=11.0) is not None
    admission.check("a", NORMAL, 1e9, 11.5, busy=False)
    assert refused(admission, 1.0, now_s=12.0 + REMEMBER_S) is None


def test_ends_leave_nothing_behind() -> None:
    admission = at_ten_a_second(waiting=0)
    assert repr(admission) == "<Admission sources=[0, 0, 0]>"
    assert not any(admission._counts)


def three_times_the_load(*, early_refusal: bool) -> Counter[str]:
    """Two workers of 40 ms are 50 images a second; 150 come, for four seconds, each to be done within one.

    In virtual time. An image whose time ends in line is dropped; one that a worker has begun is finished, late or not.
    """
    kinds: Counter[str] = Counter()
    admission = Admission()
    line: deque[float] = deque()
    # What happens next: when, and the deadline of the image that a worker ends then; 0 for one that comes.
    events = [(number / 150, 0.0) for number in range(600)]
    free = 2
    while events:
        now_s, ends_s = heappop(events)
        if ends_s:
            free += 1
            kinds["ok" if now_s <= ends_s else "late"] += 1
            admission.leave("a", NORMAL, now_s, busy=not free or bool(line))
        elif early_refusal and refused(admission, 1.0, busy=not free, now_s=now_s) is not None:
            kinds["refused"] += 1
        else:
            admission.enter("a", NORMAL, 1)
            line.append(now_s + 1.0)
        while line and free:
            ends_s = line.popleft()
            if ends_s > now_s:
                free -= 1
                heappush(events, (now_s + 0.04, ends_s))
            else:
                kinds["dropped"] += 1
                admission.leave("a", NORMAL, now_s, busy=True)
    return kinds


def test_of_three_times_the_load_what_is_accepted_is_done_in_time() -> None:
    kinds = three_times_the_load(early_refusal=True)
    assert kinds["ok"] > 4 * 50
    assert kinds["refused"] > 300
    # The first half second has no measure yet.
    assert kinds["late"] + kinds["dropped"] < 10
    assert kinds.total() == 600
    assert three_times_the_load(early_refusal=False)["ok"] < 100, "workers busy with what is late when it is done"


async def test_three_times_the_load_costs_no_goodput() -> None:
    """Two workers of 200 ms are ten images a second; 30 come, until enough of them were refused."""
    workers, begun = asyncio.Semaphore(2), 0

    async def work(_number: int) -> None:
        nonlocal begun
        async with workers:
            begun += 1
            await asyncio.sleep(0.2)

    kinds: Counter[str] = Counter()
    async with Cluster([FakeDetection(capacity=2, before=work)]) as cluster:

        async def ask(number: int) -> None:
            kind = "late"
            call = cluster.stub.Process(
                pipeline_pb2.ProcessRequest(sources=[pipeline_pb2.Source(image=picture(number))]), timeout=5.0
            )
            try:
                async for event in call:
                    if event.HasField("done"):
                        kind = "ok"
            except grpc.aio.AioRpcError as error:
                known = from_rpc_error(error)
                if isinstance(known, QueueFull):
                    assert known.retry_after_s
                    kind = "refused"
            kinds[kind] += 1

        begun_s, tasks = monotonic(), []
        while kinds["refused"] < 20 and (now_s := monotonic() - begun_s) < 20:
            while len(tasks) < now_s * 30:
                tasks.append(asyncio.create_task(ask(len(tasks))))
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
    assert kinds["refused"] >= 20, kinds
    # Next to none of what was accepted comes too late, and no worker is busy with what does.
    assert kinds["ok"] >= 0.8 * begun, (kinds, begun)


async def test_the_bound_is_that_of_the_configuration() -> None:
    """With deadlines of a minute nothing would be refused of what takes some seconds."""
    worker = asyncio.Semaphore(1)

    async def work(_number: int) -> None:
        async with worker:
            await asyncio.sleep(0.05)

    refusals = 0
    async with Cluster([FakeDetection(capacity=1, before=work)], latency_bound_ms=300) as cluster:

        async def ask(number: int) -> None:
            nonlocal refusals
            source = pipeline_pb2.Source(image=picture(number))
            try:
                async for _ in cluster.stub.Process(pipeline_pb2.ProcessRequest(sources=[source]), timeout=60):
                    pass
            except grpc.aio.AioRpcError as error:
                known = from_rpc_error(error)
                assert isinstance(known, QueueFull)
                assert "latency_bound_ms" in known.message
                refusals += 1

        tasks: list[asyncio.Task[None]] = []
        async with asyncio.timeout(60):
            while not refusals:
                tasks.append(asyncio.create_task(ask(len(tasks))))
                await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)


async def test_a_job_that_only_detects_is_judged_by_the_stage_that_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody serves recognition, which would otherwise pass for a stage that may be back at any moment."""
    judged: list[tuple[str, ...]] = []

    def saturated(pipeline: Pipeline) -> bool:
        judged.append(pipeline.stages)
        return False

    async with Cluster(readers=[]) as cluster:
        monkeypatch.setattr(cluster.service.executor, "_saturated", saturated)
        (source,) = (await cluster.process(pipeline_pb2.Source(image=picture(1)), detect_only=True)).values()
    assert source.done is not None
    assert judged == [("detection",)] * 2
