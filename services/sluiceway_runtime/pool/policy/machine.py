"""Whether it is the machine that is ill, and not what it was given.

A picture that ends two workers is told from a machine that ends them by what else was computed. A worker that has
computed since its last end is a witness: what ends it while alone with it is to blame. Where no worker is one, several
different culprits in a row, or a worker that says that its device is gone, mean the machine. Then nothing is said of
the pictures; they are tried elsewhere, and this machine is tried with one of them until it computes again.
"""

from __future__ import annotations

import math
from enum import Enum

from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.quarantine import Quarantine, Verdict
from sluiceway_runtime.priority import Priority

__all__ = ["Judgement", "Machine"]

# How often one picture is tried on a machine that is taken to be ill. It may be a killer itself; after that the next
# worker that starts is given work again.
TRIES = 3
# No item of anybody.
TRIAL_ID = -1


class Judgement(Enum):
    """About an item that ended a worker while it was alone with it."""

    GUILTY = "guilty"
    MACHINE = "machine"  # nothing is known of the item
    TRY_AGAIN = "try again"  # nor of the machine: a worker is there that has computed since its last end


class Machine:
    """What is held against the machine since a worker last computed something.

    Args:
        quarantine: remembers who is guilty.

    Attributes:
        ill: no work is taken.
    """

    def __init__(self, quarantine: Quarantine) -> None:
        self.ill = False
        self._quarantine = quarantine
        # Keys of their verdicts.
        self._culprits: set[tuple[int, str]] = set()
        self._trial: Item | None = None
        self._tries = 0

    def judge(self, item: Item, now: float, *, witness: bool, others: bool, broken: bool) -> Judgement:
        """An item ended a worker while it was alone with it.

        Args:
            item: which.
            now: on the scheduler's clock.
            witness: whether that worker had computed something since its last end.
            others: whether another one has.
            broken: whether the worker said that it can compute no more.
        """
        if self.ill:
            return Judgement.MACHINE  # as ill as before; mostly this is what it is tried with
        if not witness and others:
            return Judgement.TRY_AGAIN
        key = self._quarantine.remember(item, Verdict.GUILTY, now)
        if witness:
            return Judgement.GUILTY
        several = bool(self._culprits - {key})
        self._culprits.add(key)
        if not (several or broken):
            return Judgement.GUILTY
        for culprit in self._culprits:
            self._quarantine.forget(culprit)
        self.ill = True
        self._tries = TRIES
        # A copy, as the item itself is answered.
        self._trial = Item(
            TRIAL_ID, "", math.inf, Priority.NORMAL, item.group, item.cost, item.size_bytes, item.payload
        )
        return Judgement.MACHINE

    def computed(self) -> None:
        """A worker has computed something."""
        if self._culprits or self.ill:
            self._culprits.clear()
            self._trial = None
            self.ill = False

    def next_trial(self) -> Item | None:
        """What to give to an idle worker of a machine that is ill."""
        if self._trial is None:
            return None
        if not self._tries:
            self._trial = None
            self.ill = False
            return None
        self._tries -= 1
        return self._trial
