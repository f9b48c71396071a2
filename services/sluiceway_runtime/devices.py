"""Which devices a stage computes on. The front asks without importing torch: a second process does that."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sluiceway_runtime.errors import StartupError

__all__ = ["ROOMY_BYTES", "Cuda", "find_cuda", "resolve"]

logger = logging.getLogger(__name__)

# The first exists with the NVIDIA driver, the second also where containers hide /proc/driver, the third on WSL.
DRIVER_TRACES = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))
# Prints the free bytes of each device, in order. "devices" is there even when there is none.
ASK_DEVICES = (
    "import torch; n = torch.cuda.device_count() if torch.cuda.is_available() else 0; "
    "print('devices', *(torch.cuda.mem_get_info(i)[0] for i in range(n)))"
)
# What a stage takes of a device's memory at the most, with what it compiles: `auto` leaves out devices that have less.
ROOMY_BYTES = 4 * 2**30
# Importing torch from a cold disk takes many seconds.
COUNT_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Cuda:
    """The CUDA devices that torch can use.

    Attributes:
        devices: how many.
        missing: why there are none, in plain words; else empty.
        free_bytes: memory of each that nobody uses; empty where that is not known.
    """

    devices: int
    missing: str = ""
    free_bytes: tuple[int, ...] = ()


def resolve(device: str, *, find: Callable[[], Cuda] | None = None, least_free_bytes: int = 0) -> tuple[str, ...]:
    """Turn a configured device into the devices to use.

    Args:
        device: `auto`, `cpu`, `cuda` (all of them) or `cuda:N`.
        find: looks for CUDA devices; not called for `cpu`.
        least_free_bytes: `auto` leaves out devices with less free memory.

    Returns:
        `("cpu",)`, or the CUDA devices by number. `auto` without CUDA gives the CPU, with one warning.

    Raises:
        StartupError: CUDA is asked for and not there.
    """
    if device == "cpu":
        return ("cpu",)
    cuda = (find or find_cuda)()
    if device == "auto":
        roomy = tuple(
            f"cuda:{number}"
            for number in range(cuda.devices)
            if not cuda.free_bytes or cuda.free_bytes[number] >= least_free_bytes
        )
        if roomy:
            return roomy
        missing = cuda.missing or f"none has {least_free_bytes / 2**30:.0f} GiB of free memory"
        logger.warning("no GPU is used: %s; computing on the CPU", missing)
        return ("cpu",)
    if not cuda.devices:
        raise StartupError(f"device = {device!r}, but {cuda.missing}. Use device = 'cpu' or 'auto'")
    if device == "cuda":
        return tuple(f"cuda:{number}" for number in range(cuda.devices))
    prefix, _, number_text = device.partition(":")
    if prefix != "cuda" or not number_text.isdecimal():
        raise StartupError(f"device = {device!r}: known are auto, cpu, cuda and cuda:N")
    if int(number_text) >= cuda.devices:
        raise StartupError(f"device = {device!r}, but there are {cuda.devices} CUDA devices, numbered from 0")
    return (device,)


def find_cuda() -> Cuda:
    """Look for CUDA devices, from the cheap signs to the sure one. Respects CUDA_VISIBLE_DEVICES, as torch does."""
    if not any(trace.exists() for trace in DRIVER_TRACES):
        return Cuda(0, "this machine has no NVIDIA driver")
    if importlib.util.find_spec("torch") is None:
        return Cuda(0, "torch is not installed (the extra `gpu` brings it)")
    try:
        answer = subprocess.run(  # noqa: S603 - our own interpreter and a constant
            [sys.executable, "-c", ASK_DEVICES], capture_output=True, text=True, timeout=COUNT_TIMEOUT_S, check=True
        )
        words = answer.stdout.split()
        free_bytes = tuple(int(word) for word in words[words.index("devices") + 1 :])
    except subprocess.CalledProcessError as error:
        last_line = (error.stderr.strip().splitlines() or ["no message"])[-1]
        return Cuda(0, f"torch cannot be imported: {last_line}")
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return Cuda(0, f"torch does not answer: {error}")
    return Cuda(len(free_bytes), "" if free_bytes else "torch finds no CUDA device it can use", free_bytes)
