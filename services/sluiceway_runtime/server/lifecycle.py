"""The life of a server: NEW, STARTING, READY, DRAINING, STOPPED, or FAILED. One way only."""

from __future__ import annotations

import enum
import logging

__all__ = ["Lifecycle", "State"]

log = logging.getLogger(__name__)


class State(enum.Enum):
    """Where a server is in its life."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


_ALLOWED: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.STARTING}),
    State.STARTING: frozenset({State.READY, State.DRAINING, State.FAILED}),
    State.READY: frozenset({State.DRAINING, State.FAILED}),
    State.DRAINING: frozenset({State.STOPPED, State.FAILED}),
    State.STOPPED: frozenset(),
    State.FAILED: frozenset(),
}


class Lifecycle:
    """Holds the state and refuses to go back."""

    def __init__(self) -> None:
        self.state = State.NEW

    def __repr__(self) -> str:
        return f"<Lifecycle {self.state.value}>"

    def to(self, state: State) -> None:
        """Move on.

        Raises:
            RuntimeError: the step is not allowed; a bug, never an operator's fault.
        """
        if state not in _ALLOWED[self.state]:
            raise RuntimeError(f"a server cannot go from {self.state.value} to {state.value}")
        log.debug("%s -> %s", self.state.value, state.value)
        self.state = state
