"""What a pool needs of a worker, be it a process or a thread in a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sluiceway_runtime.pool.transport.messages import FromWorker, Run

__all__ = ["Ended", "Heard", "Link"]

# Called on the event loop, in the order in which things happened; `Ended` last, once, with the reason and the ids of
# batches that were handed over and never reached the worker.
Heard = Callable[[FromWorker], None]
Ended = Callable[[str, frozenset[int]], None]


class Link(Protocol):
    """The front's side of one worker. None of these block or wait, except `wait_ended`."""

    @property
    def pid(self) -> int | None:
        """Process id, None before it is known."""
        ...

    def send(self, run: Run) -> None:
        """Hand a batch over.

        Raises:
            OSError: no descriptor or memory is left for it.
            Exception: it cannot be pickled.
        """
        ...

    def stop(self) -> None:
        """Ask the worker to exit after its current batch."""
        ...

    def kill(self) -> None:
        """End the worker now."""
        ...

    async def wait_ended(self) -> None:
        """Wait until `Ended` was called and nothing is left."""
        ...
