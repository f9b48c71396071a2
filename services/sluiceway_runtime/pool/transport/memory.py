"""Anonymous memory that two processes share, mapped."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import weakref

__all__ = ["map_shared"]

MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def map_shared(descriptor: int, size: int, *, writable: bool = False) -> memoryview:
    """A view of shared memory, which is unmapped when the last slice of the view is gone.

    The standard library's mmap would do, but before Python 3.13 it keeps a descriptor open for each mapping: a thousand
    answers that wait for slow clients would use up the usual limit. Other threads run on while pages are mapped.

    Args:
        descriptor: of the memory; it may be closed afterwards.
        size: bytes.
        writable: for the one side that writes.

    Raises:
        OSError: it cannot be mapped, or is smaller than that.
    """
    if os.fstat(descriptor).st_size < size:
        raise OSError(errno.EIO, "shared memory is smaller than announced")  # reading past its end would end us
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    # Filling the page table at once saves a fault for every page.
    address = _libc.mmap(None, size, protection, mmap.MAP_SHARED | mmap.MAP_POPULATE, descriptor, 0)
    if address == MAP_FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    memory = (ctypes.c_ubyte * size).from_address(address)
    # Not at exit: views may be alive then, and the system unmaps everything anyway.
    weakref.finalize(memory, _libc.munmap, address, size).atexit = False
    view = memoryview(memory).cast("B")
    return view if writable else view.toreadonly()
