"""Image files, read with an eye on what they are: too large, a pipe, or changing while they are read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sluiceway.errors import ImageTooLarge, InvalidImage

__all__ = ["MAX_SOURCE_BYTES", "READ_TIMEOUT_S", "UNASKED_BYTES", "read_file", "require_size"]

# Below what a message of protobuf can be, with room for what is said beside the image.
MAX_SOURCE_BYTES = 2**31 - 2**20
# Any server takes so much, unless its operator wants less; before a larger file is read, the server is asked.
UNASKED_BYTES = 2**24
# A file that takes longer is on a mount that does not answer, or a pipe that nobody writes to.
READ_TIMEOUT_S = 30.0
CHUNK_BYTES = 2**24


def read_file(path: Path, most_bytes: int = MAX_SOURCE_BYTES) -> bytes:
    """Read a file that is to be sent. May take for ever.

    Args:
        path: the file, or a pipe.
        most_bytes: of a larger one nothing is read, or of a pipe no more than so much.

    Raises:
        ImageTooLarge: it is larger.
        InvalidImage: it cannot be read, or it changes meanwhile.
    """
    try:
        with path.open("rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            # Kernel files say 0 of everything, and pipes have no size.
            size_bytes = found.st_size if stat.S_ISREG(found.st_mode) else 0
            require_size(path, size_bytes, most_bytes)
            data = _read(file.fileno(), size_bytes or most_bytes)
    except OSError as error:
        raise InvalidImage(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidImage(f"cannot read {path}: {error}") from error
    if not size_bytes:
        require_size(path, len(data), most_bytes)
    elif size_bytes != len(data):
        how = "grew" if len(data) > size_bytes else "was cut"
        raise InvalidImage(f"cannot read {path}: it {how} while it was being read")
    return data


def require_size(what: object, size_bytes: int, most_bytes: int = MAX_SOURCE_BYTES) -> None:
    """Refuse what would not be taken.

    Raises:
        ImageTooLarge: it is too large.
    """
    if size_bytes > most_bytes:
        raise ImageTooLarge(
            f"{what} has {size_bytes} bytes; at most {most_bytes} are taken",
            metadata={"max_image_bytes": str(most_bytes)},
        )


def _read(descriptor: int, most_bytes: int) -> bytes:
    """Read to the end, or one byte more than there should be."""
    pieces, total = [], 0
    while total <= most_bytes and (piece := os.read(descriptor, min(CHUNK_BYTES, most_bytes + 1 - total))):
        pieces.append(piece)
        total += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
