"""When something is tried again, and for how long: the one rule of library and command line. Pure: no I/O."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sluiceway.errors import DeadlineExceeded, QueueFull, SluicewayError, Unavailable

__all__ = ["Patience", "RetryPolicy"]

# Metadata of an error: for how long the server itself has waited for what was missing. It was given all the time that
# there was, so that one more try would wait as long again.
WAITED_KEY = "waited_ms"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again: only what was not begun or can be repeated, and never against the server's word.

    A connection that broke or was refused, and a server that starts or drains (`Unavailable`), are tried again after
    twice as long each time, with jitter, so that many clients do not come back together. `QueueFull` waits as long as
    the server asked. What the server has waited for already is final, as is everything else. How long all of it may
    take is for the caller to say: the deadline of a call, `patience_s` of `process_many`.

    Attributes:
        attempts: tries in all; 1 never tries again, None goes on as long as there is time.
        first_delay_s: before the second try.
        max_delay_s: longest wait between two tries, unless the server asks for more.
    """

    attempts: int | None = None
    first_delay_s: float = 0.1
    max_delay_s: float = 5.0
    jitter: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    def delay_s(self, error: SluicewayError, failures: int, remaining_s: float | None) -> float | None:
        """Say how long to wait before the next try.

        Args:
            error: what the last try ended with.
            failures: tries that failed so far, at least 1.
            remaining_s: time that is left for trying; None if there is no end to it.

        Returns:
            Seconds, or None to give up.
        """
        if self.attempts is not None and failures >= self.attempts:
            return None
        if not isinstance(error, QueueFull | Unavailable) or WAITED_KEY in error.metadata:
            return None
        if isinstance(error, QueueFull) and error.retry_after_s is None:
            # Without a time the server does not want it back: the message is too large, or a proxy's quota is used up.
            return None
        # No power of two beyond what a float holds: whoever never gives up gets there.
        doubled = self.first_delay_s * 2 ** min(failures - 1, 100)
        backoff = min(doubled, self.max_delay_s) * self.jitter.uniform(0.5, 1.0)
        asked = error.retry_after_s or 0.0
        delay = max(backoff, asked * self.jitter.uniform(1.0, 1.2))
        return None if remaining_s is not None and delay >= remaining_s else delay


class Patience:
    """The tries of one call, one job, or one stream that broke.

    Args:
        policy: when to try again.
        limit_s: for how long, from now on.
        clock: seconds that only grow.
    """

    def __init__(self, policy: RetryPolicy, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._end_s = clock() + limit_s
        self._failures = 0
        self._reason: SluicewayError | None = None

    def __repr__(self) -> str:
        return f"<Patience {self.remaining_s:.1f} s left, {self._failures} failures>"

    @property
    def remaining_s(self) -> float:
        """Time that is left."""
        return self._end_s - self._clock()

    def failed(self, error: SluicewayError) -> float:
        """Take a failure down and say how long to wait before the next try.

        Raises:
            SluicewayError: there is none: the error, with what kept the tries before it, if the time ran out over that.
        """
        self._failures += 1
        delay_s = self._policy.delay_s(error, self._failures, self.remaining_s)
        if delay_s is not None:
            self._reason = error
            return delay_s
        if self._reason is not None and isinstance(error, DeadlineExceeded):
            raise DeadlineExceeded(
                f"{error.message}; before that: {self._reason.message}",
                code=error.code,
                reason=error.reason,
                metadata=error.metadata,
            ) from self._reason
        raise error
