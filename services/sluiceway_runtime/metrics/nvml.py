"""NVIDIA's management library, as much of it as metrics want. It reads a GPU without a context on it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

__all__ = ["Gpu", "GpuReading", "open_gpus"]

_LIBRARY = "libnvidia-ml.so.1"
# Lengths that the library's own header gives.
_UUID_BYTES, _NAME_BYTES = 96, 96


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@dataclass(frozen=True, slots=True)
class GpuReading:
    """A GPU at one moment.

    Attributes:
        utilization: part of the latest sample period (a sixth of a second to one) in which a kernel ran, 0 to 1.
        used_bytes: of its memory, by whoever uses it.
        total_bytes: of its memory.
    """

    utilization: float
    used_bytes: int
    total_bytes: int


class Gpu:
    """One GPU.

    Attributes:
        uuid: by which it is known, on this machine and elsewhere.
        name: of its model.
    """

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle
        self.uuid = self._text(library.nvmlDeviceGetUUID, _UUID_BYTES)
        self.name = self._text(library.nvmlDeviceGetName, _NAME_BYTES)

    def read(self) -> GpuReading | None:
        """How it is; None if it does not answer any more (it fell off the bus, or its driver is gone)."""
        utilization, memory = _Utilization(), _Memory()
        if self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(memory)):
            return None
        # A part of a GPU (MIG) says nothing of its use.
        known = not self._library.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(utilization))
        return GpuReading(utilization.gpu / 100 if known else float("nan"), memory.used, memory.total)

    def _text(self, function: ctypes._CFuncPtr, size: int) -> str:  # type: ignore[name-defined]
        buffer = ctypes.create_string_buffer(size)
        return "" if function(self._handle, buffer, size) else buffer.value.decode(errors="replace")


def open_gpus() -> list[Gpu]:
    """The GPUs of this machine, as far as they are shown to this process; none without a driver."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return []
    if library.nvmlInit_v2():
        return []
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    found = []
    for index in range(count.value):
        handle = ctypes.c_void_p()
        if not library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
            found.append(Gpu(library, handle))
    return found
