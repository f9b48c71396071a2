"""What a pool needs of a worker, be it a process or a thread in a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from sluiceway_runtime.pool.transport.messages import FromWorker, Recall, Run

__all__ = ["End", "Ended", "Heard", "Link"]


class End(NamedTuple):
    """How a worker ended.

    Attributes:
        reason: for people.
        never_reached: ids of batches that were handed over and did not come to it.
        broken: it had said that it can compute no more.
    """

    reason: str
    never_reached: frozenset[int] = frozenset()
    broken: bool = False


# Called on the event loop, in the order in which things happened; `Ended` last, and once.
Heard = Callable[[FromWorker], None]
Ended = Callable[[End], None]


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

    def recall(self, recall: Recall) -> None:
        """Say what is not wanted any more of a batch that was handed over."""
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
