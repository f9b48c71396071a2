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

__all__ = ["Cuda", "find_cuda", "resolve"]

logger = logging.getLogger(__name__)

# The first exists with the NVIDIA driver, the second also where containers hide /proc/driver, the third on WSL.
DRIVER_TRACES = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))
COUNT_DEVICES = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
# Importing torch from a cold disk takes many seconds.
COUNT_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Cuda:
    """The CUDA devices that torch can use. `missing` tells in plain words why there are none, else it is empty."""

    devices: int
    missing: str = ""


def resolve(device: str, *, find: Callable[[], Cuda] | None = None) -> tuple[str, ...]:
    """Turn a configured device into the devices to use.

    Args:
        device: `auto`, `cpu`, `cuda` (all of them) or `cuda:N`.
        find: looks for CUDA devices; not called for `cpu`.

    Returns:
        `("cpu",)`, or the CUDA devices by number. `auto` without CUDA gives the CPU, with one warning.

    Raises:
        StartupError: CUDA is asked for and not there.
    """
    if device == "cpu":
        return ("cpu",)
    cuda = (find or find_cuda)()
    if device == "auto":
        if cuda.devices:
            return tuple(f"cuda:{number}" for number in range(cuda.devices))
        logger.warning("no GPU is used: %s; computing on the CPU", cuda.missing)
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
            [sys.executable, "-c", COUNT_DEVICES], capture_output=True, text=True, timeout=COUNT_TIMEOUT_S, check=True
        )
        devices = int(answer.stdout.split()[-1])
    except subprocess.CalledProcessError as error:
        last_line = (error.stderr.strip().splitlines() or ["no message"])[-1]
        return Cuda(0, f"torch cannot be imported: {last_line}")
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return Cuda(0, f"torch does not answer: {error}")
    return Cuda(devices, "" if devices else "torch finds no CUDA device it can use")
