"""Items given to a pool together, and what comes back for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.pool.payload import Payload
from sluiceway_runtime.pool.policy import actions

__all__ = ["Answers", "Callers", "Submission", "Work"]


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


class Submission:
    """Items submitted together, as whoever waits for them holds them.

    Attributes:
        work: the items.
        first_id: ids of the items count up from it.
        refused: items that were not taken, as (position, why), in order.
    """

    __slots__ = ("_cancel", "answered", "first_id", "refused", "work")

    def __init__(
        self,
        work: Sequence[Work],
        first_id: int,
        answered: Callable[[Answers], None],
        cancel: Callable[[Submission], None],
    ) -> None:
        self.work = work
        self.first_id = first_id
        self.refused: list[tuple[int, SluicewayError]] = []
        self.answered = answered
        self._cancel = cancel

    def cancel(self) -> None:
        """Withdraw what has no answer yet; none comes for it any more."""
        self._cancel(self)


class Callers:
    """Who is owed which answer. An item is here from its submission until its answer, its refusal or its cancellation.

    Invariant: what is dispatched is here, as the scheduler hears of every cancellation before it decides again.
    """

    def __init__(self) -> None:
        self._owners: dict[int, Submission] = {}

    def enter(self, submission: Submission) -> None:
        """Owe answers to the items of a submission."""
        first_id = submission.first_id
        self._owners.update(dict.fromkeys(range(first_id, first_id + len(submission.work)), submission))

    def leave(self, submission: Submission) -> list[int]:
        """Owe it nothing more; returns the ids of what had no answer yet."""
        first_id = submission.first_id
        ids = range(first_id, first_id + len(submission.work))
        return [item_id for item_id in ids if self._owners.pop(item_id, None) is not None]

    def payloads(self, item_ids: Iterable[int]) -> tuple[Payload, ...]:
        """Of items that have no answer yet."""
        owners = self._owners
        return tuple([(owner := owners[item_id]).work[item_id - owner.first_id].payload for item_id in item_ids])

    def succeed(self, action: actions.Succeed) -> None:
        """Pass the results of a batch on, one call for each submission that has some."""
        answers: dict[Submission, Answers] = {}
        for item_id, result, queue_ms in zip(action.item_ids, action.results, action.queue_ms, strict=True):
            owner = self._owners.pop(item_id, None)
            if owner is None:
                continue
            its = answers.get(owner)
            if its is None:
                # They were queued together and went to the worker together, so they waited equally long.
                its = answers[owner] = Answers([], [], queue_ms, action.compute_ms, action.worker)
            its.positions.append(item_id - owner.first_id)
            its.results.append(result)
        for owner, its in answers.items():
            owner.answered(its)

    def fail(self, action: actions.Fail) -> None:
        """Tell why there is no result."""
        for owner, positions in self._taken_off(action.item_ids):
            owner.answered(Answers(positions, [action.error] * len(positions), 0.0, 0.0, -1))

    def refuse(self, action: actions.Refuse) -> None:
        """Note what was not taken."""
        for owner, positions in self._taken_off(action.item_ids):
            owner.refused += [(position, action.error) for position in positions]

    def _taken_off(self, item_ids: Iterable[int]) -> Iterable[tuple[Submission, list[int]]]:
        positions: dict[Submission, list[int]] = {}
        for item_id in item_ids:
            owner = self._owners.pop(item_id, None)
            if owner is not None:
                positions.setdefault(owner, []).append(item_id - owner.first_id)
        return positions.items()
