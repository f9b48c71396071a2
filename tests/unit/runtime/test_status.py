"""The error table, both ways: every error keeps its reason, message, metadata and delay over the wire."""

import pickle

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from sluiceway_runtime import errors
from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.server.convert import error_from_proto, error_to_proto
from sluiceway_runtime.server.status import DETAILS_KEY, code_of, from_rpc_error, names_itself, trailers

from sluiceway.common.v1 import error_pb2

# The table of DESIGN.md, written out by hand: reason -> code.
TABLE = {
    errors.InvalidImage: ("INVALID_IMAGE", "INVALID_ARGUMENT"),
    errors.ImageTooLarge: ("IMAGE_TOO_LARGE", "INVALID_ARGUMENT"),
    errors.InvalidOption: ("INVALID_OPTION", "INVALID_ARGUMENT"),
    errors.UnknownApi: ("UNKNOWN_API", "INVALID_ARGUMENT"),
    errors.UnknownModel: ("UNKNOWN_MODEL", "INVALID_ARGUMENT"),
    errors.UnknownPipeline: ("UNKNOWN_PIPELINE", "INVALID_ARGUMENT"),
    errors.WrongGroup: ("WRONG_GROUP", "FAILED_PRECONDITION"),
    errors.QueueFull: ("QUEUE_FULL", "RESOURCE_EXHAUSTED"),
    errors.Unavailable: ("UNAVAILABLE", "UNAVAILABLE"),
    errors.DeadlineExceeded: ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
    errors.Cancelled: ("CANCELLED", "CANCELLED"),
    errors.UpstreamFailed: ("UPSTREAM_FAILED", "UNAVAILABLE"),
    errors.UpstreamRefused: ("UPSTREAM_REFUSED", "FAILED_PRECONDITION"),
    errors.UrlNotAllowed: ("URL_NOT_ALLOWED", "PERMISSION_DENIED"),
    errors.Unauthenticated: ("UNAUTHENTICATED", "UNAUTHENTICATED"),
    errors.ModelFailed: ("MODEL_FAILED", "INTERNAL"),
    errors.Quarantined: ("QUARANTINED", "INTERNAL"),
    errors.Internal: ("INTERNAL", "INTERNAL"),
}


def rpc_error(code: grpc.StatusCode, trailing: tuple[tuple[str, bytes], ...] = ()) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details="said so")


@pytest.mark.parametrize(("kind", "expected"), TABLE.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_every_error_survives_the_wire(kind: type[SluicewayError], expected: tuple[str, str]) -> None:
    error = kind("what happened", metadata={"limit": "3"}, retry_after_s=1.5)
    assert (error.reason, code_of(error).name) == expected
    for back in (
        from_rpc_error(rpc_error(code_of(error), trailers(error))),
        error_from_proto(error_to_proto(error)),
        pickle.loads(pickle.dumps(error)),
    ):
        assert type(back) is kind
        assert (back.message, back.metadata, back.retry_after_s) == ("what happened", {"limit": "3"}, 1.5)


def test_error_info_and_retry_info_are_the_standard_ones() -> None:
    ((key, value),) = trailers(errors.QueueFull("full", retry_after_s=0.25))
    assert key == DETAILS_KEY
    status = status_pb2.Status.FromString(value)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.domain, info.reason, retry.retry_delay.ToMilliseconds()) == ("sluiceway", "QUEUE_FULL", 250)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Internal),
        (grpc.StatusCode.DATA_LOSS, errors.Internal),
    ],
)
def test_codes_without_details_are_mapped_by_code(code: grpc.StatusCode, kind: type[SluicewayError]) -> None:
    assert type(from_rpc_error(rpc_error(code))) is kind


def test_unexpected_exceptions_show_nothing_of_themselves() -> None:
    message = error_to_proto(KeyError("/etc/secret"))
    assert "secret" not in str(message)
    assert (message.reason, message.code) == ("INTERNAL", grpc.StatusCode.INTERNAL.value[0])


def test_a_newer_peers_reason_is_kept() -> None:
    error = error_from_proto(error_pb2.Error(code=8, reason="QUOTA", message="too much"))
    assert type(error) is errors.Internal
    assert error.metadata == {"reason": "QUOTA", "code": "RESOURCE_EXHAUSTED"}


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
@pytest.mark.parametrize("fault", ["status", "detail"])
def test_details_that_cannot_be_read_are_a_reply_that_broke(code: grpc.StatusCode, fault: str) -> None:
    value = b"\xff\xff\xff"
    if fault == "detail":
        info = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=value)
        value = status_pb2.Status(code=13, message="no", details=[info]).SerializeToString()
    error = rpc_error(code, ((DETAILS_KEY, value),))
    assert type(from_rpc_error(error)) is errors.Unavailable
    assert not names_itself(error)


def test_what_a_server_said_itself_is_told_from_what_stands_between() -> None:
    said = errors.Unavailable("starting")
    assert names_itself(rpc_error(code_of(said), trailers(said)))
    assert not names_itself(rpc_error(grpc.StatusCode.UNAVAILABLE))
