"""One request's crops through the pool: fed in as there is room, answered as they are done, withdrawn when unwanted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import Cancelled, DeadlineExceeded, QueueFull, SluicewayError, Unavailable
from sluiceway_runtime.pool import Outcome, Payload, Priority

from sluiceway_recognition.types import Answer

__all__ = ["CropResult", "PoolLike", "QueuedCrop", "recognise"]

# These concern the server or the request, not the crop that happened to meet them: they end the whole call.
_OF_THE_CALL = (Unavailable, DeadlineExceeded, QueueFull, Cancelled)
# Where a refusal does not say when to come back.
_RETRY_S = 0.02


@dataclass(frozen=True, slots=True)
class QueuedCrop:
    """A crop to compute, or one that is known not to be computable.

    Attributes:
        crop_id: of the request.
        payload: for a worker, or the crop's own error.
        group: crops of one group may share a batch.
        cost_px: pixels to compute.
    """

    crop_id: int
    payload: Payload | SluicewayError
    group: Hashable = None
    cost_px: int = 1


@dataclass(frozen=True, slots=True)
class CropResult:
    """A crop that is done. Times are 0 for one that never reached a worker."""

    crop_id: int
    result: Answer | SluicewayError
    queue_ms: float = 0.0
    compute_ms: float = 0.0


class PoolLike(Protocol):
    """What is used of `sluiceway_runtime.pool.Pool`."""

    def submit(
        self,
        payload: Payload,
        *,
        request_id: str,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        group: Hashable = None,
        cost: int = 1,
    ) -> asyncio.Future[Outcome]:
        """See `Pool.submit`."""
        ...


async def recognise(
    pool: PoolLike,
    crops: Sequence[QueuedCrop],
    *,
    request_id: str,
    deadline: Deadline,
    priority: Priority,
    window: int,
) -> AsyncGenerator[list[CropResult], None]:
    """Compute crops; yields those that are done, together only where they are ready together.

    A request is refused as a whole or taken as a whole: QUEUE_FULL ends it only while none of its crops was accepted.
    Later crops wait here until there is room, so a page with more words than the queue has places is read all the same.

    Args:
        pool: computes.
        crops: of one request.
        request_id: for fairness and logs.
        deadline: of the request.
        priority: of the request.
        window: most crops of this request in the pool at once; leaves room for other requests.

    Raises:
        QueueFull, Unavailable, DeadlineExceeded: the call as a whole failed; what was yielded stays valid.

    Cancellation:
        Closing the generator, or any exception, withdraws every crop that was not answered. Close it explicitly
        (`contextlib.aclosing`).
    """
    ready = [CropResult(crop.crop_id, crop.payload) for crop in crops if isinstance(crop.payload, SluicewayError)]
    waiting = deque(crop for crop in crops if not isinstance(crop.payload, SluicewayError))
    running: dict[asyncio.Future[Outcome], int] = {}
    finished: deque[asyncio.Future[Outcome]] = deque()
    wake = asyncio.Event()
    admitted = False

    def on_done(future: asyncio.Future[Outcome]) -> None:
        finished.append(future)
        wake.set()

    try:
        while waiting or running or ready:
            retry_s: float | None = None
            while waiting and len(running) < window:
                crop = waiting[0]
                assert isinstance(crop.payload, Payload)
                try:
                    future = pool.submit(
                        crop.payload,
                        request_id=request_id,
                        deadline=deadline,
                        priority=priority,
                        group=crop.group,
                        cost=crop.cost_px,
                    )
                except QueueFull as error:
                    if not admitted:
                        raise
                    retry_s = error.retry_after_s or _RETRY_S
                    break
                except _OF_THE_CALL:
                    raise
                except SluicewayError as error:
                    # Known to kill workers, perhaps: this crop fails, its neighbours do not.
                    waiting.popleft()
                    ready.append(CropResult(crop.crop_id, error))
                    continue
                waiting.popleft()
                admitted = True
                running[future] = crop.crop_id
                future.add_done_callback(on_done)
            if ready:
                yield ready
                ready = []
            if running or waiting:
                await _wait(wake, None if running else retry_s)
            while finished:
                future = finished.popleft()
                ready.append(_result(running.pop(future), future))
    finally:
        for future in running:
            future.remove_done_callback(on_done)
            if not future.cancel() and not future.cancelled():
                future.exception()  # seen, though nobody waits: asyncio would log it as forgotten


async def _wait(wake: asyncio.Event, timeout_s: float | None) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await wake.wait()
    except TimeoutError:
        return
    wake.clear()


def _result(crop_id: int, future: asyncio.Future[Outcome]) -> CropResult:
    if future.cancelled():
        raise Cancelled("the crop was withdrawn")
    error = future.exception()
    if error is None:
        outcome = future.result()
        return CropResult(crop_id, outcome.payload.meta, outcome.queue_ms, outcome.compute_ms)
    if isinstance(error, SluicewayError) and not isinstance(error, _OF_THE_CALL):
        return CropResult(crop_id, error)
    raise error
