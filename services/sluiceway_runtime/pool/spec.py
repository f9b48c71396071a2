"""What the workers of a pool run, and where: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.logs import LogStyle

__all__ = ["WorkerSpec"]


@dataclass(frozen=True)
class WorkerSpec:
    """The workers of a pool.

    Attributes:
        factory: the handler as `module:callable`; the callable takes `config`.
        config: picklable, handed to every worker.
        placements: one for each worker.
        credits: batches that a worker may hold. 1 on a CPU. With 2 or 3 the next batch is already there when the worker
            finishes one, which matters where the gap is long beside the computation (GPUs).
        overlap: batches that a worker may have begun at once, if its handler can `launch`; at most `credits`.
        log: of the front; a worker logs likewise.
    """

    factory: str
    config: Mapping[str, Any]
    placements: tuple[Placement, ...]
    credits: int = 1
    overlap: int = 1
    log: LogStyle = field(default_factory=partial(LogStyle, "pool"))

    def __post_init__(self) -> None:
        if not self.placements:
            raise ValueError("a pool needs at least one placement")
        if self.credits < 1:
            raise ValueError("credits must be at least 1")
        if not 1 <= self.overlap <= self.credits:
            raise ValueError("overlap must be at least 1 and at most credits")
