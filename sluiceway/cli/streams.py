"""Standard streams of a command: open from the start, and with faults that are told apart from all others."""

from __future__ import annotations

import errno
import io
import os
import select
import sys

from sluiceway.errors import ImageTooLarge

__all__ = ["StreamFault", "claim_streams", "finish_streams", "flush_bytes", "read_stdin", "require_stdout"]

_STDIN, _STDOUT, _STDERR = 0, 1, 2
CHUNK_BYTES = 2**20


class StreamFault(Exception):
    """Standard input or output cannot be used. No OSError, which libraries between would take for their own affair."""

    def __init__(self, message: str, *, quiet: bool = False) -> None:
        super().__init__(message)
        # Whoever read the results has gone: there is nobody to tell.
        self.quiet = quiet


class _Output(io.RawIOBase):
    """Standard output. After a fault it takes everything and keeps nothing, so that buffers can be emptied in peace."""

    def __init__(self, fault: StreamFault | None = None) -> None:
        self.fault = fault
        self._told = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return _STDOUT

    def isatty(self) -> bool:
        return self.fault is None and os.isatty(_STDOUT)

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        if self._told:
            return view.nbytes
        while self.fault is None:
            try:
                return os.write(_STDOUT, view)
            except BlockingIOError:
                # Somebody made the pipe non-blocking, and the buffer above would not wait.
                select.select([], [_STDOUT], [])
            except OSError as error:
                self.fault = StreamFault(
                    f"cannot write to standard output: {error.strerror}", quiet=error.errno == errno.EPIPE
                )
        self._told = True
        raise self.fault


_output = _Output()


def claim_streams() -> None:
    """Make the streams of this process fit for use; call it once, before anything is opened or written."""
    for number in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(number)
        except OSError:
            # The next thing that is opened would have this number, and get what is meant for the stream.
            held = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(held, True)
            if number == _STDOUT:
                _output.fault = StreamFault("standard output is closed")
    # Its own choice of encoding stays.
    was = sys.stdout
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_output),
        encoding=getattr(was, "encoding", None) or "utf-8",
        errors=getattr(was, "errors", None) or "strict",
        line_buffering=_output.isatty(),
    )


def require_stdout() -> None:
    """Refuse to begin what nobody could get the results of.

    Raises:
        StreamFault: standard output was closed before this process began.
    """
    if _output.fault is not None:
        raise _output.fault


def flush_bytes(data: bytes) -> None:
    """Write bytes to standard output, and do not keep any.

    Raises:
        StreamFault: they cannot be written.
    """
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def finish_streams() -> None:
    """Write what is left.

    Raises:
        StreamFault: it cannot be written.
    """
    sys.stdout.flush()


def read_stdin(limit_bytes: int) -> bytes:
    """Read standard input to its end.

    Raises:
        StreamFault: it is closed, or cannot be read.
        ImageTooLarge: there is more; the rest is left unread.
    """
    if sys.stdin is None:
        raise StreamFault("standard input is closed")
    pieces, total = [], 0
    try:
        while piece := sys.stdin.buffer.read(min(CHUNK_BYTES, limit_bytes + 1 - total)):
            pieces.append(piece)
            total += len(piece)
    except OSError as error:
        raise StreamFault(f"cannot read standard input: {error.strerror}") from error
    if total > limit_bytes:
        raise ImageTooLarge(f"standard input has more than {limit_bytes} bytes")
    return b"".join(pieces)
