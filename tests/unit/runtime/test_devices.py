"""Which devices a stage gets."""

from __future__ import annotations

import sys

import pytest
from sluiceway_runtime import devices
from sluiceway_runtime.devices import Cuda, resolve
from sluiceway_runtime.errors import StartupError


@pytest.mark.parametrize(
    ("device", "found"),
    [
        ("cpu", ("cpu",)),
        ("auto", ("cuda:0", "cuda:1")),
        ("cuda", ("cuda:0", "cuda:1")),
        ("cuda:1", ("cuda:1",)),
    ],
)
def test_with_two_devices(device, found, caplog):
    assert resolve(device, find=lambda: Cuda(2)) == found
    assert caplog.text == ""


def test_auto_without_cuda_is_the_cpu_with_one_plain_warning(caplog):
    assert resolve("auto", find=lambda: Cuda(0, "torch is not installed")) == ("cpu",)
    assert [record.message for record in caplog.records] == [
        "no GPU is used: torch is not installed; computing on the CPU"
    ]


def test_auto_takes_the_devices_with_memory_to_spare(caplog):
    cuda = Cuda(3, free_bytes=(2**30, 4 * 2**30, 2**32 - 1))
    assert resolve("auto", find=lambda: cuda, least_free_bytes=4 * 2**30) == ("cuda:1",)
    assert caplog.text == ""
    assert resolve("cuda:0", find=lambda: cuda, least_free_bytes=4 * 2**30) == ("cuda:0",)
    assert resolve("auto", find=lambda: cuda, least_free_bytes=5 * 2**30) == ("cpu",)
    assert "none has 5 GiB of free memory; computing on the CPU" in caplog.text


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_that_is_not_there_is_an_error_with_its_cause(device):
    with pytest.raises(StartupError, match="no NVIDIA driver"):
        resolve(device, find=lambda: Cuda(0, "this machine has no NVIDIA driver"))


@pytest.mark.parametrize("device", ["cuda:2", "cuda:", "cuda:x", "tpu"])
def test_devices_that_do_not_exist(device):
    with pytest.raises(StartupError, match=device):
        resolve(device, find=lambda: Cuda(2))


def test_the_cpu_asks_nobody():
    def must_not_be_called() -> Cuda:
        raise AssertionError

    assert resolve("cpu", find=must_not_be_called) == ("cpu",)


def test_without_a_driver_no_process_is_started(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "DRIVER_TRACES", (tmp_path / "missing",))
    monkeypatch.setattr(devices.subprocess, "run", None)
    assert devices.find_cuda() == Cuda(0, "this machine has no NVIDIA driver")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("print('a greeting'); print('devices', 5, 7)", Cuda(2, free_bytes=(5, 7))),
        ("print('devices')", Cuda(0, "torch finds no CUDA device it can use")),
        ("raise ImportError('libcuda is broken')", Cuda(0, "torch cannot be imported: ImportError: libcuda is broken")),
    ],
)
def test_with_a_driver_a_second_process_is_asked(monkeypatch, tmp_path, code, found):
    monkeypatch.setattr(devices, "DRIVER_TRACES", (tmp_path,))
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(devices, "ASK_DEVICES", code)
    assert devices.find_cuda() == found
    assert "torch" not in sys.modules


FAKE_TORCH = """
import os

class cuda:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2,3")

    @classmethod
    def device_count(cls):
        return len(list(filter(None, cls.visible.split(","))))

    @classmethod
    def is_available(cls):
        return cls.device_count() > 0

    @classmethod
    def mem_get_info(cls, index):
        return int(cls.visible.split(",")[index]) + 100, 1000
"""


@pytest.mark.parametrize(
    ("visible", "found", "used"),
    [
        (None, Cuda(4, free_bytes=(100, 101, 102, 103)), ("cuda:0", "cuda:1", "cuda:2", "cuda:3")),
        # Counted from 0 whatever their numbers in the machine, as torch counts them in the workers.
        ("3,1", Cuda(2, free_bytes=(103, 101)), ("cuda:0", "cuda:1")),
        ("", Cuda(0, "torch finds no CUDA device it can use"), ("cpu",)),
    ],
)
def test_only_visible_devices_are_used(monkeypatch, tmp_path, visible, found, used):
    (tmp_path / "torch.py").write_text(FAKE_TORCH)
    monkeypatch.setattr(devices, "DRIVER_TRACES", (tmp_path,))
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.find_cuda() == found
    assert resolve("auto") == used


def test_nonsense_for_an_answer_counts_as_none(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "DRIVER_TRACES", (tmp_path,))
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(devices, "ASK_DEVICES", "print('devices many')")
    found = devices.find_cuda()
    assert found.devices == 0
    assert "does not answer" in found.missing
