"""Making a failing trial small: parts are left out as long as it still fails in the same way (ddmin: Zeller, 2002)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from sluiceway_simulation.torture.plan import Trial
from sluiceway_simulation.torture.trial import Verdict, run

__all__ = ["shrink"]

Part = TypeVar("Part")
# A trial takes a fraction of a second; nobody waits longer for a small story than for a large one.
MOST_RUNS = 200


def shrink(trial: Trial) -> Trial:
    """The smallest trial that was found to fail as this one does; it itself if it does not fail."""
    first = run(trial)
    if not first.wrong:
        return trial
    return _Shrinking(trial, _kind(first)).result()


class _Shrinking:
    def __init__(self, trial: Trial, kind: str) -> None:
        self._trial = trial
        self._kind = kind
        self._runs = 0

    def result(self) -> Trial:
        """Leave out faults, then jobs, until neither gets fewer."""
        before = None
        while before != (len(self._trial.jobs), len(self._trial.faults)) and self._runs < MOST_RUNS:
            before = len(self._trial.jobs), len(self._trial.faults)
            self._reduce(self._trial.faults, lambda faults: replace(self._trial, faults=faults))
            self._reduce(self._trial.jobs, lambda jobs: replace(self._trial, jobs=jobs))
        return self._trial

    def _reduce(self, parts: tuple[Part, ...], trial_with: Callable[[tuple[Part, ...]], Trial]) -> None:
        """Drop ever smaller pieces of one of its sequences."""
        size = max(1, len(parts) // 2)
        while parts and self._runs < MOST_RUNS:
            at = 0
            while at < len(parts):
                fewer = (*parts[:at], *parts[at + size :])
                if self._fails(candidate := trial_with(fewer)):
                    self._trial, parts = candidate, fewer
                else:
                    at += size
            if size == 1:
                return
            size //= 2

    def _fails(self, trial: Trial) -> bool:
        if self._runs >= MOST_RUNS:
            return False
        self._runs += 1
        verdict = run(trial)
        return bool(verdict.wrong) and _kind(verdict) == self._kind


def _kind(verdict: Verdict) -> str:
    """What is wrong, without names and numbers, which change from run to run."""
    return re.sub(r"\d+(\.\d+)*", "N", verdict.wrong[0])
