"""Our instruments show what prometheus-client's show, and cost less; waits; and what a server shows of itself."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client import Histogram as Theirs
from sluiceway_runtime.account import MemoryBudget, Phase
from sluiceway_runtime.metrics.calls import CallMetrics
from sluiceway_runtime.metrics.instruments import SECONDS, Counters, Family, Histograms, gauge
from sluiceway_runtime.metrics.registry import AnsweringRegistry
from sluiceway_runtime.metrics.server import LoopLag, ServerCollector
from sluiceway_runtime.metrics.waits import Waits

TIMES = Family("t_seconds", "histogram", "Times.", ("kind",))


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.one_of(st.floats(0, 20), st.sampled_from(SECONDS))))
def test_a_histogram_is_that_of_prometheus_client(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histograms = Histograms(TIMES)
    ours.register(histograms)
    reference = Theirs("t_seconds", "Times.", ("kind",), buckets=SECONDS, registry=theirs).labels("a")
    own = histograms.of("a")
    assert histograms.of("a") is own
    for value in values:
        own.observe(value)
        reference.observe(value)
    shown, expected = samples(ours), samples(theirs)
    assert shown.keys() == expected.keys()
    assert all(math.isclose(shown[key], expected[key]) for key in shown)
    assert own.count == len(values)


def test_a_counter_is_0_until_something_happens() -> None:
    registry = CollectorRegistry()
    counters = Counters(Family("things", "counter", "Things.", ("kind",)))
    registry.register(counters)
    cell = counters.of("b")
    assert registry.get_sample_value("things_total", {"kind": "b"}) == 0
    cell.value += 2
    assert registry.get_sample_value("things_total", {"kind": "b"}) == 2


def test_the_oldest_wait_is_that_of_whoever_came_first_and_is_still_here() -> None:
    waits = Waits()
    assert waits.oldest_s(5.0) == 0
    first, second = waits.begin(1.0), waits.begin(2.0)
    assert waits.oldest_s(5.0) == 4.0
    assert waits.end(first, 5.0) == 4.0
    assert waits.oldest_s(6.0) == 4.0
    waits.end(second, 6.0)
    waits.none()
    assert waits.oldest_s(9.0) == 0
    assert waits.spent.count == 3


class Early:
    """Cannot be asked yet, and raises half-way."""

    def collect(self) -> Iterator[Metric]:
        yield gauge(Family("early", "gauge", "Half of it."), 1)
        raise RuntimeError("not yet")


def test_what_cannot_be_shown_keeps_nothing_else_from_being_shown(caplog: pytest.LogCaptureFixture) -> None:
    registry = AnsweringRegistry()
    registry.register(Early())  # type: ignore[arg-type]
    counters = Counters(Family("things", "counter", "Things."))
    counters.of().value += 1
    registry.register(counters)
    for _ in range(2):
        assert b"things_total 1.0" in generate_latest(registry)
    assert registry.get_sample_value("early") is None
    assert [record.getMessage() for record in caplog.records] == ["metrics of Early cannot be shown"]


def test_calls_are_called_as_opentelemetry_calls_them() -> None:
    registry = CollectorRegistry()
    calls = CallMetrics(registry)
    calls.observe("/sluiceway.x.v1.X/Do", "OK", 0.2)
    calls.observe("other", "UNAUTHENTICATED", 0.0)
    labels = {"rpc_method": "sluiceway.x.v1.X/Do", "rpc_response_status_code": "OK"}
    name = "rpc_server_call_duration_seconds"
    assert registry.get_sample_value(f"{name}_count", labels) == 1
    assert registry.get_sample_value(f"{name}_bucket", labels | {"le": "0.1"}) == 0
    assert registry.get_sample_value(f"{name}_bucket", labels | {"le": "0.25"}) == 1
    other = {"rpc_method": "other", "rpc_response_status_code": "UNAUTHENTICATED"}
    assert registry.get_sample_value(f"{name}_count", other) == 1


def test_a_server_shows_its_state_and_what_it_holds() -> None:
    registry, budget = CollectorRegistry(), MemoryBudget(1000)
    state = "starting"
    registry.register(
        ServerCollector("words", lambda: (["starting", "ready"], state), lambda: state == "ready", budget)
    )
    assert registry.get_sample_value("sluiceway_ready") == 0
    state = "ready"
    assert registry.get_sample_value("sluiceway_ready") == 1
    assert registry.get_sample_value("sluiceway_state", {"state": "ready"}) == 1
    assert registry.get_sample_value("sluiceway_state", {"state": "starting"}) == 0
    with budget.account() as account:
        account.add(5, Phase.WORK)
        assert registry.get_sample_value("sluiceway_account_bytes") == 5
    assert registry.get_sample_value("sluiceway_account_bytes") == 0
    assert registry.get_sample_value("sluiceway_account_limit_bytes") == 1000
    [build] = [family for family in registry.collect() if family.name == "sluiceway_build_info"]
    assert build.samples[0].labels["server"] == "words"


def test_a_loop_that_is_early_is_not_late() -> None:
    registry = CollectorRegistry()
    lag = LoopLag(registry)
    lag.observe(-0.001)
    lag.observe(0.3)
    assert registry.get_sample_value("sluiceway_event_loop_lag_seconds_sum") == 0.3
    assert registry.get_sample_value("sluiceway_event_loop_lag_seconds_count") == 2
