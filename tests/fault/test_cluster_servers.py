"""Servers that are killed, stopped, restarted or away, under load, with real processes and the client's own ledger."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest
from ledger_client import Answer, Caller, Load, calling
from ledger_models import draw
from server_processes import Fleet, is_running
from waiting import until, wait_until

from sluiceway import AsyncClient
from sluiceway.client.patience import RetryPolicy

pytestmark = pytest.mark.timeout(400)

# What may be told of a picture that was with a server when it was killed, and its retry found no other.
TOLD = {"UNAVAILABLE"}


@pytest.mark.parametrize("section", ["detection", "recognition", "orchestrator"])
async def test_front_killed_leaves_nothing_and_a_restart_is_clean(section: str, tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        (detection,), (recognition,), orchestrator = fleet.cluster()
        victim = {"detection": detection, "recognition": recognition, "orchestrator": orchestrator}[section]
        others = [member.front for member in fleet.members if member is not victim]
        async with calling(orchestrator.address) as caller, Load(caller, clients=6, timeout_s=60) as load:
            await load.more(30)
            victim.kill(signal.SIGKILL)
            victim.process.wait()
            started_s = monotonic()
            await asyncio.to_thread(victim.assert_gone)
            assert monotonic() - started_s < 15, "workers outlive their server"
            await asyncio.to_thread(victim.start)
            await load.more(30)
        # Whatever was under way either succeeded or was told; nothing is lost, and nothing came twice.
        assert all(answer.ended_once and not answer.doubled for answer in load.answers.values())
        for number, answer in load.wrong.items():
            regions_told = answer.region_errors and set(answer.region_errors) <= TOLD
            assert answer.code == "UNAVAILABLE" or answer.reason in TOLD or regions_told, (number, answer)
        if section == "orchestrator":
            assert load.wrong, "the load did not meet the kill"
        else:
            # There was no other replica, but there was time: everything waited for the restart.
            assert not load.wrong
        assert [process for process in others if not is_running(process)] == []
        async with calling(orchestrator.address) as caller:
            await caller.expect(1)


async def test_recognition_down_for_ten_seconds(tmp_path: Path) -> None:
    """Who has time waits and is answered; who has not is told in time; nobody else restarts anything."""
    with Fleet(tmp_path) as fleet:
        _, (recognition,), orchestrator = fleet.cluster()
        async with calling(orchestrator.address) as caller:
            await caller.expect(1)
            recognition.kill(signal.SIGKILL)
            recognition.process.wait()
            down_s = monotonic()
            patient = [asyncio.create_task(caller.ask(n, timeout_s=60)) for n in range(100, 120)]
            # Why is told a tenth of a second before the deadline. A machine that pauses for longer takes that from
            # those whose deadlines are near, and not from all of them, as no two have the same.
            hasty = await asyncio.gather(*(caller.ask(200 + n, timeout_s=0.8 + n / 10) for n in range(20)))
            assert not any(task.done() for task in patient)
            # An image whose words nobody can read is not looked for words: only those that were asked before it was
            # noticed have boxes.
            told = [answer for answer in hasty if answer.reason == "UNAVAILABLE" or answer.region_errors]
            assert len(told) >= 10, hasty
            assert all(answer.region_errors in ({}, {"UNAVAILABLE": 2}) for answer in told), told
            assert all(answer.boxes == (2 if answer.region_errors else 0) for answer in told), told
            assert sum(not answer.boxes for answer in told) >= 5, told
            for answer in hasty:
                ends = {answer.reason, answer.code, *answer.region_errors}
                assert answer in told or "DEADLINE_EXCEEDED" in ends, answer
                assert answer.ended_once
                assert not answer.texts
                assert answer.took_s < 8, "it waited for the end of the outage"
            await asyncio.sleep(max(0.0, down_s + 10 - monotonic()))
            assert not any(task.done() for task in patient)
            await asyncio.to_thread(recognition.start)
            ready_s = monotonic()
            answers = await asyncio.gather(*patient)
            assert all(answer.is_right(n, 2) for n, answer in zip(range(100, 120), answers, strict=True)), answers
            assert monotonic() - ready_s < 20, "it came back, and was found late"
            await caller.expect(2)


class LibraryLoad:
    """Load through the client library, whose retries are part of what is promised."""

    def __init__(self, client: AsyncClient, clients: int) -> None:
        self._client = client
        self._running = True
        self._numbers = iter(range(10**9))
        self.right = 0
        self.wrong: list[object] = []
        self._tasks = [asyncio.create_task(self._run()) for _ in range(clients)]

    async def _run(self) -> None:
        while self._running:
            number = next(self._numbers)
            try:
                result = await self._client.process(draw(number, 2), timeout_s=30)
                texts = Counter(region.text for region in result.regions)
                if texts == {f"{number}:0": 1, f"{number}:1": 1}:
                    self.right += 1
                else:
                    self.wrong.append((number, texts))
            except Exception as error:  # whatever it is, it is a failed request
                self.wrong.append((number, error))

    async def more(self, count: int) -> None:
        goal = self.right + count
        await until(lambda: self.right >= goal)

    async def end(self) -> None:
        self._running = False
        await asyncio.gather(*self._tasks)


async def test_rolling_restart_of_two_replicas_of_everything_fails_no_request(tmp_path: Path) -> None:
    """SIGTERM under load, one server after the other, each ending with exit code 0 and coming back at its address."""
    with Fleet(tmp_path) as fleet:
        detection, recognition, first = fleet.cluster(
            replicas=2, settings={"orchestrator": {"DRAIN_NOTICE_S": "0.2", "RESOLVE_INTERVAL_S": "0.5"}}
        )
        targets = {
            "DETECTION": ",".join(member.address for member in detection),
            "RECOGNITION": ",".join(member.address for member in recognition),
            "DRAIN_NOTICE_S": "0.2",
        }
        second = fleet.add("orchestrator", targets).start()
        # One name with two addresses, as DNS gives them for a replicated service.
        address = f"ipv4:{first.address},{second.address}"
        retry = RetryPolicy(attempts=8, jitter=random.Random(1))
        async with AsyncClient(address, retry=retry) as client:
            load = LibraryLoad(client, clients=8)
            try:
                await load.more(20)
                for member in (*detection, *recognition, first, second):
                    code = await asyncio.to_thread(member.stop)
                    assert code == 0, f"{member.section}:\n{member.log[-2000:]}"
                    await asyncio.to_thread(member.assert_gone)
                    await load.more(20)
                    await asyncio.to_thread(member.start)
                    await load.more(20)
            finally:
                await load.end()
        assert not load.wrong, load.wrong[:3]
        assert load.right >= 260


async def test_what_was_accepted_is_finished_before_a_server_stops(tmp_path: Path) -> None:
    """SIGTERM with a queue: every call under way is answered, new ones are refused as UNAVAILABLE, exit code 0."""
    with Fleet(tmp_path) as fleet:
        # The notice is for calls that were sent before their sender could know.
        detection, recognition, orchestrator = fleet.cluster(settings={"orchestrator": {"DRAIN_NOTICE_S": "2"}})
        async with calling(orchestrator.address) as caller:
            await caller.expect(1)
            under_way = [asyncio.create_task(caller.ask(n, 2)) for n in range(100, 160)]
            await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            orchestrator.kill(signal.SIGTERM)
            answers = await asyncio.gather(*under_way)
            assert all(answer.is_right(n, 2) for n, answer in zip(range(100, 160), answers, strict=True))
            async with asyncio.timeout(40):
                while (late := await caller.ask(200, timeout_s=20)).reason == "OK":
                    assert late.is_right(200, 2), "taken during the notice, so it has to be served"
            # gRPC itself says CANCELLED to a call that comes in the very moment of the stop; our client tries again.
            assert late.reason in ("UNAVAILABLE", "CANCELLED"), late
            assert await asyncio.to_thread(orchestrator.process.wait, 30) == 0
        assert (detection[0].stop(), recognition[0].stop()) == (0, 0)


async def test_a_second_signal_ends_a_server_at_once_and_with_its_workers(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        detection = fleet.add("detection", {"DRAIN_NOTICE_S": "30", "DRAIN_GRACE_S": "60"}).start()
        detection.kill(signal.SIGTERM)
        await asyncio.to_thread(wait_until, lambda: detection.get("/readyz")[0] != 200)
        started_s = monotonic()
        detection.kill(signal.SIGTERM)
        assert await asyncio.to_thread(detection.process.wait, 20) == 130
        detection.assert_gone()
        assert monotonic() - started_s < 20, "it waited for its notice or its grace time"


async def test_a_frozen_stage_costs_its_callers_their_deadline_and_nobody_else(tmp_path: Path) -> None:
    """SIGSTOP of one of two recognition servers: it is connected, silent, and has work. Nothing hangs past its time."""
    with Fleet(tmp_path) as fleet:
        _, recognition, orchestrator = fleet.cluster(replicas=2)
        async with calling(orchestrator.address) as caller:
            await warm(caller)
            recognition[0].front.send_signal(signal.SIGSTOP)
            try:
                answers = await asyncio.gather(*(caller.ask(n, timeout_s=8) for n in range(100, 160)))
            finally:
                recognition[0].front.send_signal(signal.SIGCONT)
            assert all(answer.took_s < 30 and answer.ended_once for answer in answers)
            served = sum(answer.is_right(n, 2) for n, answer in zip(range(100, 160), answers, strict=True))
            # What went to the silent one runs out of time; the other one serves all the rest.
            assert served >= 20, Counter(answer.reason for answer in answers)
            await caller.expect_soon(1)


async def warm(caller: Caller) -> None:
    answers: list[Answer] = await asyncio.gather(*(caller.ask(n) for n in range(20)))
    assert all(answer.is_right(n, 2) for n, answer in enumerate(answers))
