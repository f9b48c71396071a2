"""How many stage calls may be repeated, so that a sick stage is not killed by retries."""

from __future__ import annotations

__all__ = ["RetryBudget"]


class RetryBudget:
    """A token bucket: each call earns a part of a token, each retry costs one.

    The reserve covers what is in flight with a replica when it dies; the ratio bounds what goes on for long.

    Attributes:
        denied: how often there was none.
    """

    def __init__(self, ratio: float, reserve: int) -> None:
        self._ratio = ratio
        self._most = float(reserve)
        self._tokens = float(reserve)
        self.denied = 0

    def __repr__(self) -> str:
        return f"<RetryBudget tokens={self._tokens:.1f}>"

    @property
    def tokens(self) -> float:
        """Retries that may be made now, one after the other."""
        return self._tokens

    def earn(self) -> None:
        """A call was answered."""
        self._tokens = min(self._most, self._tokens + self._ratio)

    def spend(self) -> bool:
        """Take a token for a retry; False if there is none."""
        if self._tokens < 1:
            self.denied += 1
            return False
        self._tokens -= 1
        return True
