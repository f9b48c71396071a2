"""Samples to messages, and back."""

from __future__ import annotations

from sluiceway.watch.v1 import sample_pb2
from sluiceway_runtime.pool import Counters, PoolStatistics, WorkerState, WorkerStatistics
from sluiceway_runtime.watch.sample import FrontSample, GpuSample, ServerSample

__all__ = ["sample_from_proto", "sample_to_proto"]

_COUNTERS = tuple(Counters.__dataclass_fields__)
_FRONT = tuple(FrontSample.__dataclass_fields__)


def sample_to_proto(sample: ServerSample) -> sample_pb2.SampleResponse:
    """The message for a sample."""
    message = sample_pb2.SampleResponse(
        server_version=sample.server_version,
        state=sample.state,
        at_s=sample.at_s,
        uptime_s=sample.uptime_s,
        front=sample_pb2.FrontSample(**{name: getattr(sample.front, name) for name in _FRONT}),
        calls=sample_pb2.DurationCounts(counts=_without_zeros_at_the_end(sample.calls)),
        gpus=[
            sample_pb2.GpuSample(
                index=gpu.index,
                name=gpu.name,
                utilisation=gpu.utilisation,
                memory_used_bytes=gpu.memory_used_bytes,
                memory_total_bytes=gpu.memory_total_bytes,
            )
            for gpu in sample.gpus
        ],
    )
    pool = sample.pool
    if pool is not None:
        message.pool.CopyFrom(
            sample_pb2.PoolSample(
                queued=pool.queued,
                running=pool.running,
                capacity=pool.capacity,
                queue_ms=max(pool.queue_ms, pool.oldest_wait_s * 1000),
                workers=[_worker_to_proto(worker) for worker in pool.workers],
                **{name: getattr(pool.counters, name) for name in _COUNTERS},
            )
        )
    return message


def sample_from_proto(message: sample_pb2.SampleResponse) -> ServerSample:
    """The sample of a message; what a newer server says besides is left out."""
    front = {name: getattr(message.front, name) for name in _FRONT}
    if not message.front.HasField("loop_starved_s"):
        front["loop_starved_s"] = None
    return ServerSample(
        server_version=message.server_version,
        state=message.state,
        at_s=message.at_s,
        uptime_s=message.uptime_s,
        front=FrontSample(**front),
        pool=_pool_from_proto(message.pool) if message.HasField("pool") else None,
        calls=tuple(message.calls.counts),
        gpus=tuple(
            GpuSample(
                index=gpu.index,
                name=gpu.name,
                utilisation=gpu.utilisation if gpu.HasField("utilisation") else None,
                memory_used_bytes=gpu.memory_used_bytes,
                memory_total_bytes=gpu.memory_total_bytes,
            )
            for gpu in message.gpus
        ),
    )


def _worker_to_proto(worker: WorkerStatistics) -> sample_pb2.WorkerSample:
    return sample_pb2.WorkerSample(
        index=worker.index,
        pid=worker.pid or 0,
        state=worker.state.value,
        busy_s=worker.busy_s,
        batches=worker.batches,
        items=worker.items,
        restarts=worker.restarts,
    )


def _pool_from_proto(message: sample_pb2.PoolSample) -> PoolStatistics:
    return PoolStatistics(
        queued=message.queued,
        queued_bytes=0,
        running=message.running,
        capacity=message.capacity,
        queue_ms=message.queue_ms,
        workers=tuple(
            WorkerStatistics(
                index=worker.index,
                pid=worker.pid or None,
                state=_state_of(worker.state),
                batches=worker.batches,
                items=worker.items,
                restarts=worker.restarts,
                busy_s=worker.busy_s,
            )
            for worker in message.workers
        ),
        counters=Counters(**{name: getattr(message, name) for name in _COUNTERS}),
        oldest_wait_s=message.queue_ms / 1000,
    )


def _state_of(text: str) -> WorkerState:
    try:
        return WorkerState(text)
    except ValueError:
        # Of a newer release: whatever it means, nobody knows that such a worker takes work.
        return WorkerState.STARTING


def _without_zeros_at_the_end(counts: tuple[int, ...]) -> tuple[int, ...]:
    end = len(counts)
    while end and not counts[end - 1]:
        end -= 1
    return counts[:end]
