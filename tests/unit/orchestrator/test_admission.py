"""Early refusal as a table of arrivals and ends, and the same through a real server."""

from __future__ import annotations

import asyncio
from time import monotonic

import grpc
import grpc.aio
import pytest
from sluiceway_orchestrator.admission import REMEMBER_S, SHARE, Admission, Throughput
from sluiceway_orchestrator.priority import Priority
from sluiceway_orchestrator.testing import Cluster, FakeDetection, picture
from sluiceway_runtime.errors import QueueFull
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway.pipeline.v1 import pipeline_pb2

NORMAL = Priority.NORMAL


def at_ten_a_second(waiting: int, client: str = "a") -> Admission:
    """An admission that has seen ten sources a second leave, until time 10, with some left."""
    admission = Admission()
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


async def test_three_times_the_load_costs_no_goodput() -> None:
    """Two workers of 40 ms are 50 images a second; 150 come. Without early refusal next to none would be in time."""
    workers = asyncio.Semaphore(2)

    async def work(_number: int) -> None:
        async with workers:
            await asyncio.sleep(0.04)

    kinds: dict[str, list[float]] = {"ok": [], "refused": [], "late": []}
    async with Cluster([FakeDetection(capacity=2, before=work)]) as cluster:

        async def ask(number: int) -> None:
            started_s, kind = monotonic(), "late"
            call = cluster.stub.Process(
                pipeline_pb2.ProcessRequest(sources=[pipeline_pb2.Source(image=picture(number))]), timeout=1.0
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
            kinds[kind].append(monotonic() - started_s)

        begun_s, tasks = monotonic(), []
        while (now_s := monotonic() - begun_s) < 4:
            while len(tasks) < now_s * 150:
                tasks.append(asyncio.create_task(ask(len(tasks))))
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
    # The first second has no measure yet, and what is timed here shares its cores with others.
    assert len(kinds["ok"]) > 4 * 50 * 0.6, {kind: len(times) for kind, times in kinds.items()}
    assert len(kinds["refused"]) > 100
    assert len(kinds["late"]) < 75
    assert sorted(kinds["refused"])[len(kinds["refused"]) // 2] < 0.05
