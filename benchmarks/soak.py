"""A hundred thousand requests of everything at once, and an account of every request by a client that trusts nobody.

A cluster of real processes with models that only read what is written into a picture, so that every answer can be
traced to its question. Streams and single calls at random; some are cancelled, some are rubbish, some make the model
raise, answer NaN or end its process, and workers are killed from outside. The ledger is the client's own: it knows what
it asked and what may come of it, and counts what came.

    make soak
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from ledger_client import OPTIONS, Answer, Caller, job_of
from ledger_models import Deed, draw
from server_processes import Fleet, Member
from sluiceway_runtime.config import StageConfig
from sluiceway_runtime.server.budget import ORCHESTRATOR_SHARE

from sluiceway.pipeline.v1 import pipeline_pb2

JOBS_PER_STREAM, STREAM_WINDOW = 400, 24
STREAMS, SINGLES, CANCELLERS = 3, 4, 2
KILL_EVERY_S = 8.0
DEADLINE_S = 60.0
# Of a whole stream, on a machine that is busy with other things.
STREAM_DEADLINE_S = 600.0
# What has been done when memory is looked at for the first time: caches are filled by then.
WARM_SHARE = 0.15
# A stage's front holds what waits in its queue, and beside it a Python with gRPC and what is being read. The
# orchestrator is given so much for requests, which is its share of the memory that it may use.
STAGE_MARGIN_MB = 256
ORCHESTRATOR_BUDGET_MB = 256
# What may grow: caches of the interpreter and of gRPC. A leak of one small picture for each request would be 30 MB.
MAX_GROWTH, MAX_GROWTH_MB = 0.15, 24.0
MAX_MORE_DESCRIPTORS = 8
# How often out of a thousand requests, and what has to be told then. Ending a process costs two workers: it is rare.
DEEDS: dict[Deed, tuple[float, str]] = {
    Deed.RAISE: (4, "MODEL_FAILED"),
    Deed.NAN: (4, "OK"),
    Deed.ZERO_SIZED: (4, "OK"),
    Deed.READ_RAISE: (4, "region MODEL_FAILED"),
    Deed.READ_NAN: (4, "region MODEL_FAILED"),
    Deed.CRASH: (0.1, "QUARANTINED"),
    Deed.READ_CRASH: (0.1, "region QUARANTINED"),
}
RUBBISH_OF_1000 = 20


@dataclass
class Question:
    """What was asked, and what has to come."""

    number: int
    regions: int
    image: bytes
    expected: str


@dataclass
class Ledger:
    """Every question and what became of it."""

    random: random.Random
    asked: int = 0
    ended: int = 0
    given_up: int = 0
    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)

    def question(self) -> Question:
        """The next one, with a number that was never used before."""
        number, self.asked = self.asked, self.asked + 1
        chance, regions = self.random.random() * 1000, self.random.choice((0, 1, 1, 2))
        for deed, (share, expected) in DEEDS.items():
            chance -= share
            if chance < 0:
                return Question(number, 1, draw(number, 1, deed), expected)
        image = draw(number, regions)
        if chance < RUBBISH_OF_1000:
            cut = self.random.randrange(len(image) - 12)
            return Question(number, 0, self.random.choice((image[:cut], os.urandom(64), b"")), "INVALID_IMAGE")
        return Question(number, regions, image, "OK")

    def close(self, question: Question, answer: Answer, *, cancelled: bool = False) -> None:
        """Take down how one ended."""
        number = question.number
        if answer.doubled:
            self.doubled.append(number)
        if cancelled and not answer.ends:
            self.given_up += 1
            self.ends["given up by the client"] += 1
            return
        self.ended += 1
        if not answer.ends["source"]:
            self.lost.append(number)
            return
        end = answer.reason
        if answer.region_errors:
            end = "region " + "+".join(sorted(answer.region_errors))
        self.ends[end] += 1
        right = answer.is_right(number, question.regions) if question.expected == "OK" else end == question.expected
        if not right:
            came = f"{dict(answer.texts)}, {answer.code} after {answer.took_s:.1f} s ({answer.details})"
            self.wrong.append(f"{number}: {end} instead of {question.expected}; {came}")


async def single(caller: Caller, ledger: Ledger, until_over: asyncio.Event) -> None:
    """One call at a time."""
    while not until_over.is_set():
        question = ledger.question()
        ledger.close(question, await caller.send(question.image, timeout_s=DEADLINE_S))


async def canceller(caller: Caller, ledger: Ledger, until_over: asyncio.Event) -> None:
    """Calls that are given up after a moment, wherever they are then."""
    while not until_over.is_set():
        question, answer = ledger.question(), Answer()
        call = caller.stub.Process(job_of(question.image), timeout=DEADLINE_S)

        async def read(answer: Answer = answer, call: object = call) -> None:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                async for response in call:  # type: ignore[attr-defined]
                    answer.add(response)

        reading = asyncio.create_task(read())
        await asyncio.wait((reading,), timeout=ledger.random.uniform(0, 0.03))
        call.cancel()
        await asyncio.wait((reading,))
        ledger.close(question, answer, cancelled=True)
        await asyncio.sleep(ledger.random.uniform(0, 0.2))


async def stream(caller: Caller, ledger: Ledger, until_over: asyncio.Event) -> None:
    """Streams of many jobs, some of which are broken off in the middle."""
    while not until_over.is_set():
        open_jobs: dict[str, tuple[Question, Answer]] = {}
        room = asyncio.Semaphore(STREAM_WINDOW)
        break_off = ledger.random.random() < 0.1

        async def jobs(
            open_jobs: dict[str, tuple[Question, Answer]] = open_jobs, room: asyncio.Semaphore = room
        ) -> AsyncIterator[pipeline_pb2.ProcessStreamRequest]:
            for _ in range(JOBS_PER_STREAM):
                await room.acquire()
                if until_over.is_set():
                    return
                question = ledger.question()
                open_jobs[str(question.number)] = question, Answer()
                job = job_of(question.image)
                job.job_id = str(question.number)
                yield pipeline_pb2.ProcessStreamRequest(job=job)

        call = caller.stub.ProcessStream(jobs(), timeout=STREAM_DEADLINE_S)
        closed = 0
        try:
            async for response in call:
                event = response.event
                if event.job_id not in open_jobs:
                    ledger.doubled.append(int(event.job_id))
                    continue
                question, answer = open_jobs[event.job_id]
                answer.add(event)
                if event.HasField("job_done"):
                    del open_jobs[event.job_id]
                    ledger.close(question, answer)
                    room.release()
                    closed += 1
                    if break_off and closed > JOBS_PER_STREAM // 3:
                        break
        except grpc.aio.AioRpcError as error:
            ledger.wrong.append(f"a stream ended with {error.code().name}: {error.details()}")
        call.cancel()
        for question, answer in open_jobs.values():
            ledger.close(question, answer, cancelled=break_off)


async def killer(stages: list[Member], ledger: Ledger, until_over: asyncio.Event) -> int:
    """Ends workers from outside, one at a time."""
    kills = 0
    while not until_over.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(until_over.wait(), KILL_EVERY_S)
            break
        stage = ledger.random.choice(stages)
        status = await asyncio.to_thread(stage.status)
        ready = [worker["pid"] for worker in status["workers"] if worker["state"] == "ready"]
        # The other one is needed: an item that loses two workers is taken for their killer.
        if len(ready) == len(status["workers"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(ledger.random.choice(ready), signal.SIGKILL)
                kills += 1
    return kills


def measure(members: list[Member]) -> dict[str, dict[str, float]]:
    """Memory and descriptors of the server processes; workers come and go."""
    fronts = {member.section: member.front for member in members}
    return {
        name: {
            "memory_mb": round(front.memory_info().rss / 2**20, 1),
            "peak_mb": peak_mb(front.pid),
            "descriptors": front.num_fds(),
        }
        for name, front in fronts.items()
    }


def peak_mb(pid: int) -> float:
    """The most that a process ever had, as the kernel kept it: no moment is missed."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None, "every process has one"
    return round(int(found[1]) / 2**10, 1)


def bounds_mb() -> dict[str, float]:
    """The most that each front may have."""
    stage = StageConfig(port=0, operations_port=0).queue_bytes / 2**20 + STAGE_MARGIN_MB
    return {
        "detection": stage,
        "recognition": stage,
        "orchestrator": ORCHESTRATOR_BUDGET_MB / ORCHESTRATOR_SHARE,
    }


async def run(seconds: float, requests: int, seed: int, folder: Path) -> dict[str, Any]:
    """Start, load, stop; returns the account."""
    ledger, over = Ledger(random.Random(seed)), asyncio.Event()
    stage = {"MAX_BATCH": "8", "BATCH_TIMEOUT_S": "10", "LOG_LEVEL": "warning"}
    budget = {"MEMORY_BYTES": str(ORCHESTRATOR_BUDGET_MB * 2**20), "LOG_LEVEL": "warning"}
    with Fleet(folder) as fleet:
        (detection,), (recognition,), orchestrator = fleet.cluster(
            settings={"detection": stage, "recognition": stage, "orchestrator": budget}
        )
        channels = [grpc.aio.insecure_channel(orchestrator.address, options=OPTIONS) for _ in range(3)]
        callers = [Caller(channel) for channel in channels]
        started_s = time.monotonic()
        tasks = [asyncio.create_task(stream(callers[0], ledger, over)) for _ in range(STREAMS)]
        tasks += [asyncio.create_task(single(callers[1], ledger, over)) for _ in range(SINGLES)]
        tasks += [asyncio.create_task(canceller(callers[2], ledger, over)) for _ in range(CANCELLERS)]
        killing = asyncio.create_task(killer([detection, recognition], ledger, over))
        before: dict[str, dict[str, float]] | None = None
        told_s = 0.0
        while (elapsed_s := time.monotonic() - started_s) < seconds and not (requests and ledger.asked >= requests):
            if before is None and max(elapsed_s / seconds, ledger.asked / (requests or math.inf)) >= WARM_SHARE:
                before = measure(fleet.members)
            await asyncio.sleep(0.5)
            if elapsed_s - told_s >= 30:
                told_s = elapsed_s
                held = ", ".join(f"{name} {row['memory_mb']:.0f} MB" for name, row in measure(fleet.members).items())
                print(
                    f"{elapsed_s:5.0f} s  {ledger.asked} asked, {ledger.ended} ended; {held}",
                    file=sys.stderr,
                    flush=True,
                )
            crashed = next((task for task in tasks if task.done()), None)
            if crashed is not None:
                crashed.result()
        elapsed_s = time.monotonic() - started_s
        over.set()
        await asyncio.gather(*tasks)
        kills = await killing
        after = measure(fleet.members)
        idle = await idle_status(orchestrator)
        for channel in channels:
            await channel.close()
        restarts = sum(line.count(" ended: ") for line in (detection.log, recognition.log))
    # Leaving the fleet has asserted exit code 0 of each server, and that no process is left.
    found = account(
        ledger, elapsed_s=elapsed_s, kills=kills, deaths=restarts, before=before or after, after=after, idle=idle
    )
    if ledger.asked < requests:
        found["faults"].append(f"only {ledger.asked} of {requests} requests within {seconds:.0f} s")
    return found


async def idle_status(orchestrator: Member) -> dict[str, object]:
    """What the orchestrator still holds once every client is done."""
    for _ in range(100):
        status = await asyncio.to_thread(orchestrator.status)
        held = {
            "jobs": status["jobs"],
            "bytes": status["memory"]["held_bytes"],
            "sources_waiting": status["sources_waiting"],
        }
        if not any(held.values()):
            break
        await asyncio.sleep(0.05)
    return held


def account(
    ledger: Ledger,
    *,
    elapsed_s: float,
    kills: int,
    deaths: int,
    before: dict[str, dict[str, float]],
    after: dict[str, dict[str, float]],
    idle: dict[str, object],
) -> dict[str, Any]:
    """The figures, and what is wrong with them."""
    faults = []
    if ledger.asked != ledger.ended + ledger.given_up:
        faults.append(f"{ledger.asked} asked, {ledger.ended} ended and {ledger.given_up} given up do not add up")
    faults += [f"{len(ledger.lost)} lost"] if ledger.lost else []
    faults += [f"{len(ledger.doubled)} doubled"] if ledger.doubled else []
    faults += [f"{len(ledger.wrong)} wrong, such as {ledger.wrong[0]}"] if ledger.wrong else []
    faults += [f"the orchestrator still holds {idle}"] if any(idle.values()) else []
    faults += ["no worker was killed"] if elapsed_s > 3 * KILL_EVERY_S and not kills else []
    bounds = bounds_mb()
    for name, start in before.items():
        end = after[name]
        if end["peak_mb"] > bounds[name]:
            faults.append(f"{name} had {end['peak_mb']} MB, more than its bound of {bounds[name]:.0f} MB")
        if end["memory_mb"] > start["memory_mb"] * (1 + MAX_GROWTH) + MAX_GROWTH_MB:
            faults.append(f"memory of {name} grew from {start['memory_mb']} to {end['memory_mb']} MB")
        if end["descriptors"] > start["descriptors"] + MAX_MORE_DESCRIPTORS:
            faults.append(f"descriptors of {name} grew from {start['descriptors']:.0f} to {end['descriptors']:.0f}")
    return {
        "seconds": round(elapsed_s, 1),
        "requests": ledger.asked,
        "ends": dict(ledger.ends.most_common()),
        "lost": len(ledger.lost),
        "doubled": len(ledger.doubled),
        "wrong": ledger.wrong[:10],
        "workers_killed": kills,
        "workers_ended": deaths,
        "start": before,
        "end": after,
        "bounds_mb": bounds,
        "faults": faults,
    }


def report(found: dict[str, Any]) -> None:
    """For people."""
    print(f"requests       {found['requests']} in {found['seconds']} s")
    for kind, count in found["ends"].items():
        print(f"  {count:>9} {kind}")
    print(f"lost           {found['lost']}")
    print(f"doubled        {found['doubled']}")
    print(f"workers        {found['workers_killed']} killed from outside, {found['workers_ended']} ended in all")
    for name, start in found["start"].items():
        end = found["end"][name]
        print(
            f"{name:<14} memory {start['memory_mb']:.0f} MB at the start, {end['memory_mb']:.0f} MB at the end, "
            f"{end['peak_mb']:.0f} MB at most (bound {found['bounds_mb'][name]:.0f} MB); "
            f"descriptors {start['descriptors']:.0f}, {end['descriptors']:.0f}"
        )
    for fault in found["faults"]:
        print(f"FAULT          {fault}")
    print("passed" if not found["faults"] else "FAILED")


def main() -> int:
    """Run, print the account, and say by exit code whether it is clean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="the longest")
    parser.add_argument("--requests", type=int, default=0, help="over as soon as there were so many; fewer are a fault")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=Path, default=Path("out/soak.json"))
    arguments = parser.parse_args()
    print(f"seed           {arguments.seed}")
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(run(arguments.seconds, arguments.requests, arguments.seed, Path(folder)))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1))
    report(found)
    return 0 if not found["faults"] else 1


if __name__ == "__main__":
    sys.exit(main())
