"""Whether caps on threads hold, found by looking."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from sluiceway_runtime.cores import measure_threads, selfcheck, verify_threads
from sluiceway_runtime.errors import StartupError

# Programs of their own look until they have seen enough, which takes minutes on a busy machine.
pytestmark = pytest.mark.timeout(300)

NOISE = np.random.default_rng(1).integers(0, 255, 2**17, np.uint8).tobytes()


def compute() -> None:
    zlib.compress(NOISE)


@pytest.fixture
def spinners() -> Iterator[None]:
    """Two threads that never rest."""
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            compute()

    threads = [threading.Thread(target=spin, name="spinner") for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few looks say nothing; on a machine that stands still now and then, it takes longer to have enough."""
    monkeypatch.setattr(selfcheck, "MOST_S", 20.0)


def run_alone(program: str) -> str:
    """What a program prints in a process of its own, without the threads that other tests may have left in this one."""
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    ).stdout.strip()


def test_one_thread_is_one() -> None:
    told = run_alone(
        "import os, zlib\nfrom sluiceway_runtime.cores import selfcheck, verify_threads\n"
        "selfcheck.MOST_S, noise = 20.0, os.urandom(2**17)\n"
        "use = verify_threads(lambda: zlib.compress(noise), 1, worker=0)\n"
        "print(use.busy, use.extra, use.samples >= 40)"
    )
    assert told == "1 () True"


def test_threads_beyond_the_cap_fail_the_start_and_are_named(spinners: None) -> None:
    with pytest.raises(StartupError, match=r"worker 3 keeps [23] threads busy at once where 1 may.*spinner.*= [23]"):
        verify_threads(compute, 1, worker=3)
    # One less where a look falls between two computations.
    assert verify_threads(compute, 3, worker=0).busy in (2, 3)


TURNS = """
import itertools, os, threading, zlib
from concurrent.futures import ThreadPoolExecutor
from sluiceway_runtime.cores import selfcheck, verify_threads

selfcheck.MOST_S = 20.0
looks, look = itertools.count(1), selfcheck._busy_threads
looked, noise = 0, os.urandom(2**18)

def counted():
    global looked
    looked = next(looks)
    return look()

def turn(goal):
    "Compute until the check has looked so often. It looks at no warm-up."
    zlib.compress(noise)
    while looked < goal and "thread-check" in [thread.name for thread in threading.enumerate()]:
        zlib.compress(noise)

selfcheck._busy_threads = counted
with ThreadPoolExecutor(1) as other:
    {work}
    print(verify_threads(work, {threads}, worker=0).busy)
"""


@pytest.mark.parametrize(
    ("work", "threads", "busy"),
    [
        ("work = lambda: (turn(looked + 20), other.submit(turn, looked + 20).result())", 1, "1"),
        ("work = lambda: (there := other.submit(turn, goal := looked + 20), turn(goal), there.result())", 2, "2"),
    ],
    ids=["one after the other", "at once"],
)
def test_threads_that_take_turns_are_one(work: str, threads: int, busy: str) -> None:
    """On a busy machine both are there for a moment at each change, as the one that is done has to get a core to rest.

    So a turn lasts for some looks of the check, which is as slow as they are on such a machine. And it computes much at
    a time: who waits for the interpreter's lock, which another may hold without a core, is not seen as busy.
    """
    assert run_alone(TURNS.format(work=work, threads=threads)) == busy


def test_waiting_is_not_being_busy() -> None:
    use = measure_threads(lambda: threading.Event().wait(0.02))
    assert use.busy == 0


def test_what_the_work_raises_is_raised_and_nothing_is_left() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        measure_threads(fail)
    assert "thread-check" not in {thread.name for thread in threading.enumerate()}


def test_neighbours_on_the_same_core_change_nothing() -> None:
    """Four processes burn the core that the check runs on: it sees one thread of its own, and no fault."""
    core = min(os.sched_getaffinity(0))
    pin = f"import os; os.sched_setaffinity(0, [{core}])\n"
    burners = [subprocess.Popen([sys.executable, "-c", f"{pin}while True: pass"]) for _ in range(4)]
    try:
        told = run_alone(
            f"{pin}from thread_models import compute\nfrom sluiceway_runtime.cores import verify_threads\n"
            "print(verify_threads(compute, 1, worker=0).busy)"
        )
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    # So disturbed, it may have had too few looks to say anything; it must not say anything wrong.
    assert told in ("1", "None")
