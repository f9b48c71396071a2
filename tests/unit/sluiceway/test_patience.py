"""The one rule of when to try again, and for how long."""

from __future__ import annotations

import pytest

from sluiceway import errors
from sluiceway.client.patience import Patience, RetryPolicy


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def outlast(patience: Patience, clock: Clock, error: errors.SluicewayError) -> errors.SluicewayError:
    """Fail until it is over; returns what is raised in the end."""
    while True:
        try:
            clock.now_s += patience.failed(error)
        except errors.SluicewayError as final:
            return final


def test_a_connection_that_is_refused_is_tried_again_as_long_as_there_is_time(clock: Clock) -> None:
    patience = Patience(RetryPolicy(), 60, clock)
    assert outlast(patience, clock, errors.Unavailable("refused")).message == "refused"
    assert 54 < clock.now_s <= 60, "the next pause, of 5 s at most, would have been too long"


def test_pauses_grow_to_a_bound(clock: Clock) -> None:
    patience = Patience(RetryPolicy(), 1000, clock)
    delays = [patience.failed(errors.Unavailable("refused")) for _ in range(20)]
    assert delays[0] <= 0.1
    assert 2.5 <= delays[-1] <= 5


def test_attempts_can_be_bound(clock: Clock) -> None:
    patience = Patience(RetryPolicy(attempts=3), 60, clock)
    for _ in range(2):
        patience.failed(errors.Unavailable("refused"))
    with pytest.raises(errors.Unavailable):
        patience.failed(errors.Unavailable("refused"))


@pytest.mark.parametrize(
    "final",
    [
        errors.Unavailable("no replica of recognition is ready", metadata={"waited_ms": "29500"}, retry_after_s=1),
        errors.QueueFull("the message is too large"),
        errors.UpstreamFailed("gone"),
        errors.DeadlineExceeded("over"),
        errors.InvalidImage("no image"),
        errors.ServerFault("bug"),
    ],
)
def test_what_another_try_would_not_change_is_final(final: errors.SluicewayError, clock: Clock) -> None:
    with pytest.raises(type(final)) as caught:
        Patience(RetryPolicy(), 60, clock).failed(final)
    assert caught.value is final


def test_a_full_queue_is_given_the_time_that_it_asked_for(clock: Clock) -> None:
    patience = Patience(RetryPolicy(), 60, clock)
    assert 20 <= patience.failed(errors.QueueFull("full", retry_after_s=20)) <= 24
    with pytest.raises(errors.QueueFull):
        patience.failed(errors.QueueFull("full", retry_after_s=90))


def test_the_reason_is_kept_to_the_end(clock: Clock) -> None:
    """The last try has so little time left that all it can say is that time ran out."""
    patience = Patience(RetryPolicy(), 60, clock)
    patience.failed(errors.Unavailable("cannot reach host:1: Connection refused"))
    with pytest.raises(errors.DeadlineExceeded, match="Deadline Exceeded; before that: cannot reach host:1"):
        patience.failed(errors.DeadlineExceeded("Deadline Exceeded"))
