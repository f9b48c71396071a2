"""The flight recorder: rings that forget, and what a scheduler's batches leave in them."""

from __future__ import annotations

from typing import Any

import pytest
from sluiceway_runtime.errors import ModelFailed, QueueFull
from sluiceway_runtime.pool.policy import events
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.limits import PoolLimits
from sluiceway_runtime.pool.policy.scheduler import Scheduler
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.recorder import BatchLog, CallLog, Recorder, Ring, current_call, fault_of
from sluiceway_runtime.stories import server_story

from sluiceway.recorder.v1 import recorder_pb2 as pb


class Content:
    def digest(self) -> str:
        return "content"


class Owner:
    def __init__(self, call: int) -> None:
        self.call = call


class Played:
    """A scheduler with one worker whose batches go to a log."""

    def __init__(self, **limits: Any) -> None:
        self.log = BatchLog()
        self.scheduler = Scheduler(1, 1, PoolLimits(**limits), journal=self.log.over)
        self.next_id = 0
        self.feed(events.StartRequested(), 0.0)
        self.feed(events.WorkerReady(0), 0.0)

    def feed(self, event: events.Event, now: float) -> None:
        self.scheduler.on_event(event, now)

    def arrive(self, request: str, count: int, now: float, call: int = 1) -> None:
        owner = Owner(call)
        items = [
            Item(self.next_id + n, request, 1e9, Priority.NORMAL, None, 1, 1, Content(), owner) for n in range(count)
        ]
        self.next_id += count
        self.feed(events.ItemsArrived(items), now)


def test_a_ring_keeps_the_latest_rows() -> None:
    ring = Ring(3, 10_000)
    for row in range(5):
        ring.add((row, "r"))
    assert list(ring.holding("r")) == [(2, "r"), (3, "r"), (4, "r")]
    assert ring.oldest == (2, "r")


def test_a_ring_is_bounded_in_bytes_too() -> None:
    ring = Ring(100, 100)
    for row in range(10):
        ring.add((row, "r" * 30))
        assert ring.size_bytes <= 100
    assert [row for row, _ in ring.holding("r")] == [8, 9]
    ring.add((10, "r" * 500))
    assert [row for row, _ in ring.holding("r")] == [10]
    ring.add((11, "r"))
    assert [row for row, _ in ring.holding("r")] == [11]


def test_a_row_comes_back_as_it_went_in() -> None:
    ring = Ring(3, 10_000)
    row = ("Zürich \udcfc", 1, 2.5, None, (("a", ()), "b"))
    ring.add(row)
    assert list(ring.holding("Zürich \udcfc")) == [row]
    assert list(ring.holding("Bern")) == []


def test_calls_are_found_by_their_request_and_forgotten_in_turn() -> None:
    calls = CallLog(most=3)
    for number, request in enumerate(("a", "b", "a", "c")):
        calls.ended((calls.begin(), "/x.Y/Detect", request, number, number, number + 1, "OK"))
    assert [call.number for call in calls.of("a")] == [3]
    assert calls.of("unknown") == []
    assert calls.oldest_s == 1
    assert current_call.get() == 4


def test_a_batch_knows_its_requests_and_how_long_each_waited() -> None:
    played = Played(max_batch=8)
    played.arrive("first", 1, 1.0, call=7)
    played.feed(events.Tick(), 1.0)
    played.arrive("second", 3, 2.0, call=8)
    played.arrive("third", 1, 3.0, call=9)
    played.feed(events.BatchDone(0, 1, ("one",), compute_ms=900.0), 5.0)
    played.feed(events.BatchDone(0, 2, ("one",) * 4, compute_ms=1500.0), 7.0)
    (alone,) = played.log.of("first")
    assert (alone.items, alone.sent_s, alone.done_s, alone.compute_ms) == (1, 1.0, 5.0, 900.0)
    (together,) = played.log.of("second")
    assert together == played.log.of("third")[0]
    assert {(part.request_id, part.call, part.items, part.waiting_s) for part in together.parts} == {
        ("second", 8, 3, 2.0),
        ("third", 9, 1, 3.0),
    }
    assert (together.sent_s, together.done_s) == (5.0, 7.0)


def test_a_batch_that_is_tried_again_leaves_both_tries() -> None:
    played = Played(max_batch=2)
    played.arrive("r", 2, 1.0)
    played.feed(events.Tick(), 1.0)
    played.feed(events.BatchRaised(0, 1, "bad"), 2.0)
    played.feed(events.BatchDone(0, 2, ("good",)), 3.0)
    played.feed(events.BatchDone(0, 3, ("good",)), 4.0)
    raised, half, other = played.log.of("r")
    assert raised.fault == "the model raised"
    assert [part.items for part in raised.parts] == [2]
    # They waited since they came back.
    assert [batch.parts[0].waiting_s for batch in (half, other)] == [2.0, 2.0]
    assert (half.fault, other.fault) == ("", "")


def test_a_worker_that_dies_is_in_the_story() -> None:
    played = Played(max_batch=2)
    played.arrive("r", 1, 1.0)
    played.feed(events.Tick(), 1.0)
    played.feed(events.WorkerDied(0, "it was ended by SIGKILL"), 2.0)
    (batch,) = played.log.of("r")
    assert batch.fault == "it was ended by SIGKILL"


def test_what_cannot_be_sent_is_in_the_story() -> None:
    played = Played(max_batch=1)
    played.arrive("r", 1, 1.0)
    played.feed(events.Tick(), 1.0)
    played.feed(events.BatchLost(0, 1, QueueFull("no descriptors")), 1.5)
    assert [batch.fault for batch in played.log.of("r")] == ["it was lost on the way"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (QueueFull("full"), ("QUEUE_FULL", "full", "")),
        (ModelFailed("failed", metadata={"story": "0 s: now"}), ("MODEL_FAILED", "failed", "0 s: now")),
        (ValueError("a secret"), ("INTERNAL", "internal error", "")),
        (KeyboardInterrupt(), ("CANCELLED", "", "")),
    ],
)
def test_of_an_error_no_more_is_remembered_than_its_caller_hears(error: BaseException, told: tuple[str, ...]) -> None:
    assert fault_of(error) == told


def test_a_call_and_its_batches_become_spans_that_leave_no_time_out() -> None:
    recorder = Recorder(instance="me")
    played = Played(max_batch=4)
    recorder.batches = played.log
    number = recorder.calls.begin()
    played.arrive("r", 2, 10.003, call=number)
    played.feed(events.Tick(), 10.004)
    played.feed(events.BatchDone(0, 1, ("one", "two"), compute_ms=5.0), 10.010)
    recorder.calls.ended((number, "/s.D/Detect", "r", 10.0, 10.001, 10.011, "OK"))
    story = server_story(recorder, "detection", "r", 12.0)
    assert (story.server, story.instance, round(story.remembers_ms)) == ("detection", "me", 2000)
    (call,) = story.calls
    assert (call.method, call.number, round(call.ago_ms), round(call.duration_ms)) == ("Detect", number, 2000, 11)
    kinds = pb.SpanKind.Name
    assert [(kinds(span.kind), round(span.start_ms), round(span.duration_ms)) for span in call.spans] == [
        ("SPAN_KIND_DOOR", 0, 1),
        ("SPAN_KIND_HANDLE", 1, 2),
        ("SPAN_KIND_QUEUE", 3, 1),
        ("SPAN_KIND_BATCH", 4, 6),
        ("SPAN_KIND_HANDLE", 10, 1),
    ]
    assert call.spans[3].batch.items == 2
    assert call.spans[3].batch.compute_ms == 5.0
    assert list(call.spans[3].batch.other_requests) == []


def test_a_call_that_still_runs_is_told_by_its_batches() -> None:
    recorder = Recorder(instance="me")
    played = Played(max_batch=4)
    recorder.batches = played.log
    played.arrive("r", 1, 10.0, call=recorder.calls.begin())
    played.feed(events.Tick(), 10.5)
    played.feed(events.BatchDone(0, 1, ("one",)), 11.0)
    (call,) = server_story(recorder, "detection", "r", 12.0).calls
    assert call.running
    assert round(call.duration_ms) == 2000


def test_a_refused_call_says_why() -> None:
    recorder = Recorder(instance="me")
    row = (
        recorder.calls.begin(),
        "/s.D/Detect",
        "r",
        1.0,
        0.0,
        1.5,
        "RESOURCE_EXHAUSTED",
        "QUEUE_FULL",
        "full",
        "",
    )
    recorder.calls.ended(row)
    (call,) = server_story(recorder, "detection", "r", 2.0).calls
    assert (call.error.code, call.error.reason, call.error.message) == (8, "QUEUE_FULL", "full")
    assert [(span.kind, span.duration_ms) for span in call.spans] == [(pb.SPAN_KIND_DOOR, 500)]


def test_what_is_to_be_remembered_of_nothing_is_nothing() -> None:
    recorder = Recorder(0, "me")
    played = Played(max_batch=1)
    played.log = recorder.batches
    played.scheduler = Scheduler(1, 1, PoolLimits(max_batch=1), journal=recorder.batches.over)
    played.feed(events.StartRequested(), 0.0)
    played.feed(events.WorkerReady(0), 0.0)
    played.arrive("r", 1, 1.0, call=recorder.calls.begin())
    played.feed(events.Tick(), 1.0)
    played.feed(events.BatchDone(0, 1, ("one",)), 2.0)
    recorder.calls.ended((1, "/s.D/Detect", "r", 1.0, 1.0, 2.0, "OK"))
    assert (len(recorder.calls), len(recorder.batches)) == (0, 0)
    assert list(server_story(recorder, "detection", "r", 3.0).calls) == []
