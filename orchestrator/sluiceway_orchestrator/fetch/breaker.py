"""Circuit breaker: an API that fails again and again is left alone for a while. Pure: time comes in."""

from __future__ import annotations

from enum import Enum

__all__ = ["Breaker", "BreakerState"]


class BreakerState(Enum):
    """CLOSED lets calls through, OPEN stops them, HALF_OPEN lets a single one try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Opens after `failures` failed calls in a row, for `open_s` seconds; then one call decides."""

    def __init__(self, failures: int, open_s: float) -> None:
        self._limit = failures
        self._open_s = open_s
        self._failures = 0
        self._opened_s = 0.0
        self.state = BreakerState.CLOSED

    def __repr__(self) -> str:
        return f"<Breaker {self.state.value} failures={self._failures}>"

    def admit(self, now_s: float) -> float | None:
        """Ask to make a call.

        Returns:
            None if it may be made (its end must be told), or for how many seconds it should not be tried.
        """
        if self.state is BreakerState.CLOSED:
            return None
        left_s = self._opened_s + self._open_s - now_s
        if left_s > 0:
            return left_s
        if self.state is BreakerState.HALF_OPEN:
            # The one that tries has not come back within another period: let the next one try.
            self._opened_s = now_s
            return None
        self.state = BreakerState.HALF_OPEN
        self._opened_s = now_s
        return None

    def succeeded(self) -> None:
        """A call was answered, if only with a refusal: the API lives."""
        self._failures = 0
        self.state = BreakerState.CLOSED

    def failed(self, now_s: float) -> None:
        """A call failed."""
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN or self._failures >= self._limit:
            self.state = BreakerState.OPEN
            self._opened_s = now_s

    def abandoned(self) -> None:
        """A call ended without a verdict (its caller gave up)."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN
            self._opened_s -= self._open_s
