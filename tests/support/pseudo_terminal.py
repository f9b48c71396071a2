"""Commands as people type them: a terminal for some of their streams, and files, pipes or nothing for the others."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from waiting import wait_until

__all__ = ["COMMAND", "Typed", "plain", "type_command"]

COMMAND = (sys.executable, "-m", "sluiceway.cli")
# Colours, cursor movements, and what else a terminal does not show.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()][A-Z0-9]")


@dataclass(frozen=True)
class Typed:
    """How a command ended: exit code, what its terminal got, and what went into the pipe of stdout, if it had one."""

    code: int
    terminal: str
    stdout: bytes = b""

    @property
    def lines(self) -> list[str]:
        """What the terminal showed, without colours."""
        return plain(self.terminal).split("\n")


def plain(text: str) -> str:
    """Leave out what a terminal does not show."""
    return _CONTROL.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def type_command(
    arguments: Sequence[object],
    *,
    columns: int = 200,
    stdout: Any = None,
    stdin: Any = None,
    close: Sequence[int] = (),
    timeout_s: float = 110,
    command: Sequence[str] = COMMAND,
    keys: tuple[str, bytes] | None = None,
    **variables: str,
) -> Typed:
    """Run a command in a terminal of its own.

    Args:
        arguments: of the command.
        columns: width of the terminal.
        stdout: a file, or `subprocess.PIPE`; None is the terminal.
        stdin: likewise.
        close: descriptors that are closed, as a shell does for `>&-`.
        timeout_s: after which it is killed, and the test fails.
        command: what is typed before the arguments.
        keys: a text, and what is typed once the terminal has shown it.
        variables: further ones of the environment.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    words = [*command, *map(os.fspath, map(_word, arguments))]
    if close:
        # A shell does it: what this process does between fork and exec would have to be safe beside its threads.
        words = ["sh", "-c", 'exec "$@" ' + " ".join(f"{number}>&-" for number in close), "sh", *words]
    process = subprocess.Popen(
        words,
        stdin=theirs if stdin is None else stdin,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        env=environment | {"TERM": "xterm-256color"} | variables,
        start_new_session=True,
    )
    os.close(theirs)
    shown: list[bytes] = []
    reader = threading.Thread(target=_read, args=(ours, shown), daemon=True)
    reader.start()
    try:
        if keys is not None:
            _wait_for(keys[0], shown, process, timeout_s)
            os.write(ours, keys[1])
        piped, _ = process.communicate(timeout=timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        reader.join(10)
        os.close(ours)
    return Typed(process.returncode, b"".join(shown).decode("utf-8", "replace"), piped or b"")


def _word(argument: object) -> str | bytes | os.PathLike[str]:
    return argument if isinstance(argument, str | bytes | os.PathLike) else str(argument)


def _wait_for(text: str, shown: Sequence[bytes], process: subprocess.Popen[bytes], within_s: float) -> None:
    def is_shown() -> bool:
        found = text in plain(b"".join(shown).decode("utf-8", "replace"))
        assert found or process.poll() is None, f"it ended before it showed {text!r}: {b''.join(shown)!r}"
        return found

    wait_until(is_shown, what=f"it shows {text!r}", state=lambda: b"".join(shown), within_s=within_s)


def _read(descriptor: int, shown: list[bytes]) -> None:
    # The last writer is gone when reading fails.
    with contextlib.suppress(OSError):
        while data := os.read(descriptor, 2**16):
            shown.append(data)
