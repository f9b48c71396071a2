"""Items given to a pool together, and what comes back for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.pool.payload import Payload
from sluiceway_runtime.pool.policy import actions
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.recorder import current_call

__all__ = ["Answers", "Outcome", "Submission", "Work", "fail", "refuse", "succeed"]


class Work(NamedTuple):
    """One item to compute.

    Attributes:
        payload: must not change until the item is answered.
        group: only items of one group share a batch (a width, a model).
        cost: summed against `max_batch_cost` (pixels).
    """

    payload: Payload
    group: Hashable = None
    cost: int = 1


class Answers(NamedTuple):
    """Answers to some items of a submission that came together.

    Attributes:
        positions: of the items in the submission.
        results: one for each: what the handler returned, or why there is nothing.
        queue_ms: from `submit_many` until the batch went to the worker; 0 for items that were not computed.
        compute_ms: the handler's time for the whole batch.
        worker: index of the worker, -1 for items that were not computed.
    """

    positions: list[int]
    results: list[Payload | SluicewayError]
    queue_ms: float
    compute_ms: float
    worker: int


class Outcome(NamedTuple):
    """The answer to one item.

    Attributes:
        payload: what the handler returned. Its buffers are read-only views on memory shared by the whole batch.
        queue_ms: from `submit` until the batch went to the worker.
        compute_ms: the handler's time for the whole batch.
        worker: index of the worker.
    """

    payload: Payload
    queue_ms: float
    compute_ms: float
    worker: int


class Submission:
    """Items submitted together, as whoever waits for them holds them.

    An item that has no answer yet knows its submission, and the submission knows none of its items: what is answered is
    not kept by what is not.

    Attributes:
        item_ids: of all of them.
        refused: items that were not taken, as (position, why), in order.
        unanswered: how many have been neither answered nor refused.
        call: number of the call that they came with.
    """

    __slots__ = ("_answered", "_cancel", "call", "item_ids", "refused", "unanswered")

    def __init__(
        self,
        work: Sequence[Work],
        first_id: int,
        answered: Callable[[Answers], None],
        cancel: Callable[[Submission], None],
    ) -> None:
        self.item_ids = range(first_id, first_id + len(work))
        self.refused: list[tuple[int, SluicewayError]] = []
        self.unanswered = len(work)
        self.call = current_call.get()
        self._answered: Callable[[Answers], None] | None = answered
        self._cancel = cancel

    def cancel(self) -> None:
        """Withdraw what has no answer yet; none comes for it any more."""
        self._answered = None
        if self.unanswered:
            self._cancel(self)

    def deliver(self, answers: Answers) -> None:
        """Pass answers on. For the pool alone."""
        self.unanswered -= len(answers.positions)
        if self._answered is None:
            return
        try:
            self._answered(answers)
        except Exception as error:  # a bug of whoever waits, which must not cost anybody else an answer
            asyncio.get_running_loop().call_exception_handler(
                {"message": "whoever was told of answers of a pool raised", "exception": error}
            )

    def refuse(self, positions: Sequence[int], error: SluicewayError) -> None:
        """Note what was not taken. For the pool alone."""
        self.unanswered -= len(positions)
        self.refused += [(position, error) for position in positions]


def succeed(action: actions.Succeed) -> None:
    """Pass the results of a batch on, one call for each submission that has some."""
    answers: dict[Submission, Answers] = {}
    for item, result, queue_ms in zip(action.items, action.results, action.queue_ms, strict=True):
        its = answers.get(item.owner)
        if its is None:
            # They were queued together and went to the worker together, so they waited equally long.
            its = answers[item.owner] = Answers([], [], queue_ms, action.compute_ms, action.worker)
        its.positions.append(item.position)
        its.results.append(result)
    for owner, its in answers.items():
        owner.deliver(its)


def fail(action: actions.Fail) -> None:
    """Tell why there is no result."""
    for owner, positions in _by_owner(action.items).items():
        owner.deliver(Answers(positions, [action.error] * len(positions), 0.0, 0.0, -1))


def refuse(action: actions.Refuse) -> None:
    """Note what was not taken."""
    for owner, positions in _by_owner(action.items).items():
        owner.refuse(positions, action.error)


def _by_owner(items: Sequence[Item]) -> dict[Submission, list[int]]:
    positions: dict[Submission, list[int]] = {}
    for item in items:
        positions.setdefault(item.owner, []).append(item.position)
    return positions
