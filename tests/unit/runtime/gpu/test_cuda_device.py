"""What a CUDA device decides by what torch tells of it; torch is told what to tell."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.torch
GB = 2**30


class Gpu:
    """Memory of a device, as torch and the driver see it from one process."""

    total = 80 * GB

    def __init__(self) -> None:
        self.reserved = self.allocated = self.others = 0
        self.fraction = 1.0
        self.fault: Exception | None = None

    def mem_get_info(self, _device: object) -> tuple[int, int]:
        return self.total - self.reserved - self.others, self.total

    def set_per_process_memory_fraction(self, fraction: float, _device: object) -> None:
        self.fraction = fraction

    def synchronize(self, _device: object) -> None:
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    import torch

    made = Gpu()
    fakes = {
        "set_device": lambda _device: None,
        "get_device_properties": lambda _device: SimpleNamespace(name="Fake", major=9, minor=0),
        "mem_get_info": made.mem_get_info,
        "memory_reserved": lambda _device: made.reserved,
        "memory_allocated": lambda _device: made.allocated,
        "set_per_process_memory_fraction": made.set_per_process_memory_fraction,
        "synchronize": made.synchronize,
        "Stream": lambda _device: None,
        "graph_pool_handle": lambda: None,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return made


def test_the_second_model_of_a_worker_has_what_the_first_one_left(gpu: Gpu) -> None:
    from sluiceway_runtime.gpu.device import CudaDevice

    first = CudaDevice("cuda:0", 1)
    assert first.available_bytes() == 72 * GB
    # All that a process holds counts for its share and for torch's bound, so what it holds already lessens neither.
    gpu.reserved, gpu.allocated = 40 * GB, 30 * GB
    second = CudaDevice("cuda:0", 1)
    assert gpu.fraction * gpu.total == 72 * GB
    assert second.available_bytes() == 42 * GB


def test_what_other_programs_hold_is_not_taken(gpu: Gpu) -> None:
    from sluiceway_runtime.gpu.device import CudaDevice

    gpu.others, gpu.reserved, gpu.allocated = 50 * GB, 10 * GB, 10 * GB
    assert CudaDevice("cuda:0", 1).available_bytes() == 17 * GB
    assert CudaDevice("cuda:0", 4).available_bytes() == 8 * GB


def test_a_device_is_lost_when_nothing_but_errors_comes(gpu: Gpu) -> None:
    from sluiceway_runtime.gpu.device import CudaDevice

    device = CudaDevice("cuda:0", 1)
    assert not device.is_lost()
    gpu.fault = RuntimeError("CUDA error: an illegal memory access was encountered")
    assert device.is_lost()
