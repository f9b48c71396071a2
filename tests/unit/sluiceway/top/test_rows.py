"""The table of `sluiceway top`: which columns fit, which rows are there, and what stands in them."""

from __future__ import annotations

import pytest

from sluiceway.figures import (
    ApiFigures,
    ClusterFigures,
    FrontFigures,
    Limit,
    OrchestratorFigures,
    ReplicaFigures,
    StageFigures,
    WorkerFigures,
)
from sluiceway.top import words
from sluiceway.top.history import History, key_of_replica, key_of_stage
from sluiceway.top.plain import to_json, to_text
from sluiceway.top.rows import GAP, Order, columns_of, rows_of

WIDTHS = range(60, 201)


def replica(address: str, **figures: object) -> ReplicaFigures:
    return ReplicaFigures(address, **({"ready": True, "state": "ready"} | figures))  # type: ignore[arg-type]


def cluster(**figures: object) -> ClusterFigures:
    detection = StageFigures(
        "detection", "detection", (replica("10.0.0.2:50052", rate=12.0, busy=0.3),), ready=1, rate=12.0, busy=0.3
    )
    recognition = StageFigures(
        "recognition",
        "recognition",
        (
            replica("10.0.0.3:50053", rate=5.0, busy=0.9, wait_ms=200.0, queued=4),
            replica("10.0.0.4:50053", rate=7.0, busy=0.2, wait_ms=10.0, front=FrontFigures(memory_bytes=300 << 20)),
            replica("10.0.0.5:50053", ready=False, state=""),
        ),
        ready=2,
        backlog=3,
        rate=12.0,
        busy=0.55,
        wait_ms=200.0,
    )
    given = {
        "stages": (detection, recognition),
        "apis": (ApiFigures("registry", 3, 8, 1),),
        "orchestrator": OrchestratorFigures(rate=11.5, p50_ms=80.0),
    }
    limits = (Limit("recognition", "workers", "2 of 2 workers busy 98%", "add workers"), Limit("", "idle", "nothing"))
    return ClusterFigures(5.0, limits, **(given | figures))  # type: ignore[arg-type]


@pytest.mark.parametrize("gpu", [False, True])
def test_columns_fit_into_every_terminal(gpu: bool) -> None:
    for width in WIDTHS:
        columns = columns_of(width, gpu=gpu)
        assert sum(column.width + GAP for column in columns) <= width
        assert {"name", "rate", "wait", "p99", "busy"} <= {column.key for column in columns}
        assert gpu or "gpu" not in {column.key for column in columns}


def test_a_wider_terminal_never_shows_less() -> None:
    shown: set[str] = set()
    for width in WIDTHS:
        keys = {column.key for column in columns_of(width, gpu=True)}
        assert shown <= keys
        shown = keys


def test_no_text_is_longer_than_its_column() -> None:
    long = replica(
        "recognition-7f9c8d6b5-x2v4q.recognition.vision.svc.cluster.local:50053",
        ready=False,
        state="starting",
        rate=99999.0,
        busy=1.0,
        wait_ms=9_999_999.0,
        p50_ms=99_999.0,
        p99_ms=999_999.0,
        restarts=1234567,
        queued=1234567,
        batch=128.0,
    )
    stage = StageFigures("a_stage_with_a_very_long_name_of_its_own", "detection", (long,) * 12, rate=99999.0)
    for width in WIDTHS:
        columns = columns_of(width, gpu=True)
        for row in rows_of(cluster(stages=(stage,)), History(), columns):
            for column in columns:
                assert len(row.cells.get(column.key, "")) <= column.width, (width, row.key, column.key)


def keys(**options: object) -> list[str]:
    columns = columns_of(120, gpu=False)
    return [row.key for row in rows_of(cluster(), History(), columns, **options)]  # type: ignore[arg-type]


DETECTION = [key_of_stage("detection"), key_of_replica("detection", "10.0.0.2:50052")]
RECOGNITION = [key_of_replica("recognition", f"10.0.0.{host}:50053") for host in (3, 4, 5)]


def test_rows_are_in_the_order_of_the_pipeline() -> None:
    assert keys() == ["orchestrator", *DETECTION, key_of_stage("recognition"), *RECOGNITION, "api registry"]


@pytest.mark.parametrize(
    ("order", "replicas"),
    [
        (Order.WAIT, RECOGNITION),
        (Order.BUSY, RECOGNITION),
        (Order.RATE, [RECOGNITION[1], RECOGNITION[0], RECOGNITION[2]]),
    ],
)
def test_stages_and_replicas_are_sorted_and_stay_together(order: Order, replicas: list[str]) -> None:
    """Of equal rates the pipeline's order stays; what is not known comes last."""
    found = keys(order=order)
    at = found.index(key_of_stage("recognition"))
    assert found[at + 1 : at + 4] == replicas
    assert (at < found.index(DETECTION[0])) == (order is not Order.RATE)


def test_orders_go_round() -> None:
    order, seen = Order.PIPELINE, []
    for _ in Order:
        seen.append(order)
        order = order.next()
    assert seen == list(Order)
    assert order is Order.PIPELINE


def test_a_filter_leaves_what_has_it_in_its_name() -> None:
    assert keys(wanted="0.0.4") == [key_of_stage("recognition"), RECOGNITION[1]]
    assert keys(wanted="Detec") == DETECTION
    assert keys(wanted="registry") == ["api registry"]
    assert keys(wanted="nowhere") == []


def test_a_replica_that_is_away_says_so_at_every_width() -> None:
    """In a column of its own, or behind its name where there is none."""
    for width in WIDTHS:
        columns = columns_of(width, gpu=False)
        row = next(row for row in rows_of(cluster(), History(), columns) if row.key == RECOGNITION[2])
        assert row.fault
        assert "away" in "".join(row.cells[column.key] for column in columns if column.key in ("name", "state"))


def test_one_look_as_text() -> None:
    text = to_text(cluster(), 100)
    assert text.splitlines()[:4] == ["recognition: 2 of 2 workers busy 98%", "  → add workers", "nothing", ""]
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "10.0.0.5:50053" in text


def test_one_look_as_json_is_one_line() -> None:
    text = to_json(cluster())
    assert "\n" not in text
    assert '"limits":[{"subject":"recognition","kind":"workers"' in text
    assert '"p50_ms":80.0' in text


def test_what_was_before_is_forgotten_with_what_is_gone() -> None:
    history = History()
    for _ in range(3):
        history.add(cluster())
    assert history.of(RECOGNITION[0]) == (5.0, 5.0, 5.0)
    # It has no rate.
    assert history.of(RECOGNITION[2]) == (0.0, 0.0, 0.0)
    history.add(cluster(stages=()))
    assert history.of(RECOGNITION[0]) == ()
    assert history.of("orchestrator") == (11.5,) * 4


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (words.rate(None), "-"),
        (words.rate(0.0), "0/s"),
        (words.rate(3.14), "3.1/s"),
        (words.rate(420.4), "420/s"),
        (words.milliseconds(0.0), "0 ms"),
        (words.milliseconds(3.14), "3.1 ms"),
        (words.milliseconds(340.2), "340 ms"),
        (words.milliseconds(2340.0), "2.3 s"),
        (words.milliseconds(600_000.0), "10 min"),
        (words.milliseconds(None), "-"),
        (words.percent(0.984), "98%"),
        (words.percent(None), "-"),
        (words.count(None), "-"),
        (words.count(3), "3"),
        (words.count(1_234_567), "1234k"),
        (words.megabytes(0), "-"),
        (words.megabytes(300 << 20), "300 MB"),
        (words.megabytes(139 << 30), "139 GB"),
        (words.bar(0.5, 4), "██  "),
        (words.bar(None, 4), "    "),
        (words.bar(2.0, 4), "████"),
        (words.bar(0.3, 2), "▋ "),
        (words.sparkline([0, 1, 2, 4], 6), "  ▁▃▄▇"),
        (words.sparkline([], 3), "   "),
        (words.sparkline([0, 0], 2), "▁▁"),
        (words.shortened("short", 9), "short"),
        (words.shortened("10.11.12.13:50053", 10), "10.1…50053"),
        (words.shortened("abc", 1), "a"),
    ],
)
def test_figures_in_words(said: str, text: str) -> None:
    assert said == text


def test_workers_that_do_not_work_are_counted_where_the_state_stands() -> None:
    workers = tuple(WorkerFigures(index, 1, "ready") for index in range(2))
    stage = StageFigures("detection", "detection", (replica("a:1", workers=workers, workers_ready=1),), ready=1)
    columns = columns_of(120, gpu=False)
    row = rows_of(cluster(stages=(stage,)), History(), columns)[2]
    assert row.cells["state"] == "1/2 wrk"
