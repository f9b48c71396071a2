"""Asks every replica of every stage for a sample, and this orchestrator for its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import grpc
import grpc.aio
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.watch import ServerSample
from sluiceway_runtime.watch.convert import sample_from_proto

from sluiceway.watch.v1 import sample_pb2
from sluiceway_orchestrator.fetch.api import Api
from sluiceway_orchestrator.stages.replica import Replica
from sluiceway_orchestrator.stages.stage import Stage
from sluiceway_orchestrator.watch.samples import ClusterSample, ReplicaSample, StageSample, Work

__all__ = ["ClusterSampler"]

# A replica that is there answers within milliseconds. One that hangs must not hold up what is told of the others.
ANSWER_S = 0.5
_SAMPLE = "/sluiceway.watch.v1.SampleService/Sample"
# With its size a call needs none of the few places of those that do not tell it; see common/v1/error.proto.
_METADATA = (("sluiceway-request-bytes", "0"),)


class ClusterSampler:
    """Takes samples for all who watch, of everything at once; several that ask at a time share one.

    Args:
        stages: whose replicas are asked.
        apis: by name.
        work: what this orchestrator has to do.
        own: a sample of this server.
    """

    def __init__(
        self,
        stages: Collection[Stage[Any]],
        apis: Mapping[str, Api],
        *,
        work: Callable[[], Work],
        own: Callable[[], ServerSample],
    ) -> None:
        self._stages = stages
        self._apis = apis
        self._work = work
        self._own = own
        self._last: ClusterSample | None = None
        self._asking: asyncio.Task[ClusterSample] | None = None

    async def sample(self, max_age_s: float) -> ClusterSample:
        """A sample that is no older than this."""
        last = self._last
        if last is not None and monotonic() - last.at_s <= max_age_s:
            return last
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="sample the cluster")
            self._asking.add_done_callback(self._asked)
        # Whoever leaves does not end what others wait for, too.
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """End what is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    def _asked(self, asking: asyncio.Task[ClusterSample]) -> None:
        self._asking = None
        if not asking.cancelled() and asking.exception() is None:
            self._last = asking.result()

    async def _ask(self) -> ClusterSample:
        stages = await asyncio.gather(*(self._stage(stage) for stage in self._stages))
        apis = tuple(api.use() for _, api in sorted(self._apis.items()))
        return ClusterSample(monotonic(), self._own(), self._work(), tuple(stages), apis)

    async def _stage(self, stage: Stage[Any]) -> StageSample:
        groups = {id(member): group.name for group, members in stage.members for member in members}
        replicas = stage.replicas
        samples = await asyncio.gather(*(_sample_of(replica) for replica in replicas))
        return StageSample(
            stage.name,
            stage.kind,
            stage.backlog_items,
            stage.waits.oldest_s(monotonic()) * 1000,
            tuple(
                ReplicaSample(
                    replica.address,
                    replica.ready,
                    groups.get(id(replica), ""),
                    replica.occupancy.in_flight,
                    replica.occupancy.report,
                    sample,
                )
                for replica, sample in zip(replicas, samples, strict=True)
            ),
        )


async def _sample_of(replica: Replica[Any]) -> ServerSample | None:
    ask = replica.channel.unary_unary(
        _SAMPLE,
        request_serializer=sample_pb2.SampleRequest.SerializeToString,
        response_deserializer=sample_pb2.SampleResponse.FromString,
    )
    try:
        answer: sample_pb2.SampleResponse = await ask(sample_pb2.SampleRequest(), timeout=ANSWER_S, metadata=_METADATA)
    except grpc.aio.AioRpcError:
        # Not there, or of a release that knows no samples.
        return None
    except grpc.aio.UsageError:
        # Its channel was closed at this moment.
        return None
    return sample_from_proto(answer)
