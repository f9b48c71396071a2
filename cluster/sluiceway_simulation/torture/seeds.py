"""What each process that runs seeds does. A process that is spawned finds nothing that stands in a `__main__`."""

from __future__ import annotations

import gc
from dataclasses import replace

from sluiceway_simulation.torture.swarm import draw
from sluiceway_simulation.torture.trial import Verdict, run

__all__ = ["one", "prepare"]


def one(seed: int) -> Verdict:
    """Run a seed; the story is told by whoever runs it again."""
    return replace(run(draw(seed)), story=[])


def prepare() -> None:
    """What has been imported stays: looking for rubbish in it is a quarter of a small trial."""
    gc.collect()
    gc.freeze()
