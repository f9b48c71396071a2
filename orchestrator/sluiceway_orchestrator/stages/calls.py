"""What the calls of every stage share: what they carry, how health is watched, when they are repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    Cancelled,
    DeadlineExceeded,
    ImageTooLarge,
    QueueFull,
    SluicewayError,
    Unavailable,
    WrongGroup,
)
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.status import from_rpc_error, names_itself

from sluiceway.common.v1 import model_pb2
from sluiceway_orchestrator.events import Model, StageTimings
from sluiceway_orchestrator.stages.balancer import Report
from sluiceway_orchestrator.stages.group import Group, GroupGone
from sluiceway_orchestrator.stages.replica import Replica
from sluiceway_orchestrator.stages.stage import Lease, Stage, Ticket

__all__ = [
    "Failures",
    "as_it_is",
    "call_metadata",
    "model_of",
    "remaining_s",
    "report_of",
    "timings_of",
    "watch",
]

# A call broken off by the network shows as UNAVAILABLE; one that a dying server ended itself, as CANCELLED.
_BROKEN = (Unavailable, Cancelled)
# How gRPC, at either end, says that a message is over a limit. Its code is the one of a full queue.
_OVER_LIMIT = "message larger than max"
# Calls of one request that may break off: what broke two fronts may well be why, and is not tried on more.
MAX_BREAKS = 2
# Times that one request is sent to replicas that have no room, each to another if there is one. Its bytes travel each
# time, so a stage that is full hears no more than this of it, and the client hears that the stage is full.
MAX_SENDS = 3
# Refusals of replicas that start or drain. They cost nothing but the way.
MAX_TURNED_AWAY = 8
# Refusals by replicas of another version, behind an address that stands for several. They come before anything is read,
# so they cost little; by chance nobody meets so many, but calls that are tried in step may meet a dozen.
MAX_STRAYS = 24
# After the first refusal (queue full) without a hint of the replica's own; longer after each further one.
BUSY_HOLD_S = 0.02
BUSY_GROWTH = 4.0
LONGEST_BUSY_HOLD_S = 1.0


def as_it_is(message: bytes) -> bytes:
    """Serialise nothing: messages of stages travel as bytes."""
    return message


async def watch(channel: grpc.aio.Channel, service: str) -> AsyncIterator[bool]:
    """Whether a service is SERVING, at once and at each change. Raises grpc.aio.AioRpcError."""
    method = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    call = method(health_pb2.HealthCheckRequest(service=service), wait_for_ready=True)
    try:
        while isinstance(answer := await call.read(), health_pb2.HealthCheckResponse):
            yield answer.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        call.cancel()


def call_metadata(ticket: Ticket, group: Group[Any], size_bytes: int) -> tuple[tuple[str, str], ...]:
    """What a call to a stage carries, so that it is admitted before it is read; see common/v1/error.proto."""
    carried = [("x-request-id", ticket.request_id), ("sluiceway-request-bytes", str(size_bytes))]
    # What is not said is normal.
    if ticket.priority is not Priority.NORMAL:
        carried.append(("sluiceway-priority", ticket.priority.name.lower()))
    if group.declared:
        carried.append(("sluiceway-group", group.declared))
    return tuple(carried)


def remaining_s(deadline: Deadline) -> float:
    """Seconds left for a call. Raises DeadlineExceeded where there are none."""
    seconds = deadline.remaining_s()
    if seconds <= 0:
        raise DeadlineExceeded("the time ran out before a stage was called")
    return seconds


class Failures:
    """Decides about the failed calls of one request for a version of a stage."""

    def __init__(self, stage: Stage[Any], group: Group[Any]) -> None:
        self._stage = stage
        self._group = group
        self._breaks = 0
        self._refusals = 0
        self._turned_away = 0
        self._strays = 0
        self.avoid: Replica[Any] | None = None

    def handle(self, lease: Lease[Any], failure: grpc.aio.AioRpcError | Unavailable) -> None:
        """Return to try again elsewhere; raise the error otherwise.

        Raises:
            GroupGone: replicas of another version answer in place of the one that was asked for.
            SluicewayError: whatever the client should hear.
        """
        if isinstance(failure, grpc.aio.AioRpcError):
            error: SluicewayError = from_rpc_error(failure)
            # Whether the replica itself refused it, so that it certainly did no work, or the connection broke.
            named = names_itself(failure)
        else:
            error, named = failure, False
        self.avoid = lease.replica
        if isinstance(error, WrongGroup):
            self._stray(lease)
            self._stage.retried["version"] += 1
        elif not isinstance(error, (*_BROKEN, QueueFull)):
            raise error from None
        elif not named:
            self._broke(lease, error)
            self._stage.retried["broke"] += 1
        elif isinstance(error, QueueFull):
            self._refused(lease, error)
            self._stage.retried["full"] += 1
        else:
            self._turned_away += 1
            lease.replica.failed()
            if self._turned_away >= MAX_TURNED_AWAY:
                raise error from None
            self._stage.retried["leaving"] += 1

    def _stray(self, lease: Lease[Any]) -> None:
        self._strays += 1
        gone = self._strays >= MAX_STRAYS
        lease.replica.look_again(self._group.name if gone else None)
        if gone:
            raise GroupGone(self._stage.name) from None

    def _broke(self, lease: Lease[Any], error: SluicewayError) -> None:
        if _OVER_LIMIT in error.message:
            raise ImageTooLarge(
                f"the image or its crops are over max_message_bytes of the orchestrator or of {self._stage.name}",
                metadata={"limit": error.message},
            ) from None
        self._breaks += 1
        lease.replica.failed()
        if self._breaks >= MAX_BREAKS or not self._stage.retries.spend():
            raise Unavailable(f"{self._stage.name} broke off", retry_after_s=1.0) from None

    def _refused(self, lease: Lease[Any], error: QueueFull) -> None:
        hint_s = error.retry_after_s or BUSY_HOLD_S * BUSY_GROWTH**self._refusals
        lease.replica.hold(min(hint_s, LONGEST_BUSY_HOLD_S))
        self._refusals += 1
        if self._refusals >= MAX_SENDS or not self._stage.retries.spend():
            if error.retry_after_s is None:
                error.retry_after_s = hint_s
            raise error from None


def report_of(load: model_pb2.Load) -> Report:
    """How busy a replica says that it is."""
    return Report(load.queued, load.running, load.capacity, load.queue_ms)


def model_of(model: model_pb2.Model) -> Model:
    """Identity of the weights behind an answer."""
    return Model(model.name, model.version, model.weights_sha256)


def timings_of(timings: model_pb2.StageTimings, lease: Lease[Any] | None) -> StageTimings:
    """Milliseconds inside a stage, as it says itself, and what came to them outside, by our own clock.

    Without a lease nothing is said of the outside: a call that brings one answer after the other has no time of each.
    """
    queue_ms, compute_ms, total_ms = timings.queue_ms, timings.compute_ms, timings.total_ms
    batch_ms = total_ms - queue_ms - compute_ms
    waited_ms = lease.waited_s * 1000 if lease is not None else 0.0
    transfer_ms = (monotonic() - lease.granted_s) * 1000 - total_ms if lease is not None else 0.0
    return StageTimings(
        queue_ms,
        compute_ms,
        total_ms,
        timings.decode_ms,
        batch_ms if batch_ms > 0 else 0.0,
        waited_ms,
        transfer_ms if transfer_ms > 0 else 0.0,
    )
