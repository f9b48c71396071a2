"""What the client makes of ends that no Sluiceway server named."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
import pytest

from sluiceway import errors
from sluiceway.client import AsyncClient, Tls
from sluiceway.client.convert import error_from_rpc, from_response
from sluiceway.client.options import RetryPolicy
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
