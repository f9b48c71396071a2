"""Which GPUs are told of, and when the driver is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from sluiceway_runtime.metrics.nvml import GpuReading
from sluiceway_runtime.pool import Placement
from sluiceway_runtime.watch import GpuSample
from sluiceway_runtime.watch.gpus import Gpus


class Device:
    uuid = "GPU-1"
    name = "H200"

    def __init__(self, reading: GpuReading | None) -> None:
        self._reading = reading

    def read(self) -> GpuReading | None:
        return self._reading


READINGS = [GpuReading(0.25, 1, 2), GpuReading(math.nan, 3, 4), None]
SAMPLES = [GpuSample(0, "H200", 0.25, 1, 2), GpuSample(1, "H200", None, 3, 4)]


def gpus(*devices: str) -> tuple[tuple[GpuSample, ...], int]:
    """What is told where workers compute on these, and how often the driver was opened."""
    opened = 0

    def open_devices() -> Sequence[Device]:
        nonlocal opened
        opened += 1
        return [Device(reading) for reading in READINGS]

    placements = [Placement(index, device, None, 1) for index, device in enumerate(devices)]
    reader = Gpus(lambda: placements, open_devices)
    assert reader.samples() == reader.samples()
    return reader.samples(), opened


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        (("cpu", "cpu"), []),
        (("cuda",), SAMPLES[:1]),
        (("cuda:0", "cuda:0", "cuda:1"), SAMPLES),
        (("cuda:1",), SAMPLES[1:]),
        # One that does not answer any more, and one that is not there.
        (("cuda:2", "cuda:7"), []),
    ],
)
def test_the_gpus_in_use_are_told(devices: tuple[str, ...], told: list[GpuSample]) -> None:
    found, opened = gpus(*devices)
    assert list(found) == told
    # Not at all where no worker is on one.
    assert opened == (devices[0] != "cpu")
