"""How a server's process ends where it does not end as usual: exit codes, and nothing left."""

import asyncio
import signal
from pathlib import Path
from time import monotonic

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ledger_models import Deed, draw
from server_processes import Member
from sluiceway_runtime.errors import Cancelled, Unavailable
from sluiceway_runtime.server.status import from_rpc_error
from waiting import wait_until

from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc


async def test_a_process_told_to_stop_while_it_starts_ends_cleanly_and_with_its_workers(tmp_path: Path) -> None:
    member = Member("detection", tmp_path, {"DETECTOR": "ledger_models:LoadingDetector"})
    try:
        member.start(wait=False)
        await asyncio.to_thread(wait_until, lambda: (tmp_path / "loading").exists() and len(member.workers()) == 2)
        assert member.get("/readyz")[0] == 503
        member.kill(signal.SIGTERM)
        assert await asyncio.to_thread(member.process.wait, 30) == 0, member.log
        member.assert_gone()
        assert "Traceback" not in member.log
    finally:
        member.end()


async def test_a_process_that_cannot_finish_in_its_grace_time_says_so_by_its_exit_code(tmp_path: Path) -> None:
    member = Member("detection", tmp_path, {"DRAIN_GRACE_S": "0.2"})
    try:
        await asyncio.to_thread(member.start)
        async with grpc.aio.insecure_channel(member.address) as channel:
            request = detection_pb2.DetectRequest(image=draw(1, 1, Deed.HANG))
            call = detection_pb2_grpc.DetectionServiceStub(channel).Detect(request)
            computing = 'sluiceway_pool_running_items{stage="detection"} 1.0'
            await asyncio.to_thread(wait_until, lambda: computing in member.get("/metrics")[1])
            member.kill(signal.SIGTERM)
            assert await asyncio.to_thread(member.process.wait, 30) == 1, member.log
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert isinstance(from_rpc_error(caught.value), Unavailable | Cancelled)
        member.assert_gone()
    finally:
        member.end()


@pytest.mark.parametrize("section", ["orchestrator", "detection", "recognition"])
async def test_a_server_reads_its_sockets_in_the_thread_that_wakes_its_event_loop(section: str, tmp_path: Path) -> None:
    # What gRPC traces of each connection names the source file that handles it.
    member = Member(section, tmp_path, environment={"GRPC_TRACE": "tcp", "GRPC_VERBOSITY": "DEBUG"})
    try:
        await asyncio.to_thread(member.start, wait=False)
        async with grpc.aio.insecure_channel(member.address) as channel:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        assert "tcp_posix.cc" in member.log
        assert "posix_endpoint.cc" not in member.log
        assert "Unknown experiment" not in member.log
    finally:
        member.end()


async def test_a_new_connection_is_served_at_once(tmp_path: Path) -> None:
    """After a rest as well, when the threads of gRPC have come to sleep: each took up to eight seconds once."""
    member = Member("detection", tmp_path, {})
    took_s = []
    try:
        await asyncio.to_thread(member.start)
        # So that one comes at every moment of what they do by themselves every few seconds.
        for rest_s in (0.0, 0.7, 0.7, 0.7, 0.7, 4.0, 0.0):
            await asyncio.sleep(rest_s)
            begun_s = monotonic()
            async with grpc.aio.insecure_channel(
                member.address, options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
            took_s.append(monotonic() - begun_s)
    finally:
        member.end()
    # It takes milliseconds; on a machine that others compute on, some more.
    assert max(took_s) < 2, took_s
