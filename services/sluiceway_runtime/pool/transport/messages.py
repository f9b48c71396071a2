"""What the front and a worker say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pickle import PickleBuffer
from typing import Any, NamedTuple

from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.logs import LogStyle
from sluiceway_runtime.pool.payload import Payload

__all__ = [
    "FromWorker",
    "ToWorker",
    "Broken",
    "Leaving",
    "Lost",
    "Raised",
    "Ready",
    "Recall",
    "Result",
    "Run",
    "Start",
    "StartFailed",
    "Unmap",
]


@dataclass(frozen=True, slots=True)
class Start:
    """Front to worker, first and once.

    `import_path` is the front's `sys.path`, so that whatever name the front's user may import is found here too.
    """

    factory: str
    config: Mapping[str, Any]
    placement: Placement
    import_path: tuple[str, ...]
    overlap: int
    log: LogStyle


@dataclass(frozen=True, slots=True)
class Run:
    """Front to worker: compute this batch after those sent before."""

    batch_id: int
    batch: tuple[Payload, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        # By columns, which takes half the time of a call for each payload.
        return _run, (
            self.batch_id,
            [payload.meta for payload in self.batch],
            [len(payload.buffers) for payload in self.batch],
            [PickleBuffer(buffer) for payload in self.batch for buffer in payload.buffers],
        )


def _run(batch_id: int, metas: list[Any], counts: list[int], buffers: list[Any]) -> Run:
    left = iter(buffers)
    return Run(batch_id, tuple([Payload(meta, tuple(islice(left, n))) for meta, n in zip(metas, counts, strict=True)]))


@dataclass(frozen=True, slots=True)
class Recall:
    """Front to worker: nobody waits any more for the items at these positions of a batch, if it has not begun it."""

    batch_id: int
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unmap:
    """Front to worker: these arenas are gone."""

    arenas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker to front: warmed up."""

    facts: Mapping[str, Any]
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """Worker to front: setup raised; the process ends."""

    message: str


class Result(NamedTuple):
    """Worker to front: the batch was computed; None stands for an item that was recalled before."""

    batch_id: int
    results: tuple[Payload | SluicewayError | None, ...]
    compute_ms: float
    memory_bytes: int

    def __reduce__(self) -> tuple[Any, ...]:
        # By columns, as in `Run`; what is no payload stands in the place of the facts, and says so by its count.
        metas: list[Any] = []
        counts: list[int] = []
        buffers: list[PickleBuffer] = []
        for result in self.results:
            if isinstance(result, Payload):
                meta, its = result
                metas.append(meta)
                counts.append(len(its))
                buffers += map(PickleBuffer, its)
            else:
                metas.append(result)
                counts.append(_NO_PAYLOAD)
        return _result, (self.batch_id, (metas, counts, buffers), self.compute_ms, self.memory_bytes)


_NO_PAYLOAD = -1


def _result(
    batch_id: int, columns: tuple[list[Any], list[int], list[Any]], compute_ms: float, memory_bytes: int
) -> Result:
    metas, counts, buffers = columns
    if buffers or _NO_PAYLOAD in counts:
        left = iter(buffers)
        results = [
            meta if count == _NO_PAYLOAD else Payload(meta, tuple(islice(left, count)))
            for meta, count in zip(metas, counts, strict=True)
        ]
    else:
        results = list(map(Payload, metas))
    return Result(batch_id, tuple(results), compute_ms, memory_bytes)


@dataclass(frozen=True, slots=True)
class Raised:
    """Worker to front: the handler raised, or its results could not be sent."""

    batch_id: int
    message: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The batch or its results were lost on the way for want of descriptors or memory. Either side may find it."""

    batch_id: int
    message: str


@dataclass(frozen=True, slots=True)
class Leaving:
    """Worker to front: asked to exit; no further batch is begun."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Worker to front: it can compute no more, as where its device is lost, and ends."""


FromWorker = Ready | StartFailed | Result | Raised | Lost | Leaving | Broken
ToWorker = Start | Run | Recall | Unmap
