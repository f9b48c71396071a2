"""A story as people and other programs read it: the waterfall, JSON, Perfetto and speedscope."""

from __future__ import annotations

import io
import json
from typing import Any

from rich.console import Console

from sluiceway.cli.waterfall import print_story
from sluiceway.client.results import StageTimings
from sluiceway.client.stories import Batch, Call, Explanation, ServerStory, SourceStory, Span, SpanKind
from sluiceway.errors import QueueFull, ServerFault, Unavailable
from sluiceway.formats import to_speedscope, to_trace_events

BATCH = Batch(17, 1, 8, behind_ms=2, compute_ms=20, other_requests=("aa", "bb", "cc", "dd"), other_request_count=4)
SAID = StageTimings(5, 20, 30, 1)


def span(kind: str, start: float, duration: float, **more: Any) -> Span:
    return Span(SpanKind(kind), start, duration, **more)


def story(*, failed: bool = False, running: bool = False) -> Explanation:
    detect = {"source": "0", "step": "text", "stage": "detection", "items": 1}
    spans = (
        span("gate", 0, 10, source="0"),
        span("line", 10, 5, **detect),
        span("call", 15, 2, **detect, address="a:1", error=QueueFull("no room", reason="QUEUE_FULL")),
        span("line", 17, 3, **detect),
        span("call", 20, 40, **detect, address="b:1", call=7),
        span("call", 61, 38, source="0", step="words", stage="recognition", items=3, address="c:1", timings=SAID),
        span("finish", 99, 1, source="0"),
    )
    error = ServerFault("it failed", metadata={"story": "0 s: to worker 1 alone"}) if failed else None
    job = Call(
        "Process",
        100,
        number=1,
        ago_ms=4200,
        before_ms=3,
        running=running,
        spans=spans,
        sources=(SourceStory("0", 100, error),),
        pipeline="read",
        job_id="job",
    )
    told = (
        span("door", 0, 1),
        span("queue", 1, 9, items=1, batch=BATCH),
        span("batch", 10, 26, items=1, batch=BATCH),
        span("handle", 36, 1),
    )
    return Explanation(
        "8f14",
        (
            ServerStory("orchestrator", "one", calls=(job,), remembers_ms=60_000),
            ServerStory("detection", "two", "b:1", calls=(Call("Detect", 37, number=7, spans=told),)),
            ServerStory("detection", address="a:1", error=Unavailable("the replica is not there any more")),
            ServerStory("recognition", "three", "c:1", remembers_ms=5000),
        ),
    )


def printed(explanation: Explanation, *, width: int = 100, whole: bool = False) -> str:
    out = io.StringIO()
    print_story(Console(file=out, width=width, color_system=None), explanation, whole=whole)
    return out.getvalue()


def test_a_story_is_told_from_top_to_bottom() -> None:
    text = printed(story())
    lines = text.splitlines()
    assert lines[0].startswith("8f14  Process, pipeline read, orchestrator, 4.2 s ago  100 ms")
    assert "before it was accepted: 3.0 ms" in text
    assert "detection at b:1" in text
    assert "  queue" in text
    # Bars stand where their time was: a call of 40 ms is twice as long as one of 20 would be.
    bars = {line.split(" at ")[0]: line.count("█") for line in lines if "█" in line and " at " in line}
    assert bars["detection"] > 0
    assert "failed after 2.0 ms: detection at a:1: no room (QUEUE_FULL)" in text
    assert (
        "detection worker 1: batch 17: 1 of 8 with 4 other requests (aa, bb, cc and 1 more), computed in 20.0 ms"
        in text
    )
    assert "compute  (detection, step text)" in text
    assert "transport  (step text)" in text
    assert "98.0% of 100 ms accounted for" not in text
    assert "accounted for" in text
    assert "detection at a:1: the replica is not there any more (UNAVAILABLE)" in text
    assert "recognition at c:1: does not remember it, and remembers 5.0 s" in text


def test_it_fits_into_a_narrow_terminal() -> None:
    assert max(len(line) for line in printed(story(), width=80).splitlines() if "█" in line) <= 80


def test_a_failure_is_told_with_the_story_of_its_item() -> None:
    assert "failed: it failed (INTERNAL) (0 s: to worker 1 alone)" in printed(story(failed=True))


def test_what_runs_has_no_path_yet() -> None:
    text = printed(story(running=True))
    assert "so far, and runs" in text
    assert "What it waited for" not in text


def test_a_story_is_json() -> None:
    plain = json.loads(json.dumps(story(failed=True).to_dict(), allow_nan=False))
    assert plain["request_id"] == "8f14"
    job = plain["servers"][0]["calls"][0]
    assert job["sources"][0]["error"]["story"] == "0 s: to worker 1 alone"
    assert [item["kind"] for item in job["spans"]][:2] == ["gate", "line"]
    assert plain["servers"][2]["error"]["reason"] == "UNAVAILABLE"
    assert plain["servers"][1]["calls"][0]["spans"][2]["batch"]["other_request_count"] == 4


def test_perfetto_gets_a_process_for_each_server_and_no_row_with_overlaps() -> None:
    document = json.loads(to_trace_events(story()))
    events = document["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert list(names.values()) == ["orchestrator one", "detection b:1"]
    rows: dict[tuple[int, int], float] = {}
    for event in sorted((event for event in events if event["ph"] == "X"), key=lambda event: event["ts"]):
        row = event["pid"], event["tid"]
        assert rows.get(row, 0.0) <= event["ts"] + 0.01
        rows[row] = event["ts"] + event["dur"]
    inner = [event for event in events if event["ph"] == "X" and names[event["pid"]] == "detection b:1"]
    # Half of the transport before it.
    assert inner[0]["ts"] == 21_500


def test_speedscope_gets_the_critical_path_with_what_opens_closed() -> None:
    document = json.loads(to_speedscope(story()))
    (profile,) = document["profiles"]
    assert profile["endValue"] == 100
    stack: list[int] = []
    at = 0.0
    for event in profile["events"]:
        assert event["at"] >= at
        at = event["at"]
        if event["type"] == "O":
            stack.append(event["frame"])
        else:
            assert stack.pop() == event["frame"]
    assert stack == []
    frames = [frame["name"] for frame in document["shared"]["frames"]]
    assert "detection: compute (text)" in frames


def test_a_call_that_became_no_job_is_told() -> None:
    error = QueueFull("every job slot is taken", reason="QUEUE_FULL")
    call = Call("Process", 3, number=1, error=error, spans=(span("door", 0, 3),))
    text = printed(Explanation("8f14", (ServerStory("orchestrator", "one", calls=(call,)),)))
    assert "every job slot is taken (QUEUE_FULL)" in text
