"""The stack on which a thread handles signals, kept from a library that takes it over and gives it back wrongly."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

__all__ = ["keep_signal_stack"]

# From signal.h.
_SS_DISABLE = 2


class _Stack(ctypes.Structure):
    """`stack_t`, as Linux has it."""

    _fields_ = (("base", ctypes.c_void_p), ("flags", ctypes.c_int), ("size_bytes", ctypes.c_size_t))


@contextlib.contextmanager
def keep_signal_stack() -> Iterator[None]:
    """Put back, at the end, the signal stack that this thread had at the beginning. Also a decorator.

    OpenVINO's CPU plugin sets a stack of its own on the thread that first compiles with it, and frees that memory with
    the last model. The thread goes on using it where another thread frees the model, or where models go in the order in
    which they came; and as Python handles signals on this stack, the next Ctrl-C would then end the process.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    before = _Stack()
    if libc is None or libc.sigaltstack(None, ctypes.byref(before)):
        yield
        return
    try:
        yield
    finally:
        # A stack from before AMX was allowed may be too small for its registers now, and is refused: then there is
        # none, and handlers run on the thread's own stack.
        if libc.sigaltstack(ctypes.byref(before), None):
            libc.sigaltstack(ctypes.byref(_Stack(None, _SS_DISABLE, 0)), None)
