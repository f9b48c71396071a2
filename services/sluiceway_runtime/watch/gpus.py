"""The GPUs that the workers of a pool compute on, as the driver says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sluiceway_runtime.metrics.gpu import Device
from sluiceway_runtime.metrics.nvml import open_gpus
from sluiceway_runtime.pool import Placement
from sluiceway_runtime.watch.sample import GpuSample

__all__ = ["Gpus"]


class Gpus:
    """Opens the driver at the first look, and only where workers compute on a GPU.

    Args:
        placements: of the workers.
        open_devices: finds the GPUs of this machine, in their order.
    """

    def __init__(
        self,
        placements: Callable[[], Sequence[Placement]],
        open_devices: Callable[[], Sequence[Device]] = open_gpus,
    ) -> None:
        self._placements = placements
        self._open = open_devices
        self._devices: Sequence[Device] | None = None

    def samples(self) -> tuple[GpuSample, ...]:
        """One for each GPU in use that answers."""
        used = {_number(placement.device) for placement in self._placements()} - {None}
        if not used:
            return ()
        if self._devices is None:
            self._devices = self._open()
        found = []
        for index, device in enumerate(self._devices):
            reading = device.read() if index in used else None
            if reading is not None:
                share = None if math.isnan(reading.utilization) else reading.utilization
                found.append(GpuSample(index, device.name, share, reading.used_bytes, reading.total_bytes))
        return tuple(found)


def _number(device: str) -> int | None:
    """Of "cuda" or "cuda:1"; None for a CPU."""
    kind, _, number = device.partition(":")
    return int(number or 0) if kind == "cuda" else None
