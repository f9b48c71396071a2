"""Faults planted in the code on purpose, one at a time: torture by seed that does not find them finds nothing.

Each is what a plausible slip would leave behind, as a patch of one attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from sluiceway_orchestrator.backlog import Backlog
from sluiceway_orchestrator.gate import Gate
from sluiceway_orchestrator.jobs import Jobs
from sluiceway_orchestrator.outbox import Outbox
from sluiceway_orchestrator.pipelines.tree import RegionTree
from sluiceway_orchestrator.stages import calls, detection, recognition
from sluiceway_orchestrator.stages.stage import Lease, Stage
from sluiceway_runtime.account import Account, MemoryBudget
from sluiceway_runtime.errors import Internal
from sluiceway_runtime.pool import Pool
from sluiceway_runtime.pool.policy.actions import KillWorker
from sluiceway_runtime.pool.policy.admission import Room
from sluiceway_runtime.pool.policy.handout import Handouts
from sluiceway_runtime.pool.policy.retries import Retries
from sluiceway_runtime.pool.policy.scheduler import Scheduler
from sluiceway_runtime.pool.policy.workforce import Workforce
from sluiceway_runtime.server.door import Door, Entry

__all__ = ["PLANTED"]

Plant = Callable[[], AbstractContextManager[Any]]


def _replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Plant:
    """A patch that is made from what it stands in for."""
    return lambda: patch.object(owner, name, make(getattr(owner, name)))


def _does_nothing(owner: Any, name: str, answer: Any = None) -> Plant:
    return _replaced(owner, name, lambda _: lambda *_args, **_options: answer)


def _lease_is_kept_on_errors(before: Any) -> Any:
    def leave(self: Any, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            before(self, kind, error, traceback)

    return leave


def _values_are_told_twice(before: Any) -> Any:
    def append(self: Any, addressed: Any) -> None:
        before(self, addressed)
        if type(addressed.event).__name__ == "ValuesRead":
            before(self, addressed)

    return append


def _a_held_back_value_is_forgotten(before: Any) -> Any:
    def release(self: Any, key: Any) -> None:
        if len(self) > 2:
            self._gathering.pop(key, None)
        else:
            before(self, key)

    return release


def _all_is_sent_again(before: Any) -> Any:
    def read(message: Any, pending: dict[int, None]) -> Any:
        kept = dict(pending)
        answer = before(message, pending)
        if len(kept) > 20:
            pending.update(kept)
        return answer

    return read


def _suspects_are_run_together(before: Any) -> Any:
    def add(self: Any, groups: list[tuple[Any, ...]], *, probe: bool = False) -> None:
        together = [tuple(item for group in groups for item in group)] if probe and groups else groups
        before(self, together, probe=probe)

    return add


def _whole_batch_fails(before: Any) -> Any:
    def raised(self: Any, worker: Any, batch_id: int, message: str, now: float) -> None:
        batch = worker.take_off(batch_id, now)
        if batch is not None:
            batch.over()
            self._fail(batch.items, Internal(message))

    return raised


def _one_account_in_ten_stays_open(before: Any) -> Any:
    count = 0

    def close(self: Any) -> None:
        nonlocal count
        count += 1
        if count % 10:
            before(self)

    return close


@contextmanager
def _any_version_will_do() -> Iterator[None]:
    plain = calls.call_metadata

    def metadata(ticket: Any, group: Any, size_bytes: int) -> Any:
        return tuple(pair for pair in plain(ticket, group, size_bytes) if pair[0] != "sluiceway-group")

    def members(self: Any, name: str, line: Any) -> None:
        self._members[name] = self._usable
        pump(self, name, line)

    pump = Stage._pump_line
    with (
        patch.object(recognition, "call_metadata", metadata),
        patch.object(detection, "call_metadata", metadata),
        patch.object(Stage, "_pump_line", members),
    ):
        yield


def _a_discarded_entry_counts(before: Any) -> Any:
    def discard(self: Any, entry: Any) -> None:
        cost = entry.cost
        before(self, entry)
        self._cost += cost

    return discard


def _one_credit_too_many(before: Any) -> Any:
    def init(self: Any, workers: int, credits_per_worker: int, *arguments: Any, **options: Any) -> None:
        before(self, workers, credits_per_worker + 1, *arguments, **options)

    return init


def _regions_are_mixed_up(before: Any) -> Any:
    def place(self: Any, *arguments: Any) -> Any:
        placed = before(self, *arguments)
        return placed._replace(ids=list(reversed(placed.ids)))

    return place


def _nobody_is_killed(before: Any) -> Any:
    return lambda self, now: [action for action in before(self, now) if not isinstance(action, KillWorker)]


PLANTED: Mapping[str, Plant] = {
    "a lease is kept when its call fails": _replaced(Lease, "__exit__", _lease_is_kept_on_errors),
    "values are told twice": _replaced(Outbox, "_append", _values_are_told_twice),
    "a value that is held back is forgotten": _replaced(Outbox, "_release", _a_held_back_value_is_forgotten),
    "crops that were read are read again": _replaced(recognition, "_read", _all_is_sent_again),
    "suspects are run together": _replaced(Retries, "add", _suspects_are_run_together),
    "a handler that raises fails its whole batch": _replaced(Scheduler, "_raised", _whole_batch_fails),
    "what a dead worker had is lost": _does_nothing(Scheduler, "_run_again"),
    "a queue has no bound": _does_nothing(Room, "holds", answer=True),
    "an account in ten stays open": _replaced(Account, "close", _one_account_in_ten_stays_open),
    "bytes that are given back wake nobody": _does_nothing(MemoryBudget, "_serve"),
    "an entry at the door is not closed": _does_nothing(Entry, "close"),
    "calls are for any version": _any_version_will_do,
    "the door lets in calls for other versions": _does_nothing(Door, "_require_group"),
    "who leaves a line is still counted": _replaced(Backlog, "discard", _a_discarded_entry_counts),
    "the share of a client is not given back": _does_nothing(Gate, "_give_share"),
    "jobs that ended are counted as running": _does_nothing(Jobs, "_ended"),
    "regions are numbered from 0 in each answer": _does_nothing(RegionTree, "begin_again"),
    "a worker is given one batch too many": _replaced(Scheduler, "__init__", _one_credit_too_many),
    "no free worker is seen": _does_nothing(Handouts, "_free", []),
    "a worker that hangs is left alone": _replaced(Workforce, "watch", _nobody_is_killed),
    "nothing is withdrawn": _does_nothing(Pool, "_cancel"),
    "values are given to other regions": _replaced(RegionTree, "place", _regions_are_mixed_up),
}
