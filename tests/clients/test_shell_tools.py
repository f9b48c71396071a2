"""grpcurl and buf, which bring no stubs: what the server tells of itself has to be enough."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.clients import scripted_pipeline
from tests.clients.conftest import CLIENTS, build, code_name, run_client
from tests.clients.scripted_pipeline import TEXTS, ScriptedPipeline

# The first test of a language builds its program.
pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

SERVICE = "sluiceway.pipeline.v1.PipelineService"


@pytest.fixture(scope="session")
def grpcurl() -> Path:
    build("shell")
    return CLIENTS / "build" / "bin" / "grpcurl"


@pytest.fixture(scope="session")
def buf() -> Path:
    return build("shell-buf")


def ask(program: Path, *arguments: str) -> str:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30, check=True).stdout


def test_lists_the_services(grpcurl: Path, address: str) -> None:
    assert SERVICE in ask(grpcurl, "-plaintext", address, "list").split()
    methods = ask(grpcurl, "-plaintext", address, "list", SERVICE).split()
    assert methods == [f"{SERVICE}.{name}" for name in ("Describe", "Process", "ProcessStream")]


def test_describes_them_with_their_comments(grpcurl: Path, address: str) -> None:
    """Every comment of the protos comes along: whoever reads this needs no file."""
    described = ask(grpcurl, "-plaintext", address, "describe", SERVICE)
    assert "The last message of the" in described
    assert "RESOURCE_EXHAUSTED with RetryInfo" in described
    box = ask(grpcurl, "-plaintext", address, "describe", "sluiceway.common.v1.Box")
    assert "(x1, y1) is the outer corner, so the width is x1 - x0" in box
    for message in ("pipeline.v1.Source", "pipeline.v1.DetectionOptions", "common.v1.Text", "common.v1.Error"):
        lines = ask(grpcurl, "-plaintext", address, "describe", f"sluiceway.{message}").splitlines()
        fields = [number for number, line in enumerate(lines) if "=" in line and line.strip().endswith(";")]
        assert fields
        assert all(lines[number - 1].strip().startswith("//") for number in fields), lines


def test_buf_prints_the_events(buf: Path, address: str, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    output = run_client(buf, images[0], server=address)
    assert output.exit_code == 0, output
    assert [line[-1] for line in output.of("text")] == list(TEXTS)
    [told] = pipeline.records.metadata
    assert int(told["sluiceway-request-bytes"]) >= pipeline.records.jobs[0].ByteSize()
    assert told["sluiceway-priority"] == "normal"
    assert [line[0] for line in output.lines] == [
        "source_ready",
        "regions",
        "box",
        "box",
        "text",
        "text",
        "done",
        "job_done",
    ]


def test_buf_reads_error_info_and_retry_info(
    buf: Path, address: str, pipeline: ScriptedPipeline, images: list[Path]
) -> None:
    pipeline.script = scripted_pipeline.queue_full
    output = run_client(buf, images[0], server=address)
    assert output.exit_code == 1
    [[code, *rest]] = output.of("error")
    assert code_name(code) == "resourceexhausted"
    assert rest == ["QUEUE_FULL", "250", "the queue is full"]
    assert output.of("error_metadata") == [["limit", "256"]]


def test_buf_sets_a_deadline(buf: Path, address: str, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    pipeline.script = scripted_pipeline.hang
    output = run_client(buf, "--timeout", "2", images[0], server=address)
    assert output.exit_code == 1
    assert code_name(output.of("error")[0][0]) == "deadlineexceeded"
    assert 0 < (pipeline.records.time_remaining_s[0] or 0) <= 2


def test_buf_with_tls_and_a_token(
    buf: Path, pipeline: ScriptedPipeline, certificates: Path, images: list[Path]
) -> None:
    pipeline.token = "a-token"
    server, address = scripted_pipeline.start(
        pipeline, (certificates / "server.pem", certificates / "server.key", None)
    )
    try:
        output = run_client(buf, "--ca", certificates / "ca.pem", images[0], server=address, token="a-token")
        refused = run_client(buf, "--ca", certificates / "ca.pem", images[0], server=address, token="another")
        clear = run_client(buf, images[0], server=address, token="a-token")
    finally:
        server.stop(None).wait()
    assert output.exit_code == 0, output
    assert code_name(refused.of("error")[0][0]) == "unauthenticated"
    assert refused.of("error")[0][1] == "UNAUTHENTICATED"
    assert (clear.exit_code, "TLS" in clear.stderr) == (2, True)
    assert len(pipeline.records.metadata) == 2
