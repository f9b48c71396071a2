"""The critical path: what a source waited for, found by walking back from its last event."""

from __future__ import annotations

import pytest

from sluiceway.client.results import StageTimings
from sluiceway.client.stories import Batch, Call, Explanation, ServerStory, SourceStory, Span, SpanKind, critical_path
from sluiceway.client.stories.timeline import lanes, timeline
from sluiceway.errors import Unavailable


def span(kind: str, start: float, end: float, **more: object) -> Span:
    return Span(SpanKind(kind), start, end - start, source=more.pop("source", "0"), **more)  # type: ignore[arg-type]


def job(*spans: Span, total: float) -> Call:
    return Call("Process", total, spans=spans, sources=(SourceStory("0", total),))


def told(call: Call, *replicas: ServerStory) -> Explanation:
    return Explanation("r", (ServerStory("orchestrator", "one", calls=(call,)), *replicas))


def replica(number: int, total: float, *spans: Span, name: str = "detection") -> ServerStory:
    return ServerStory(name, "two", "a:1", calls=(Call("Detect", total, number=number, spans=spans),))


def parts(explanation: Explanation, call: Call) -> list[tuple[str, float, float]]:
    path = critical_path(explanation, call)
    assert sum(item.duration_ms for item in path.segments) == pytest.approx(path.total_ms)
    ends = 0.0
    for item in path.segments:
        assert item.start_ms == pytest.approx(ends)
        ends = item.start_ms + item.duration_ms
    return [(item.what, round(item.start_ms, 3), round(item.duration_ms, 3)) for item in path.segments]


def test_a_chain_is_told_from_end_to_end() -> None:
    call = job(span("gate", 0, 10), span("fetch", 10, 40), span("finish", 40, 42), total=42)
    assert parts(told(call), call) == [("gate", 0, 10), ("fetch", 10, 30), ("finish", 40, 2)]
    assert critical_path(told(call), call).accounted == 1


def test_time_that_no_span_covers_is_said_to_be_so() -> None:
    call = job(span("gate", 5, 10), span("finish", 30, 42), total=50)
    assert parts(told(call), call) == [
        ("unaccounted", 0, 5),
        ("gate", 5, 5),
        ("unaccounted", 10, 20),
        ("finish", 30, 12),
        ("unaccounted", 42, 8),
    ]
    path = critical_path(told(call), call)
    assert path.unaccounted_ms == 33
    assert path.accounted == pytest.approx(17 / 50)


def test_of_parts_that_run_side_by_side_the_last_to_end_is_waited_for() -> None:
    call = job(
        span("handle", 0, 10),
        span("line", 10, 12, step="short"),
        span("line", 10, 30, step="long"),
        span("finish", 30, 31),
        total=31,
    )
    assert parts(told(call), call) == [("handle", 0, 10), ("line", 10, 20), ("finish", 30, 1)]
    assert critical_path(told(call), call).segments[1].step == "long"


def test_what_ended_just_before_is_waited_for_rather_than_what_runs_beside_it() -> None:
    call = job(
        span("line", 0, 100, step="other"),
        span("handle", 0, 49.96),
        span("fetch", 50, 90),
        span("finish", 90, 100),
        total=100,
    )
    assert [what for what, _, _ in parts(told(call), call)] == ["handle", "unaccounted", "fetch", "finish"]


def test_a_call_of_an_api_that_began_while_answers_came_follows_the_call_that_brought_them() -> None:
    call = job(
        span("call", 0, 100, stage="recognition"),
        span("api", 40, 160),
        span("finish", 160, 161),
        total=161,
    )
    assert parts(told(call), call) == [("stage", 0, 40), ("api", 40, 120), ("finish", 160, 1)]


def test_a_call_of_a_stage_is_opened_with_the_transport_named() -> None:
    call = job(span("call", 0, 30, stage="detection", address="a:1", call=7), span("finish", 30, 31), total=31)
    batch = Batch(4, 0, 8, behind_ms=2, compute_ms=11)
    other = replica(
        7,
        26,
        Span(SpanKind.DOOR, 0, 1),
        Span(SpanKind.HANDLE, 1, 1),
        Span(SpanKind.QUEUE, 2, 8, batch=batch),
        Span(SpanKind.BATCH, 10, 15, batch=batch),
        Span(SpanKind.HANDLE, 25, 1),
    )
    assert parts(told(call, other), call) == [
        ("transport", 0, 2),
        ("door", 2, 1),
        ("handle", 3, 1),
        ("queue", 4, 8),
        ("behind", 12, 2),
        ("compute", 14, 11),
        ("carry", 25, 2),
        ("handle", 27, 1),
        ("transport", 28, 2),
        ("finish", 30, 1),
    ]
    servers = [item.server for item in critical_path(told(call, other), call).segments]
    assert servers == ["", *["detection"] * 7, "", "orchestrator"]


def test_gaps_within_a_replica_are_not_hidden() -> None:
    call = job(span("call", 0, 30, stage="detection", address="a:1", call=7), total=30)
    other = replica(7, 30, Span(SpanKind.QUEUE, 0, 10), Span(SpanKind.HANDLE, 22, 8))
    assert parts(told(call, other), call) == [("queue", 0, 10), ("unaccounted", 10, 12), ("handle", 22, 8)]


def test_without_the_story_of_a_replica_its_answer_has_to_do() -> None:
    said = StageTimings(queue_ms=5, compute_ms=12, total_ms=20)
    call = job(span("call", 0, 30, stage="detection", address="a:1", call=7, timings=said), total=30)
    assert parts(told(call), call) == [
        ("transport", 0, 5),
        ("queue", 5, 5),
        ("compute", 10, 12),
        ("stage", 22, 3),
        ("transport", 25, 5),
    ]


def test_a_call_without_an_answer_is_told_as_a_whole() -> None:
    call = job(span("call", 0, 30, stage="detection", address="a:1", call=7, error=Unavailable("broke off")), total=30)
    assert parts(told(call), call) == [("stage", 0, 30)]


def test_a_replica_that_says_that_it_took_longer_than_its_caller_waited_is_not_believed() -> None:
    call = job(span("call", 0, 30, stage="detection", address="a:1", call=7), total=30)
    other = replica(7, 50, Span(SpanKind.QUEUE, 0, 50))
    assert parts(told(call, other), call) == [("stage", 0, 30)]


def test_waits_for_a_slow_client_are_taken_out_of_what_they_lie_in() -> None:
    call = job(span("handle", 0, 50), span("tell", 10, 40), span("finish", 50, 51), total=51)
    assert parts(told(call), call) == [("handle", 0, 20), ("tell", 20, 30), ("finish", 50, 1)]


def test_a_wait_for_a_slow_client_takes_nothing_from_what_a_replica_did_meanwhile() -> None:
    call = job(span("call", 0, 50, stage="detection", address="a:1", call=7), span("tell", 0, 40), total=50)
    other = replica(7, 45, Span(SpanKind.QUEUE, 0, 45))
    assert parts(told(call, other), call) == [("queue", 0, 45), ("tell", 45, 5)]


def test_sums_put_the_longest_first() -> None:
    call = job(span("gate", 0, 10), span("fetch", 10, 40), span("handle", 40, 41), span("finish", 41, 42), total=42)
    assert [entry[0] for entry in critical_path(told(call), call).sums()][:2] == ["fetch", "gate"]


def test_the_source_that_ended_last_speaks_for_its_job() -> None:
    call = Call(
        "Process",
        20,
        spans=(span("fetch", 0, 5, source="a"), span("fetch", 0, 20, source="b")),
        sources=(SourceStory("a", 5), SourceStory("b", 20)),
    )
    assert critical_path(told(call), call).source == "b"
    assert critical_path(told(call), call, "a").total_ms == 5
    with pytest.raises(ValueError, match="no source"):
        critical_path(told(call), call, "c")


def test_a_replica_lies_in_the_middle_of_its_call() -> None:
    call = job(span("call", 10, 40, stage="detection", address="a:1", call=7), total=40)
    other = replica(7, 20, Span(SpanKind.QUEUE, 0, 20))
    explanation = told(call, other)
    bars = list(timeline(explanation, explanation.servers[0], call))
    assert [(bar.span.kind, bar.start_ms, bar.depth) for bar in bars] == [
        (SpanKind.CALL, 10, 0),
        (SpanKind.QUEUE, 15, 1),
    ]


def test_rows_have_no_bars_that_overlap() -> None:
    call = job(span("api", 0, 10), span("api", 5, 15), span("api", 10, 20), total=20)
    explanation = told(call)
    rows = lanes(list(timeline(explanation, explanation.servers[0], call)))
    assert [[bar.start_ms for bar in row] for row in rows] == [[0, 10], [5]]


def test_calls_that_broke_off_are_found_in_the_order_in_which_they_failed() -> None:
    error = Unavailable("broke off")
    spans = [
        span("call", 0, 10, stage="detection", address="a:1", error=error),
        span("call", 10, 20, stage="detection", address="b:1", error=error),
        span("call", 20, 30, stage="detection", address="a:1", error=error),
        span("call", 30, 40, stage="detection", address="a:1", call=9),
    ]
    call = job(*spans, total=40)
    calls = [Call("Detect", 1, number=number, error=error if number < 9 else None) for number in (7, 8, 9)]
    explanation = told(call, ServerStory("detection", "two", "a:1", calls=tuple(calls)))
    found = [explanation.called(item) for item in call.spans]
    assert [other[1].number if other else 0 for other in found] == [7, 0, 8, 9]
