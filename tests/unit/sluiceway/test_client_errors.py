"""What the client makes of ends that no Sluiceway server named."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
import pytest

from sluiceway import errors
from sluiceway.client import AsyncClient, JobDone, Regions, SourceFailed, SourceReady, Tls
from sluiceway.client.convert import error_from_rpc, from_response
from sluiceway.client.patience import RetryPolicy
from sluiceway.common.v1 import error_pb2, geometry_pb2
from sluiceway.pipeline.v1 import pipeline_pb2


def ended(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=code.name)


def test_a_server_that_stops_is_unavailable_and_tried_again() -> None:
    error = error_from_rpc(ended(grpc.StatusCode.CANCELLED), "host:1")
    assert isinstance(error, errors.Unavailable)
    assert error.code == "UNAVAILABLE"
    assert RetryPolicy().delay_s(error, 1, 10) is not None


def test_a_stream_that_ends_while_a_job_is_written_is_unavailable_and_tried_again() -> None:
    trailers = grpc.aio.Metadata()
    broken = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL,
        trailers,
        trailers,
        details="Internal error from Core",
        debug_error_string='Failed "execute_batch": (<grpc._cython.cygrpc.SendMessageOperation object>,)',
    )
    error = error_from_rpc(broken, "host:1")
    assert isinstance(error, errors.Unavailable)
    assert RetryPolicy().delay_s(error, 1, 10) is not None


def test_what_this_side_cancelled_is_cancelled() -> None:
    error = error_from_rpc(ended(grpc.StatusCode.CANCELLED), "host:1", closed=True)
    assert isinstance(error, errors.Cancelled)
    assert RetryPolicy().delay_s(error, 1, 10) is None


@pytest.mark.parametrize("source_id", ["2", "a", "-1", "²", "9" * 50])
def test_an_answer_about_a_source_that_was_not_sent_is_a_fault_of_the_server(source_id: str) -> None:
    message = pipeline_pb2.ProcessResponse(source_id=source_id, source_ready=pipeline_pb2.SourceReady())
    with pytest.raises(errors.ServerFault):
        from_response(message, ["x", "y"])


@pytest.mark.parametrize(
    ("number", "plain"), [(3.0, "3"), (-2.5, "-2.5"), (1e300, "1e+300"), (float("nan"), "None"), (float("inf"), "None")]
)
def test_numbers_of_apis_can_be_written_as_json(number: float, plain: str) -> None:
    ready = pipeline_pb2.SourceReady()
    ready.values["shop"].fields["n"].number_value = number
    event = from_response(pipeline_pb2.ProcessResponse(source_id="0", source_ready=ready), ["x"])
    assert isinstance(event, SourceReady)
    assert str(event.values["shop"]["n"]) == plain


def test_a_refused_job_is_a_job_that_is_done() -> None:
    refused = error_pb2.Error(code=8, reason="QUEUE_FULL", message="full", retry_after_ms=250)
    message = pipeline_pb2.ProcessResponse(job_refused=pipeline_pb2.JobRefused(error=refused))
    event = from_response(message, ["x"])
    assert isinstance(event, JobDone)
    assert isinstance(event.error, errors.QueueFull)
    assert event.error.retry_after_s == 0.25


def test_a_time_to_come_back_that_has_passed_is_none() -> None:
    failed = pipeline_pb2.SourceFailed(error=error_pb2.Error(code=8, reason="QUEUE_FULL", retry_after_ms=-1))
    event = from_response(pipeline_pb2.ProcessResponse(source_id="0", failed=failed), ["x"])
    assert isinstance(event, SourceFailed)
    assert event.error.retry_after_s is None


def test_shapes_without_corners_are_passed_over() -> None:
    empty = geometry_pb2.Geometry(polygon=geometry_pb2.Polygon())
    regions = pipeline_pb2.Regions(regions=[pipeline_pb2.Region(id=1, geometry=empty)])
    event = from_response(pipeline_pb2.ProcessResponse(source_id="0", regions=regions), ["x"])
    assert isinstance(event, Regions)
    assert event.regions == ()


@pytest.mark.parametrize("who", ["SERVER: Received", "CLIENT: Received", "CLIENT: Sent"])
def test_a_message_that_grpc_does_not_take_is_no_full_queue(who: str) -> None:
    """A full queue is worth another try; this never fits."""
    metadata = grpc.aio.Metadata()
    details = f"{who} message larger than max (70000000 vs. 67108864)"
    refused = grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, metadata, metadata, details=details)
    error = error_from_rpc(refused, "host:1")
    assert isinstance(error, errors.ImageTooLarge)
    assert error.message == details


def test_whoever_never_gives_up_may_fail_any_number_of_times() -> None:
    policy = RetryPolicy(attempts=10**9)
    delay_s = policy.delay_s(errors.Unavailable("gone"), 100_000, None)
    assert delay_s is not None
    assert delay_s <= policy.max_delay_s


@pytest.mark.parametrize("token", ["secret\n", "pässwort"])
async def test_a_token_that_no_header_can_hold(token: str) -> None:
    with pytest.raises(errors.InvalidOption, match="token") as caught:
        AsyncClient("127.0.0.1:1", token=token)
    assert token.strip() not in str(caught.value)


@pytest.mark.parametrize("name", ["ca", "certificate", "key"])
async def test_files_of_a_connection_that_are_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidOption, match=r"cannot read .*nowhere\.pem"):
        AsyncClient("127.0.0.1:1", tls=Tls(**{name: tmp_path / "nowhere.pem"}))


async def test_authorities_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("hello")
    with pytest.raises(errors.InvalidOption, match=r"no certificates in .*ca\.pem"):
        AsyncClient("127.0.0.1:1", tls=Tls(ca=tmp_path / "ca.pem"))
