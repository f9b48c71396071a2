"""What became of one request."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sluiceway.client.results import Timings

__all__ = ["NOT_SENT", "OK", "TIMED_OUT", "Answer", "Outcome"]

OK = "ok"
TIMED_OUT = "timed out"
# The generator had as many on their way as it may.
NOT_SENT = "not sent"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: `OK`, or why not, and where its time went."""

    kind: str
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request as its client saw it; times are seconds from the start of the load.

    Attributes:
        due_s: when it was to be sent.
        sent_s: when it was sent.
        ended_s: when its last event came, or it failed.
        answer: what came.
    """

    due_s: float
    sent_s: float
    ended_s: float
    answer: Answer

    @property
    def ok(self) -> bool:
        """Whether it was answered in full."""
        return self.answer.kind == OK

    @property
    def latency_s(self) -> float:
        """From when it was due: a request that had to wait for the generator has waited as well."""
        return self.ended_s - self.due_s

    @property
    def late_s(self) -> float:
        """How late the generator sent it."""
        return self.sent_s - self.due_s

    def within(self, goal_s: float) -> bool:
        """Whether it was answered in full and in time."""
        return self.ok and self.latency_s <= goal_s

    @property
    def latency_or_never_s(self) -> float:
        """Its latency; infinite for what was not answered in full."""
        return self.latency_s if self.ok else math.inf
