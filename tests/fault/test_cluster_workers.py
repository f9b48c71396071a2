"""Faults of workers and of models, seen from the client of a whole cluster of real processes. `test_pool_crashes.py`
has each of them at the level of the pool."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from ledger_client import Answer, Caller, Load, calling
from ledger_models import Deed
from server_processes import SUPPORT, Fleet, Member, is_running
from waiting import wait_until

pytestmark = pytest.mark.timeout(400)

MEMORY_MB = 600
STAGES = ("detection", "recognition")
Servers = dict[str, Member]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One cluster for the module: it has to survive all of this anyway."""
    quick = {"BATCH_TIMEOUT_S": "3", "WORKER_MEMORY_MB": str(MEMORY_MB), "MAX_BATCH": "4"}
    with Fleet(tmp_path_factory.mktemp("cluster")) as fleet:
        (detection,), (recognition,), orchestrator = fleet.cluster(settings={"detection": quick, "recognition": quick})
        yield {"detection": detection, "recognition": recognition, "orchestrator": orchestrator}


@pytest.fixture(autouse=True)
def still_whole(servers: Servers) -> Iterator[None]:
    """After each test the same servers run, every worker is back, and no descriptor was left open."""
    fronts = {name: member.front for name, member in servers.items()}
    before = {name: front.num_fds() for name, front in fronts.items()}
    for member in servers.values():
        member.remember()
    yield
    for name in STAGES:
        wait_until(lambda: ready_workers(servers[name]) == 2, what=f"{name} has its workers back")  # noqa: B023
    for name, front in fronts.items():
        assert front == servers[name].front
        # Connections of this test's client close a moment after it.
        wait_until(lambda: front.num_fds() <= before[name] + 2, what=f"{name} has closed its descriptors")  # noqa: B023


def ready_workers(member: Member) -> int:
    return [worker["state"] for worker in member.status()["workers"]].count("ready")


def pids(member: Member) -> set[int]:
    return {worker["pid"] for worker in member.status()["workers"]}


def is_replaced(member: Member, pid: int) -> bool:
    return ready_workers(member) == 2 and pid not in pids(member)


async def test_workers_killed_in_both_stages_under_load_cost_no_request(servers: Servers) -> None:
    async with calling(servers["orchestrator"].address) as caller, Load(caller, clients=12) as load:
        for name in (*STAGES, *STAGES):
            await load.more(60)
            victim = min(pids(servers[name]))
            os.kill(victim, signal.SIGKILL)
            await load.more(20)
            await asyncio.to_thread(wait_until, lambda: is_replaced(servers[name], victim))  # noqa: B023 - awaited here
    assert not load.wrong


CASES = {
    Deed.RAISE: "MODEL_FAILED",
    Deed.CRASH: "QUARANTINED",
    Deed.HANG: "QUARANTINED",
    Deed.NAN: "OK",
    Deed.ZERO_SIZED: "OK",
    Deed.READ_RAISE: "MODEL_FAILED",
    Deed.READ_NAN: "MODEL_FAILED",
    Deed.READ_CRASH: "QUARANTINED",
}


@pytest.mark.parametrize("deed", CASES, ids=lambda deed: deed.name.lower())
async def test_what_a_model_does_to_one_picture_is_told_and_its_neighbours_are_answered(
    servers: Servers, deed: Deed
) -> None:
    number = 1000 + deed
    stage = servers["detection" if deed < Deed.READ_CRASH else "recognition"]
    before = len(stage.log)
    async with calling(servers["orchestrator"].address) as caller, Load(caller, clients=6) as load:
        await load.more(10)
        answer = await caller.ask(number, 1, deed)
        await load.more(10)
        await caller.expect(number + 500)
    check(answer, number, deed)
    assert not load.wrong
    if CASES[deed] == "QUARANTINED":
        lines = [line for line in stage.log[before:].splitlines() if "is quarantined" in line]
        assert lines, "the log does not name the item"
        assert all(len(word) == 32 for word in (line.partition("item ")[2].split()[0] for line in lines)), lines


def check(answer: Answer, number: int, deed: Deed) -> None:
    reason = CASES[deed]
    assert answer.ended_once
    if reason == "OK":
        # Boxes that are no boxes are not there; the sound one is.
        assert answer.is_right(number, 1), answer
        assert answer.boxes == 1
    elif deed < Deed.READ_CRASH:
        assert (answer.reason, answer.boxes) == (reason, 0)
    else:
        assert answer.reason == "OK", "a region that cannot be read does not fail its picture"
        assert answer.region_errors == {reason: 1}
        assert not answer.texts


@pytest.mark.parametrize("deed", [Deed.LEAK, Deed.READ_LEAK], ids=STAGES)
async def test_workers_that_grow_are_replaced_without_a_lost_request(servers: Servers, deed: Deed) -> None:
    stage = servers["detection" if deed is Deed.LEAK else "recognition"]
    before, written = pids(stage), len(stage.log)
    async with calling(servers["orchestrator"].address) as caller, Load(caller, clients=4) as load:
        number = 5000
        while pids(stage) & before:
            answer = await caller.ask(number, 1, deed, 120)
            assert answer.is_right(number, 1), answer
            number += 1
            assert number < 5060, "no worker was replaced"
        await load.more(20)
    assert not load.wrong
    log = stage.log[written:]
    assert "is replaced: it has" in log
    assert " ended: " not in log, "a worker was lost, not replaced"


ABANDON = """
import asyncio, sys
from ledger_client import calling
from ledger_models import Deed
async def main():
    async with calling(sys.argv[1]) as caller:
        tasks = [asyncio.create_task(caller.ask(n, 3, Deed.READ_SLOW, 100)) for n in range(50)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        print("running", flush=True)
        await asyncio.wait(tasks)
asyncio.run(main())
"""


async def test_a_client_that_is_killed_leaves_no_work_behind(servers: Servers) -> None:
    address, before = servers["orchestrator"].address, crops_read(servers["recognition"])
    environment = os.environ | {"PYTHONPATH": str(SUPPORT)}
    command = [sys.executable, "-c", ABANDON, address]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert await asyncio.to_thread(client.stdout.readline) == b"running\n"
        client.kill()
    await asyncio.to_thread(wait_until, lambda: servers["orchestrator"].status()["jobs"] == 0)
    async with calling(address) as caller:
        await caller.expect_soon(1)
    # 50 pictures of 3 crops of 100 ms are 7.5 s of work for two workers. It is not done for nobody: what was with a
    # worker is finished, and what was read in the time that the client took to die.
    assert crops_read(servers["recognition"]) - before < 100


def crops_read(recognition: Member) -> int:
    return sum(worker["items"] for worker in recognition.status()["workers"])


async def test_cancelled_calls_leave_memory_and_descriptors_flat(servers: Servers) -> None:
    fronts = [member.front for member in servers.values()]

    async def cycle(caller: Caller, count: int) -> None:
        for start in range(0, count, 20):
            tasks = [asyncio.create_task(caller.ask(start + n, 2, Deed.READ_SLOW, 20)) for n in range(20)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async with calling(servers["orchestrator"].address) as caller:
        await cycle(caller, 300)
        await caller.expect_soon(2)
        memory, descriptors = memory_of(fronts), [front.num_fds() for front in fronts]
        await cycle(caller, 600)
        await caller.expect_soon(3)
        assert memory_of(fronts) - memory < 24 * 2**20
        for front, count in zip(fronts, descriptors, strict=True):
            await asyncio.to_thread(wait_until, lambda: front.num_fds() <= count + 1)  # noqa: B023 - awaited here


def memory_of(processes: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes)


async def test_stopped_worker_is_found_by_the_watchdog(servers: Servers) -> None:
    """SIGSTOP: the process is there, and silent."""
    victim = psutil.Process(min(pids(servers["detection"])))
    async with calling(servers["orchestrator"].address) as caller, Load(caller, clients=4) as load:
        await load.more(10)
        victim.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(wait_until, lambda: not is_running(victim))
        await load.more(10)
    assert not load.wrong
