"""The machine fails its servers: disks full, no descriptors left, a clock that jumps. Real processes throughout."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import grpc.aio
import numpy as np
import psutil
import pytest
from ledger_client import OPTIONS, Answer, Load, calling
from ledger_models import Deed
from server_processes import Fleet
from waiting import wait_until

from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc

READY = grpc.ChannelConnectivity.READY
pytestmark = pytest.mark.timeout(400)

# Disk full


async def test_disk_full_for_logs(tmp_path: Path) -> None:
    """Every line that a server or a worker writes fails with ENOSPC; requests do not notice, nor does the stop."""
    with Fleet(tmp_path) as fleet:
        loud = {section: {"LOG_LEVEL": "debug"} for section in ("detection", "recognition", "orchestrator")}
        _, _, orchestrator = fleet.cluster(settings=loud, log=Path("/dev/full"))
        async with calling(orchestrator.address) as caller, Load(caller, clients=4) as load:
            await load.more(50)
            # These want to write a traceback, in a worker and in a front.
            assert (await caller.ask(1, 1, Deed.RAISE)).reason == "MODEL_FAILED"
            assert (await caller.ask(2, 1, Deed.CRASH)).reason == "QUARANTINED"
            await load.more(50)
        assert not load.wrong
        # Leaving the fleet asserts exit code 0 of each.


PULL = """
import sys
from pathlib import Path
from sluiceway_runtime import weights
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.weights.registry import parse_registry
try:
    weights.pull("reader", cache=Path(sys.argv[1]), registry=parse_registry(Path(sys.argv[2]).read_text()))
except StartupError as error:
    print(error)
    sys.exit(3)
"""
MODEL_BYTES = 120_000
# On a nearly full disk, and then on the same disk after somebody made room.
TWICE = """
mount -t tmpfs -o size={full} none cache && mkdir -p cache/models && echo before > cache/models/kept || exit 9
"$@"; echo "code $?"; find cache -type f
mount -o remount,size=4m cache || exit 9
"$@"; echo "code $?"; find cache -type f -size +100k
"""
TWICE_LIMITED = """
mkdir -p cache/models && echo before > cache/models/kept || exit 9
prlimit --fsize={full} "$@"; echo "code $?"; find cache -type f
"$@"; echo "code $?"; find cache -type f -size +100k
"""


def paperweight(folder: Path) -> Path:
    """A wheel with weights that cannot be compressed, and the registry that names it."""
    model = np.random.default_rng(2).bytes(MODEL_BYTES)
    info = "paperweight-1.2.0.dist-info"
    files = {
        "paperweight/rec.onnx": model,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: paperweight\nVersion: 1.2.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / "paperweight-1.2.0-py3-none-any.whl", "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD")))
    registry = folder / "registry.toml"
    registry.write_text(
        '[models.reader]\nkind = "recognition"\npackage = "paperweight"\nversion = "1.2.0"\ntitle = "t"\n'
        'licence = "MIT"\nsource = "s"\n[models.reader.files.model]\nmember = "paperweight/rec.onnx"\n'
        f'sha256 = "{hashlib.sha256(model).hexdigest()}"\n'
    )
    return registry


@pytest.mark.parametrize("full", [60_000, 200_000], ids=["while downloading", "while unpacking"])
def test_disk_full_for_the_model_cache(full: int, tmp_path: Path) -> None:
    """The pull says so and leaves nothing half done and nothing of before undone; with room it succeeds."""
    registry = paperweight(tmp_path)
    (tmp_path / "cache").mkdir()
    own_mounts = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*own_mounts, "true"], check=False, capture_output=True).returncode == 0:
        shell = [*own_mounts, "sh", "-c", TWICE.format(full=full), "sh"]
    else:
        # Where nobody may mount: no file may grow beyond this. Both meet the same code with another number.
        shell = ["sh", "-c", TWICE_LIMITED.format(full=min(full, MODEL_BYTES - 1)), "sh"]
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    done = subprocess.run(
        [*shell, sys.executable, "-c", PULL, "cache", str(registry)],
        cwd=tmp_path, env=os.environ | pip, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    first, _, second = done.stdout.partition("code 3\n")
    assert "Traceback" not in done.stderr
    assert "paperweight" in first or "space" in first or "cache" in first, done.stdout
    left, _, _ = second.partition("code 0")
    assert set(left.split()) <= {"cache/models/kept", "cache/partial/paperweight-1.2.0.lock"}, left
    assert "cache/models/reader-1.2.0/rec.onnx" in second.partition("code 0")[2], done.stdout


# Descriptors


async def test_without_descriptors_calls_are_refused_and_later_ones_served(tmp_path: Path) -> None:
    """A detection server that may open three more files, and clients that connect until it cannot take another."""
    with Fleet(tmp_path) as fleet:
        settings = {"detection": {"QUEUE_ITEMS": "16"}}
        (detection,), _, orchestrator = fleet.cluster(settings=settings)
        # Big pictures travel in memory of their own, a descriptor each.
        big = noise()
        async with calling(orchestrator.address) as caller:
            await caller.expect(1)
            soft, hard = psutil.Process(detection.process.pid).rlimit(psutil.RLIMIT_NOFILE)
            connected = grpc.aio.insecure_channel(detection.address, options=OPTIONS)
            direct = detection_pb2_grpc.DetectionServiceStub(connected)
            await direct.Describe(detection_pb2.DescribeRequest())
            # The limit is on numbers, not on how many: below it there are three that are not taken.
            few = sorted(set(range(1000)) - open_numbers(detection.front))[2] + 1
            detection.front.rlimit(psutil.RLIMIT_NOFILE, (few, hard))
            held = [grpc.aio.insecure_channel(detection.address, options=OPTIONS) for _ in range(30)]
            try:
                for channel in held:
                    channel.get_state(try_to_connect=True)
                taken = lambda: set(range(few)) <= open_numbers(detection.front)  # noqa: E731 - used once
                await asyncio.to_thread(wait_until, taken, what="descriptors are left")
                answers = await asyncio.gather(*(caller.send(big, timeout_s=3) for _ in range(12)))
                check_refusals(answers)
                assert any(channel.get_state() is not READY for channel in held), "the limit was not met"
            finally:
                for channel in (connected, *held):
                    await channel.close()
            # The limit still stands; those that hoarded are gone.
            await caller.expect_soon(2)
            detection.front.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
            answers = await asyncio.gather(*(caller.send(big) for _ in range(12)))
            assert [answer.reason for answer in answers] == ["OK"] * 12
        assert detection.process.poll() is None


def open_numbers(process: psutil.Process) -> set[int]:
    return {int(entry.name) for entry in Path(f"/proc/{process.pid}/fd").iterdir()}


def check_refusals(answers: list[Answer]) -> None:
    refusals = {"UNAVAILABLE", "QUEUE_FULL", "DEADLINE_EXCEEDED"}
    assert {answer.reason for answer in answers} <= {"OK", *refusals}, answers
    assert any(answer.reason in refusals for answer in answers), "no call met the limit"
    assert all(answer.ended_once for answer in answers)


def noise() -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (300, 300, 3), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


# Clocks

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile int64_t *offset_s;

__attribute__((constructor)) static void open_offset(void) {
    const char *path = getenv("CLOCK_OFFSET");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file >= 0) offset_s = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
}
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, at);
    if (!result && offset_s && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += *offset_s;
    return result;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec, at->tv_usec = now.tv_nsec / 1000;
    return result;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""
# For machines without a compiler: the same in every interpreter, though not in its native libraries.
SITE = """
import datetime, mmap, os, struct, time
_map = mmap.mmap(os.open(os.environ["CLOCK_OFFSET"], os.O_RDONLY), 8, prot=mmap.PROT_READ)
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + struct.unpack("q", _map)[0]
time.time_ns = lambda: _time_ns() + struct.unpack("q", _map)[0] * 10**9
"""


def clock_environment(folder: Path) -> tuple[Path, dict[str, str]]:
    """Variables that make a process, all its libraries included, add to the time of day what a file says."""
    offset = folder / "offset"
    set_clock(offset, 0)
    compiler = shutil.which("cc")
    if compiler is None:
        (folder / "sitecustomize.py").write_text(SITE)
        here = os.environ.get("PYTHONPATH", "")
        return offset, {
            "CLOCK_OFFSET": str(offset),
            "PYTHONPATH": f"{folder}:{Path(__file__).parents[1] / 'support'}:{here}",
        }
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "shim.c", "-ldl"], check=True)
    return offset, {"CLOCK_OFFSET": str(offset), "LD_PRELOAD": str(library)}


def set_clock(file: Path, seconds: int) -> None:
    # In place, since processes have it mapped.
    with file.open("r+b" if file.exists() else "wb") as out:
        out.write(struct.pack("q", seconds))


def test_the_shim_moves_the_clock_of_a_process(tmp_path: Path) -> None:
    offset, environment = clock_environment(tmp_path)
    set_clock(offset, 86_400)
    said = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time(), time.monotonic())"],
        env=os.environ | environment, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert abs(float(said[0]) - time.time() - 86_400) < 60
    assert abs(float(said[1]) - time.monotonic()) < 60


async def test_clock_jumps_of_a_day_both_ways_change_nothing(tmp_path: Path) -> None:
    """Deadlines, queues, watchdogs, keepalive and health all run on time that does not jump."""
    offset, environment = clock_environment(tmp_path)
    with Fleet(tmp_path) as fleet:
        # Far less than the clock jumps, and far more than the slowest batch takes.
        quick = {"BATCH_TIMEOUT_S": "20"}
        members = fleet.cluster(settings={"detection": quick, "recognition": quick}, environment=environment)
        (detection,), (recognition,), orchestrator = members
        before = [worker["pid"] for stage in (detection, recognition) for worker in stage.status()["workers"]]
        async with calling(orchestrator.address) as caller, Load(caller, clients=6) as load:
            reasons = []
            for seconds in (86_400, -86_400, 3_600, 0):
                await load.more(20)
                slow = asyncio.create_task(caller.ask(1, 1, Deed.SLOW, 300, timeout_s=20))
                await asyncio.sleep(0.1)
                set_clock(offset, seconds)
                # A picture that was being computed when the clock jumped, and one whose time runs out after it.
                assert (await slow).is_right(1, 1)
                late = await caller.ask(2, 1, Deed.SLOW, 3000, timeout_s=2)
                assert late.took_s < 20
                if late.reason == "QUEUE_FULL":
                    # Those before it were slow, so that it would have to wait for too long.
                    assert late.retry_after_s
                else:
                    assert late.reason == "DEADLINE_EXCEEDED"
                    assert late.took_s > 1.5
                reasons.append(late.reason)
            assert "DEADLINE_EXCEEDED" in reasons
            await load.more(20)
        assert not load.wrong
        after = [worker["pid"] for stage in (detection, recognition) for worker in stage.status()["workers"]]
        assert after == before, "a watchdog believed the clock"
