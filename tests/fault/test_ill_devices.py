"""A replica whose device fails everything for a while, beside one that is well, counted at the client."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from time import monotonic

import grpc.aio
import pytest
from ledger_client import OPTIONS, Caller, Load, calling
from ledger_models import draw
from server_processes import Fleet, Member
from waiting import wait_until

from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc

pytestmark = pytest.mark.timeout(400)

ILL_S = 20.0
FRAIL = {
    "detection": {"DETECTOR": "ledger_models:FrailDetector", "WORKERS": "1"},
    "recognition": {"MODELS": '[{"name": "ledger", "recognizer": "ledger_models:FrailRecognizer"}]', "WORKERS": "1"},
}


def is_ready(member: Member) -> bool:
    return member.get("/readyz")[0] == 200


def count(member: Member, event: str) -> int:
    """How often this has happened in a stage."""
    series = rf'^sluiceway_pool_events_total{{.*\bevent="{event}".*}} ([0-9.]+)'
    found = re.search(series, member.get("/metrics")[1], re.MULTILINE)
    assert found, "no such event"
    return int(float(found[1]))


@pytest.mark.parametrize("section", ["detection", "recognition"])
async def test_a_device_that_fails_for_a_while_costs_no_request_and_no_picture(section: str, tmp_path: Path) -> None:
    ill = tmp_path / "ill"
    with Fleet(tmp_path) as fleet:
        sick = fleet.add(section, FRAIL[section], environment={"LEDGER_ILL": str(ill)}).start(wait=False)
        well = fleet.add(section, FRAIL[section]).start(wait=False)
        other = fleet.add("recognition" if section == "detection" else "detection").start(wait=False)
        targets = {section.upper(): f"{sick.address},{well.address}", other.section.upper(): other.address}
        orchestrator = fleet.add("orchestrator", targets).start(wait=False)
        for member in fleet.members:
            member.wait_ready()
        async with calling(orchestrator.address) as caller:
            async with Load(caller, clients=8, timeout_s=60) as load:
                await load.more(100)
                assert count(sick, "succeeded"), "both replicas take part"
                ill.touch()
                end_s = monotonic() + ILL_S
                await asyncio.to_thread(wait_until, lambda: not is_ready(sick), what="it still takes work")
                # It is tried again and again. On a busy machine a worker takes longer to start, and then so does this.
                while monotonic() < end_s or count(sick, "deaths") <= 3:
                    await load.more(10)
                assert is_ready(well)
                ill.unlink()
                before = count(sick, "succeeded")
                await asyncio.to_thread(wait_until, lambda: is_ready(sick), within_s=60, what="it does not come back")
                await load.more(100)
                assert count(sick, "succeeded") > before, "it is used again"
            await none_is_refused_afterwards(caller, sick, sorted(load.answers))
        ends = count(sick, "deaths")
        print(f"{section}: {len(load.answers)} pictures, {len(load.wrong)} wrong, {ends} ends of the sick one's worker")
        assert not load.wrong
        assert len(load.answers) == load.right
        assert count(sick, "quarantined") == count(well, "quarantined") == 0
        if section == "detection":
            await each_is_computed_there(sick, sorted(load.answers))


async def none_is_refused_afterwards(caller: Caller, sick: Member, numbers: list[int]) -> None:
    """Every picture and crop that it may have met while it was ill is asked again, and it refuses none of them."""
    refused, waiting = count(sick, "refused"), iter(numbers)

    async def again() -> None:
        for number in waiting:
            answer = await caller.ask(number, timeout_s=60)
            assert answer.is_right(number, 2), answer

    await asyncio.gather(*(again() for _ in range(8)))
    assert count(sick, "refused") == refused


async def each_is_computed_there(sick: Member, numbers: list[int]) -> None:
    """Without the orchestrator, which would have tried elsewhere."""
    async with grpc.aio.insecure_channel(sick.address, options=OPTIONS) as channel:
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        for number in numbers:
            found = await stub.Detect(detection_pb2.DetectRequest(image=draw(number, 2)), timeout=30)
            assert len(found.detections) == 2
