"""What libtiff says of files while Pillow has it decode them.

Pillow hears of a strip that could not be decoded at all. Of one with bad codes inside (a fax, say) it hears nothing:
the rows are there, and wrong. libtiff tells a handler of errors, which by default prints a line for each, and there can
be one for every row. So errors are counted here instead.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from PIL import features

from sluiceway_runtime.errors import InvalidImage

__all__ = ["no_errors"]

_MAPS = Path("/proc/self/maps")
# Module, format and arguments of a message, none of which is looked at.
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class _Told(threading.local):
    errors = 0


_told = _Told()


@contextmanager
def no_errors() -> Iterator[None]:
    """Run a piece of work during which libtiff may not tell of any error in this thread.

    Raises:
        InvalidImage: it did.
    """
    _listen()
    _told.errors = 0
    yield
    if _told.errors:
        raise InvalidImage("the TIFF file is damaged")


@cache
def _listen() -> Any:
    """Take the place of the handler that prints; kept for as long as the process lives. None where it is not found."""
    features.check("libtiff")  # loads it
    with suppress(OSError):
        for line in _MAPS.read_text().splitlines():
            path = line.split(maxsplit=5)[-1]
            if "libtiff" not in Path(path).name:
                continue
            library = ctypes.CDLL(path)  # the one that is loaded
            if not hasattr(library, "TIFFSetErrorHandler"):
                continue
            handler = _Handler(_count)
            library.TIFFSetErrorHandler.argtypes = [_Handler]
            library.TIFFSetErrorHandler.restype = ctypes.c_void_p
            library.TIFFSetErrorHandler(handler)
            return handler
    return None


def _count(_module: int, _form: int, _arguments: int) -> None:
    _told.errors += 1
