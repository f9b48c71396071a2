"""Every client against a server that does what a test tells it: events, errors, deadlines, flow control, TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sluiceway.common.v1 import model_pb2
from tests.clients import scripted_pipeline
from tests.clients.conftest import Run, code_name
from tests.clients.scripted_pipeline import TEXTS, ScriptedPipeline

# The first test of a language builds its program.
pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

TOKEN = "a-token"


def test_prints_every_event_of_a_job(run: Run, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    output = run(*images[:2])
    assert output.exit_code == 0, output
    expected = []
    for image in images[:2]:
        expected += [
            ["source_ready", image.name, str(len(image.read_bytes()))],
            ["regions", image.name, "640", "480", "2"],
            ["box", image.name, "0", "1.50 10.50 100.25 30.50", "textline", "0.7500"],
            ["box", image.name, "1", "1.50 60.25 100.25 80.25", "textline", "0.7500"],
            ["text", image.name, "0", "0.5000", TEXTS[0]],
            ["text", image.name, "1", "0.5000", TEXTS[1]],
            ["done", image.name, "1 0"],
        ]
    assert output.lines[:-1] == expected
    assert output.lines[-1][0] == "job_done"
    assert output.lines[-1][2:] == ["2", "0"]
    assert [source.image for source in pipeline.records.jobs[0].sources] == [i.read_bytes() for i in images[:2]]


def test_prints_the_corners_of_turned_and_free_shapes(run: Run, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    pipeline.script = scripted_pipeline.turned_lines
    output = run(images[0])
    assert output.exit_code == 0, output
    assert [line[1] for line in output.of("box")] == ["0", "1"]
    assert output.of("outline") == [
        ["0.png", "2", "-0.99 9.04 24.99 24.04 20.99 30.96 -4.99 15.96", "text", "0.5000"],
        ["0.png", "3", "10.00 10.00 20.50 5.00 30.00 10.00 25.00 20.25", "text", "0.5000"],
        ["0.png", "4", "10.00 10.00 20.50 5.00 30.00 10.00 25.00 20.25 15.00 20.00", "text", "0.5000"],
    ]


@pytest.mark.parametrize("mode", [(), ("--bulk", "1")], ids=["one job", "stream"])
def test_prints_keypoints_and_classes(
    run: Run, pipeline: ScriptedPipeline, images: list[Path], mode: tuple[str, ...]
) -> None:
    pipeline.script = scripted_pipeline.seen_and_named
    output = run(*mode, images[0])
    assert output.exit_code == 0, output
    assert output.of("keypoints") == [["0.png", "0", "10.00 20.50 1.00 -3.25 7.00 0.25"]]
    assert output.of("class") == [["0.png", "1", "0.7500", "a"]]
    # Of a page of its own, whose number is all that it has.
    assert output.of("page_class") == [["0.png", "1", "0.7500", "c"]]
    # In the order of the events, or of reading.
    assert {line[-1] for line in output.of("text")} == set(TEXTS)


def test_a_failed_source_is_told_and_leaves_the_others(
    run: Run, pipeline: ScriptedPipeline, images: list[Path]
) -> None:
    pipeline.script = scripted_pipeline.fail_first
    output = run(*images[:2])
    assert output.exit_code == 1
    assert output.of("failed") == [["0.png", "INVALID_IMAGE", "not an image"]]
    assert [line[1:] for line in output.of("text")] == [["0", "0.5000", TEXTS[0]], ["1", "0.5000", TEXTS[1]]]


def test_reads_error_info_and_retry_info(run: Run, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    pipeline.script = scripted_pipeline.queue_full
    output = run(images[0])
    assert output.exit_code == 1
    [[code, reason, retry_ms, message]] = output.of("error")
    assert (code_name(code), reason, retry_ms, message) == (
        "resourceexhausted",
        "QUEUE_FULL",
        "250",
        "the queue is full",
    )
    assert output.of("error_metadata") == [["limit", "256"]]


def test_sets_a_deadline_and_reports_that_it_passed(run: Run, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    pipeline.script = scripted_pipeline.hang
    output = run("--timeout", "1.5", images[0])
    assert output.exit_code == 1
    assert code_name(output.of("error")[0][0]) == "deadlineexceeded"
    [remaining_s] = pipeline.records.time_remaining_s
    assert remaining_s is not None
    assert 0 < remaining_s <= 1.5
    assert pipeline.records.cancelled.wait(5)


def test_cancelling_ends_the_call_on_the_server(run: Run, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    pipeline.script = scripted_pipeline.hang
    output = run("--cancel-after", "1", images[0])
    assert output.exit_code == 1
    assert len(output.of("source_ready")) == 1
    assert code_name(output.of("error")[0][0]) in ("cancelled", "canceled")
    assert pipeline.records.cancelled.wait(5)


def test_bulk_sends_no_more_than_its_window(run: Run, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    pipeline.hold_until = 3
    output = run("--bulk", "3", *images)
    assert output.exit_code == 0, output
    assert sorted(line[0] for line in output.of("done")) == sorted(image.name for image in images)
    assert len(output.of("text")) == 2 * len(images)
    # Exactly: a client that sends one job, waits for its end and sends the next does not use the stream.
    assert pipeline.records.most_unfinished == 3


def test_a_refused_job_is_told_and_leaves_the_stream(run: Run, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    pipeline.script = scripted_pipeline.refuse_first
    # With a window of one job, a client that waits for the end of the refused one would send no other.
    output = run("--bulk", "1", *images[:3])
    assert output.exit_code == 1
    assert [line[0] for line in output.of("done")] == ["1.png", "2.png"]
    # The Python library names the source that it was, and the others the job.
    [told] = output.of("refused") or output.of("failed")
    assert "UNKNOWN_PIPELINE" in told
    assert told[-1] == "no such pipeline"


def test_says_how_much_and_how_urgent_before_it_is_read(
    run: Run, program: Path, pipeline: ScriptedPipeline, images: list[Path]
) -> None:
    assert run(*images[:2]).exit_code == 0
    [told] = pipeline.records.metadata
    size_bytes = pipeline.records.jobs[0].ByteSize()
    # grpcurl makes the message, so that the script can only say what is surely enough.
    surely = size_bytes + 200 if program.parent.name == "shell" else size_bytes
    assert size_bytes <= int(told["sluiceway-request-bytes"]) <= surely
    assert told["sluiceway-priority"] == "normal"


def test_a_stream_says_that_it_is_bulk(run: Run, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    assert run("--bulk", "2", "--timeout", "30.5", *images[:2]).exit_code == 0
    [told] = pipeline.records.metadata
    # The size of the largest job is not known when a stream begins.
    assert (told.get("sluiceway-request-bytes"), told["sluiceway-priority"]) == (None, "bulk")
    assert [job.options.priority for job in pipeline.records.jobs] == [model_pb2.PRIORITY_BULK] * 2
    # The time is that of each job; a deadline of the stream would end it with all of them.
    assert [job.timeout.ToMilliseconds() for job in pipeline.records.jobs] == [30_500] * 2
    assert (pipeline.records.time_remaining_s[0] or 1e9) > 1e6


@pytest.mark.parametrize("mode", [(), ("--bulk", "2")], ids=["one job", "stream"])
def test_a_file_that_is_not_there_is_told(run: Run, mode: tuple[str, ...], images: list[Path]) -> None:
    output = run(*mode, images[0], images[1].with_name("missing.png"))
    assert output.exit_code != 0
    assert "missing.png" in output.stderr + str(output.lines)


def test_ignores_what_a_newer_server_adds(run: Run, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    pipeline.script = scripted_pipeline.from_the_future
    output = run(images[0])
    assert output.exit_code == 0, output
    # What a region of an unknown shape looks like cannot be told.
    assert [line[1] for line in output.of("box")] == ["0", "1"]
    assert not output.of("outline")
    assert [line[-1] for line in output.of("text")] == list(TEXTS)


@pytest.fixture(params=["server certificate", "mutual"])
def secure_address(request: pytest.FixtureRequest, pipeline: ScriptedPipeline, certificates: Path) -> Iterator[str]:
    """A server with TLS that wants a token and, if mutual, a certificate of the client."""
    pipeline.token = TOKEN
    authority = certificates / "ca.pem" if request.param == "mutual" else None
    server, address = scripted_pipeline.start(
        pipeline, (certificates / "server.pem", certificates / "server.key", authority)
    )
    yield address
    server.stop(None).wait()


def test_tls_and_token(
    run: Run, pipeline: ScriptedPipeline, secure_address: str, certificates: Path, images: list[Path]
) -> None:
    tls = ("--ca", certificates / "ca.pem", "--cert", certificates / "client.pem", "--key", certificates / "client.key")
    output = run(*tls, images[0], server=secure_address, token=TOKEN)
    assert output.exit_code == 0, output
    assert len(output.of("text")) == 2
    bulk = run(*tls, "--bulk", "2", *images[:3], server=secure_address, token=TOKEN)
    assert bulk.exit_code == 0, bulk
    refused = run(*tls, images[0], server=secure_address, token="another")
    assert refused.exit_code == 1
    assert (code_name(refused.of("error")[0][0]), refused.of("error")[0][1]) == ("unauthenticated", "UNAUTHENTICATED")
    assert [metadata.get("authorization") for metadata in pipeline.records.metadata] == [
        f"Bearer {TOKEN}",
        f"Bearer {TOKEN}",
        "Bearer another",
    ]


def test_a_token_never_travels_in_the_clear(run: Run, pipeline: ScriptedPipeline, images: list[Path]) -> None:
    output = run(images[0], token=TOKEN)
    assert output.exit_code != 0
    assert "TLS" in output.stderr + str(output.lines)
    assert pipeline.records.metadata == []
