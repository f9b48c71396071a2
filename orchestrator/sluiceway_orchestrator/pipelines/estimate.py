"""How large an answer is expected to be, learnt from those before it. Pure."""

from __future__ import annotations

__all__ = ["Estimate"]

# How fast it follows: of each new answer, this part.
_GAIN = 0.125
# Above the mean, this many mean deviations: most answers are within.
_DEVIATIONS = 3.0


class Estimate:
    """Mean and mean deviation of sizes, as TCP keeps of round trips; the first answer replaces what was assumed."""

    __slots__ = ("_deviation", "_mean")

    def __init__(self, assumed_bytes: float) -> None:
        self._mean = float(assumed_bytes)
        self._deviation: float | None = None

    def __repr__(self) -> str:
        return f"<Estimate {self.expected_bytes} bytes>"

    @property
    def expected_bytes(self) -> int:
        """What to be prepared for."""
        return round(self._mean + _DEVIATIONS * (self._deviation or 0.0))

    def is_within(self, most_bytes: float) -> bool:
        """Whether that is still enough to be prepared for."""
        return self.expected_bytes <= most_bytes

    def learn(self, size_bytes: int) -> None:
        """One was so large."""
        if self._deviation is None:
            # Of one answer nothing is known of how they differ: half of it, as a start.
            self._mean, self._deviation = float(size_bytes), size_bytes / 6
            return
        error = size_bytes - self._mean
        self._mean += _GAIN * error
        self._deviation += _GAIN * (abs(error) - self._deviation)
