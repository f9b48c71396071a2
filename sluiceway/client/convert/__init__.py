"""Between the messages on the wire and this library's own types; only this and `connection` see the stubs."""

from sluiceway.client.convert.describe import from_describe
from sluiceway.client.convert.failure import error_from_rpc, is_named
from sluiceway.client.convert.request import JobRequest, call_metadata, size_fault, to_request
from sluiceway.client.convert.response import from_response
from sluiceway.client.convert.watch import from_watch, to_watch

__all__ = [
    "JobRequest",
    "call_metadata",
    "error_from_rpc",
    "from_describe",
    "from_response",
    "from_watch",
    "is_named",
    "size_fault",
    "to_request",
    "to_watch",
]
