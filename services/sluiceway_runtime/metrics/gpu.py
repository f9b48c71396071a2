"""The GPUs that a stage computes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.registry import Collector

from sluiceway_runtime.metrics.instruments import Family, gauge
from sluiceway_runtime.metrics.nvml import GpuReading, open_gpus

__all__ = ["LIMIT", "STATUS", "USAGE", "UTILIZATION", "GpuCollector"]

_LABELS = ("hw_id", "hw_name")
STATUS = Family(
    "hw_status",
    "gauge",
    "1 for the state that a GPU is in, 0 for the other: `ok`, or `failed` if it was there when the server started and "
    "answers no more. OpenTelemetry's `hw.status`.",
    ("hw_id", "hw_name", "hw_type", "hw_state"),
)
UTILIZATION = Family(
    "hw_gpu_utilization_ratio",
    "gauge",
    "Part of the last moment in which the GPU computed for anybody. OpenTelemetry's `hw.gpu.utilization`.",
    _LABELS,
)
USAGE = Family(
    "hw_gpu_memory_usage_bytes",
    "gauge",
    "Memory of the GPU that anybody uses. OpenTelemetry's `hw.gpu.memory.usage`.",
    _LABELS,
)
LIMIT = Family(
    "hw_gpu_memory_limit_bytes", "gauge", "Memory that it has. OpenTelemetry's `hw.gpu.memory.limit`.", _LABELS
)


class Device(Protocol):
    """See `nvml.Gpu`."""

    uuid: str
    name: str

    def read(self) -> GpuReading | None:
        """How it is; None if it does not answer any more."""
        ...


class GpuCollector(Collector):
    """Asks the driver, and shows nothing where there is none.

    Args:
        open_devices: finds the GPUs, once.
    """

    def __init__(self, open_devices: Callable[[], Sequence[Device]] = open_gpus) -> None:
        self._devices = open_devices()

    def collect(self) -> Iterable[Metric]:
        """Ask each of them once."""
        readings = [((device.uuid, device.name), device.read()) for device in self._devices]
        if not readings:
            return
        yield gauge(
            STATUS,
            [
                ((*labels, "gpu", state), float((reading is None) == (state == "failed")))
                for labels, reading in readings
                for state in ("ok", "failed")
            ],
        )
        here = [(labels, reading) for labels, reading in readings if reading is not None]
        yield gauge(UTILIZATION, [(labels, reading.utilization) for labels, reading in here])
        yield gauge(USAGE, [(labels, float(reading.used_bytes)) for labels, reading in here])
        yield gauge(LIMIT, [(labels, float(reading.total_bytes)) for labels, reading in here])
