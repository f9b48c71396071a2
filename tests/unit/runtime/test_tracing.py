"""W3C trace context, and the variables that switch traces on."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
from sluiceway_runtime.tracing import TraceContext, open_tracer
from sluiceway_runtime.tracing.context import parsed

from sluiceway.telemetry import make_exporter, traces_wanted

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_traceparent_is_read_and_said_as_it_came() -> None:
    found = parsed(f"00-{TRACE}-{SPAN}-01", "vendor=1")
    assert found == TraceContext(int(TRACE, 16), int(SPAN, 16), sampled=True, state="vendor=1")
    assert found.headers == (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=1"))
    below = found.below()
    assert (below.trace_id, below.sampled, below.state) == (found.trace_id, True, "vendor=1")
    assert below.span_id != found.span_id


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("03", True), ("02", False)])
def test_one_flag_says_whether_it_is_recorded(flags: str, sampled: bool) -> None:
    found = parsed(f"00-{TRACE}-{SPAN}-{flags}")
    assert found is not None
    assert found.sampled is sampled


def test_a_later_version_may_say_more() -> None:
    assert parsed(f"01-{TRACE}-{SPAN}-01-more") is not None
    assert parsed(f"00-{TRACE}-{SPAN}-01-more") is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"bytes",
        "",
        "nothing of the kind",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_what_is_none_is_none(text: Any) -> None:
    assert parsed(text) is None


def test_a_long_state_is_left_out() -> None:
    found = parsed(f"00-{TRACE}-{SPAN}-01", "x" * 600)
    assert found is not None
    assert found.state == ""


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_the_standard_variables_switch_them_on(variables: dict[str, str], wanted: bool) -> None:
    assert traces_wanted(variables) is wanted


def test_an_exporter_that_is_not_there_is_named() -> None:
    with pytest.raises(LookupError, match="no exporter of traces is called carrier_pigeon"):
        make_exporter({"OTEL_TRACES_EXPORTER": "carrier_pigeon"})
    with pytest.raises(LookupError, match="http/protobuf, grpc"):
        make_exporter({"OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"})


def test_a_server_runs_without_traces_that_cannot_be_had(caplog: pytest.LogCaptureFixture) -> None:
    """The variables may be there for other programs."""
    with caplog.at_level(logging.WARNING):
        assert open_tracer({"OTEL_TRACES_EXPORTER": "carrier_pigeon"}, "detection") is None
    assert "no traces" in caplog.text


def test_what_is_off_is_not_imported() -> None:
    program = """
import sys
import sluiceway, sluiceway.client, sluiceway.cli.app
import sluiceway_orchestrator.service, sluiceway_runtime.server.main
from sluiceway_runtime.tracing import open_tracer
assert open_tracer({}, "orchestrator") is None
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
