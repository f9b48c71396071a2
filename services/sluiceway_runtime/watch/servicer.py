"""`sluiceway.watch.v1.SampleService`, which every server has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc.aio

from sluiceway.watch.v1 import sample_pb2, sample_pb2_grpc
from sluiceway_runtime.watch.convert import sample_to_proto
from sluiceway_runtime.watch.sample import ServerSample

__all__ = ["SERVICE", "SampleServicer", "add_samples"]

SERVICE = "sluiceway.watch.v1.SampleService"
Context = grpc.aio.ServicerContext[Any, Any]


class SampleServicer(sample_pb2_grpc.SampleServiceServicer):
    """Answers with a sample of this server."""

    def __init__(self, sample: Callable[[], ServerSample]) -> None:
        self._sample = sample

    async def Sample(  # noqa: N802 - the contract's name
        self,
        request: sample_pb2.SampleRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> sample_pb2.SampleResponse:
        """Read the server; see the contract."""
        return sample_to_proto(self._sample())


def add_samples(server: grpc.aio.Server, sample: Callable[[], ServerSample]) -> None:
    """Serve the contract."""
    sample_pb2_grpc.add_SampleServiceServicer_to_server(SampleServicer(sample), server)
