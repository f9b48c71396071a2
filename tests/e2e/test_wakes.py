"""How often the servers wake up: for an image, and while nothing is asked of them.

A wake-up costs little by itself, but on a machine with neighbours each waits for its turn. The kernel counts them; no
neighbour can spoil that figure. What remains, and why, is in docs/performance.md.
"""

from __future__ import annotations

import os
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
# Of these the servers' own are a half; the others are those of gRPC's threads, which in an orchestrator may not be as
# late as in a stage. They are four to sixteen, as many as the machine has cores, and each looks for work.
MOST_A_SECOND = {"orchestrator": 8.5, "detection": 2.5, "recognition": 2.5}
MORE_BY_CORE = 0.35


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


def test_wake_ups_of_idle_servers(up: Any) -> None:
    more = MORE_BY_CORE * min(12, max(0, (os.cpu_count() or 4) - 4))
    # What was done before comes to rest first: gRPC looks ever more rarely whether there is work for its threads.
    deadline_s = time.monotonic() + 90
    while True:
        before, begun_s = switches(pids(up)), time.monotonic()
        time.sleep(IDLE_S)
        found = rates(before, switches(pids(up)), time.monotonic() - begun_s)
        if all(found[name].total() <= most + more for name, most in MOST_A_SECOND.items()):
            return
        assert time.monotonic() < deadline_s, found
