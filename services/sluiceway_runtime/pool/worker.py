"""The main program of a worker process: `python -m sluiceway_runtime.pool.worker DESCRIPTOR PARENT_PID`.

The main thread reads the socket and computes (`execution.serve`); a second one only waits for the end of the front, so
that it is noticed during a computation, too. Were that one to read, every batch would change threads once more: a
twentieth of a millisecond on a warm machine, several on one whose caches hold a model.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import select
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.cores.threads import apply_thread_caps, os_threads
from sluiceway_runtime.errors import StartupError, describe
from sluiceway_runtime.logs import configure_logging
from sluiceway_runtime.pool.execution import serve
from sluiceway_runtime.pool.handler import Handler, WorkerBroken, load_handler
from sluiceway_runtime.pool.transport.channel import Channel, ChannelClosed, UnusablePacket
from sluiceway_runtime.pool.transport.messages import (
    Broken,
    Leaving,
    Lost,
    Raised,
    Ready,
    Recall,
    Result,
    Run,
    Start,
    StartFailed,
    ToWorker,
    Unmap,
)
from sluiceway_runtime.resident import own_bytes

__all__ = ["main"]

# Workers yield to fronts, which only pass things on and must stay quick.
NICENESS = 5
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
EXIT_OK = 0
EXIT_START_FAILED = 3
EXIT_ORPHANED = 4
EXIT_BROKEN = 5


def main(arguments: list[str]) -> NoReturn:
    """Serve batches until asked to stop or until the front is gone. Never returns: libraries' exit hooks may hang."""
    descriptor, parent_pid = int(arguments[0]), int(arguments[1])
    _follow(parent_pid)
    # The terminal sends Ctrl-C to the whole group; the front owns it and tells workers what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    os.set_inheritable(descriptor, False)
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        _exit(_serve(channel))
    except ChannelClosed:
        _exit(EXIT_ORPHANED)
    except WorkerBroken:
        logging.getLogger(__name__).exception("this worker can compute no more and ends")
        with contextlib.suppress(ChannelClosed, OSError):
            channel.send(Broken())
        _exit(EXIT_BROKEN)


def _serve(channel: Channel) -> int:
    start: Start = channel.receive()
    configure_logging(start.log)
    threading.Thread(target=_watch, args=(channel.fileno(),), name="watch", daemon=True).start()
    inbox = _Inbox(channel)
    try:
        handler, facts = _set_up(start)
        channel.send(Ready(facts, own_bytes()))
    except (Exception, SystemExit) as error:
        logging.getLogger(__name__).exception("worker %d cannot start", start.placement.index)
        channel.send(StartFailed(str(error) if isinstance(error, StartupError) else describe(error)))
        return EXIT_START_FAILED

    leaving = threading.Event()

    def leave(_signal: int, _frame: FrameType | None) -> None:
        leaving.set()

    signal.signal(signal.SIGTERM, leave)
    serve(handler, inbox, lambda told: _send(channel, told), leaving.is_set, overlap=start.overlap)
    channel.send(Leaving())
    return EXIT_OK


def _set_up(start: Start) -> tuple[Handler, dict[str, Any]]:
    placement = start.placement
    os.nice(NICENESS)
    if placement.cores is not None:
        os.sched_setaffinity(0, placement.cores)
    sys.path += [path for path in start.import_path if path not in sys.path]
    handler = load_handler(start.factory, start.config)
    facts = dict(handler.setup(placement))
    return handler, facts | {"process": _process_facts(placement)}


def _process_facts(placement: Placement) -> dict[str, Any]:
    """What `doctor` shows of a worker: its caps as the libraries say them, and the threads that there are."""
    return {
        "pid": os.getpid(),
        "cores": tuple(sorted(os.sched_getaffinity(0))),
        "pinned": placement.cores is not None,
        "threads": placement.threads,
        "thread_caps": apply_thread_caps(placement.threads),
        "os_threads": os_threads(),
        "niceness": os.nice(0),
    }


def _send(channel: Channel, answer: Result | Raised | Lost) -> None:
    try:
        channel.send(answer, answer.batch_id)
    except ChannelClosed:
        raise
    except OSError as error:
        channel.send(Lost(answer.batch_id, f"results cannot be sent: {error}"))
    except Exception as error:  # whatever pickling somebody's object may raise
        channel.send(Raised(answer.batch_id, f"results cannot be sent: {describe(error)}"))


class _Inbox:
    """The front's messages as `execution.serve` takes them. Signals end a wait for one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._wake, wakes = socket.socketpair()
        for end in (self._wake, wakes):
            end.setblocking(False)
        # Written to as the signal comes, so that none is missed just before a wait begins.
        signal.set_wakeup_fd(wakes.detach(), warn_on_full_buffer=False)
        self._here = select.poll()
        self._here.register(channel.fileno(), select.POLLIN)
        self._any = select.poll()
        for descriptor in (channel.fileno(), self._wake.fileno()):
            self._any.register(descriptor, select.POLLIN)

    def empty(self) -> bool:
        """Whether nothing has come that was not taken."""
        return not self._here.poll(0)

    def get(self) -> Run | Recall | Raised | Lost | None:
        """The next message, None after a signal or what does not concern a batch.

        Raises:
            ChannelClosed: the front is gone.
        """
        if self._wake.fileno() in dict(self._any.poll()):
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
            return None
        try:
            message: ToWorker = self._channel.receive()
        except UnusablePacket as lost:
            return (Raised if lost.unreadable else Lost)(lost.tag, str(lost))
        if isinstance(message, Unmap):
            self._channel.unmap(message.arenas)
            return None
        assert not isinstance(message, Start), "it comes first and once"
        return message


def _watch(descriptor: int) -> None:
    """Wait for the end of the front. Nobody wants the rest then: end the process at once."""
    hung_up = select.poll()
    hung_up.register(descriptor, 0)  # an end is reported unasked
    hung_up.poll()
    os._exit(EXIT_ORPHANED)


def _follow(parent_pid: int) -> None:
    """End with the parent even where the interpreter cannot act, such as inside a library that holds its lock."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NAME, b"sluice-worker", 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(EXIT_ORPHANED)  # it died before the call above


def _exit(code: int) -> NoReturn:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
