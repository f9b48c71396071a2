"""How often the servers wake up: for an image, and while nothing is asked of them.

A wake-up costs little by itself, but on a machine with neighbours each waits for its turn. The kernel counts them; no
neighbour can spoil that figure. What remains, and why, is in docs/performance.md.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from switches import switches

from sluiceway import Client

IMAGES = 40
WARM_UP = 10
# Of all three together, and of each; how many regions an image has changes little, as they travel together.
MOST_AN_IMAGE = 60
MOST_OF_EACH = {"orchestrator": 34, "detection": 14, "recognition": 18}
IDLE_S = 15.0
# Threads of gRPC that look for work by themselves, nine to fourteen times a second in all; it has no setting for that.
OF_GRPC = {"event_engine", "grpc_global_tim", "lifeguard"}
MOST_A_SECOND = 2.0


def pids(up: Any) -> dict[str, int]:
    return {name: process.pid for name, process in up.servers().items()}


def rates(before: dict[str, Counter[str]], after: dict[str, Counter[str]], parts: float) -> dict[str, Counter[str]]:
    """By server and thread, for each of so many images or seconds."""
    return {
        name: Counter({thread: round(count / parts, 2) for thread, count in (counts - before[name]).items()})
        for name, counts in after.items()
    }


def test_wake_ups_an_image(up: Any, samples: Path) -> None:
    image = (samples / "bus.jpg").read_bytes()
    with Client(up.address) as client:
        for _ in range(WARM_UP):
            assert client.process(image).regions
        before = switches(pids(up))
        for _ in range(IMAGES):
            client.process(image)
        found = rates(before, switches(pids(up)), IMAGES)
    for name, most in MOST_OF_EACH.items():
        assert found[name].total() <= most, found
    assert sum(threads.total() for threads in found.values()) <= MOST_AN_IMAGE, found


def own(threads: Counter[str]) -> float:
    return sum(count for thread, count in threads.items() if thread not in OF_GRPC)


def test_wake_ups_of_idle_servers(up: Any) -> None:
    # What was done before comes to rest first.
    deadline_s = time.monotonic() + 90
    while True:
        before, begun_s = switches(pids(up)), time.monotonic()
        time.sleep(IDLE_S)
        found = rates(before, switches(pids(up)), time.monotonic() - begun_s)
        assert any(OF_GRPC & threads.keys() for threads in found.values()), "its threads have other names now"
        if all(own(threads) <= MOST_A_SECOND for threads in found.values()):
            return
        assert time.monotonic() < deadline_s, found
