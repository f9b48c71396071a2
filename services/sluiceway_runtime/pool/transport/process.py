"""The front's side of one worker process: started, spoken to, watched, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections import deque
from dataclasses import replace
from functools import partial

from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.cores.threads import thread_environment
from sluiceway_runtime.errors import describe
from sluiceway_runtime.pool.spec import WorkerSpec
from sluiceway_runtime.pool.transport import arena
from sluiceway_runtime.pool.transport.arena import Arenas
from sluiceway_runtime.pool.transport.channel import Channel, ChannelClosed, Draft, Packet, UnusablePacket, pack, pair
from sluiceway_runtime.pool.transport.link import End, Ended, Heard
from sluiceway_runtime.pool.transport.messages import (
    Broken,
    FromWorker,
    Lost,
    Raised,
    Recall,
    Result,
    Run,
    Start,
    Unmap,
)

__all__ = ["WorkerProcess"]

logger = logging.getLogger(__name__)

WORKER_MODULE = "sluiceway_runtime.pool.worker"
# Tag of the messages at the beginning of a worker's life; batches are numbered from 1.
NO_BATCH = 0
# Tag of messages that nothing depends on.
ASIDE = 2**64 - 1
# What needs more fresh memory than this is copied in a thread: the loop would stand still for a millisecond a MiB.
IN_THREAD_BYTES = 2 * 2**20
STDERR = 2


class WorkerProcess:
    """One process of one worker; a restart makes another. Implements `Link`.

    Args:
        spec: what the pool runs.
        placement: where this worker runs.
        heard: called with each message.
        ended: called when the process has ended and its last message was heard.
    """

    def __init__(self, spec: WorkerSpec, placement: Placement, heard: Heard, ended: Ended) -> None:
        self._spec = spec
        self._placement = placement
        self._heard = heard
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._process: asyncio.subprocess.Process | None = None
        self._signal: signal.Signals | None = None  # wanted before there was a process to send it to
        self._fault = ""  # why it was given up, where its own end would not tell
        self._broken = False  # it said so
        self._channel: Channel | None = None
        self._outbox: deque[Packet] = deque()
        self._never_sent: set[int] = set()
        self._sealing: set[asyncio.Future[Packet]] = set()
        self._trimming: asyncio.TimerHandle | None = None
        self._waits_to_write = False
        self._arenas = Arenas(spec.credits)
        self._life = self._loop.create_task(self._live(), name=f"worker {placement.index}")

    @property
    def pid(self) -> int | None:
        """Process id, None before it is known."""
        return None if self._process is None else self._process.pid

    def send(self, run: Run) -> None:
        """Hand a batch over, or keep it until the socket takes it."""
        draft = Draft(run, run.batch_id)
        room = None if draft.inline else self._arenas.take(draft.tag, draft.size, self._loop.time())
        packet = Packet(draft.tag)
        if draft.size > IN_THREAD_BYTES and not (room is not None and room.made):
            sealing = self._loop.run_in_executor(None, draft.seal, packet, room)
            self._outbox.append(packet)
            self._sealing.add(sealing)
            sealing.add_done_callback(partial(self._sealed, packet))
            return
        try:
            draft.seal(packet, room)
        except BaseException:
            self._arenas.give_back(draft.tag, whole=False)
            raise
        self._post(packet)

    def recall(self, recall: Recall) -> None:
        """Say what is not wanted any more of a batch. Where that does not get through, it is computed for nobody."""
        with contextlib.suppress(OSError):
            self._post(pack(recall, ASIDE))

    def stop(self) -> None:
        """SIGTERM."""
        self._send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._send_signal(signal.SIGKILL)

    async def wait_ended(self) -> None:
        """Wait until the process is reaped and its descriptors are closed."""
        await asyncio.wait([self._life])
        if self._sealing:
            await asyncio.wait(self._sealing)

    async def _live(self) -> None:
        try:
            self._process = await self._spawn()
            if self._signal is not None:
                self._send_signal(self._signal)
            code = await self._process.wait()
            reason = self._fault or _reason(code)
            self._listen(to_the_end=True)
        except asyncio.CancelledError:
            # Only the end of the loop cancels this. Nobody is left to be told, but the process must not be.
            self._hang_up()
            self.kill()
            if self._process is not None:
                await self._process.wait()
            raise
        except Exception as error:  # no process to be had, or a configuration that cannot be pickled
            reason = f"its process could not be started: {describe(error)}"
        self._hang_up()
        self._ended(End(reason, frozenset(self._never_sent), self._broken))

    async def _spawn(self) -> asyncio.subprocess.Process:
        here, there = pair()
        try:
            self._open(here)
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", WORKER_MODULE, str(there.fileno()), str(os.getpid())),
                pass_fds=(there.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                # What models print must not mix with what the front's command prints for other programs.
                stdout=STDERR,
                # A child needs the whole environment; the caps must be in it before the interpreter starts.
                env={**os.environ, **thread_environment(self._placement.threads)},
            )
        finally:
            there.close()

    def _open(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._channel = Channel(end)
        self._loop.add_reader(end, self._listen)
        spec, placement = self._spec, self._placement
        log = replace(spec.log, service=f"{spec.log.service} worker {placement.index}")
        start = Start(spec.factory, spec.config, placement, tuple(sys.path), spec.overlap, log)
        self._post(pack(start, NO_BATCH))

    def _post(self, packet: Packet) -> None:
        self._outbox.append(packet)
        if self._channel is None:
            self._drop_outbox()  # the process has ended; the pool is about to hear of it
        elif len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        channel = self._channel
        assert channel is not None, "the writer is removed before the channel"
        # One that is still being copied keeps those after it back: batches go in their order.
        while self._outbox and self._outbox[0].data:
            try:
                if not channel.try_send(self._outbox[0]):
                    break
                self._outbox.popleft()
            except ChannelClosed:
                # It has ended or is about to. What it said before that is still to be read.
                self._drop_outbox()
            except OSError as error:
                packet = self._outbox.popleft()
                packet.close()
                self._lost(packet.tag, f"it cannot be sent: {error}", whole=False)
                if self._channel is None:
                    return
        if bool(self._outbox and self._outbox[0].data) != self._waits_to_write:
            self._waits_to_write = not self._waits_to_write
            if self._waits_to_write:
                self._loop.add_writer(channel.fileno(), self._flush)
            else:
                self._loop.remove_writer(channel.fileno())

    def _listen(self, *, to_the_end: bool = False) -> None:
        """Hear one message, so that other callbacks have their turn; the loop calls again while there are more."""
        while self._channel is not None:
            try:
                message: FromWorker = self._channel.receive()
                # Before it is heard, as the next batch may follow at once.
                if isinstance(message, Result | Raised | Lost):
                    self._arenas.give_back(message.batch_id, whole=not isinstance(message, Lost))
                    self._trim_later()
                if isinstance(message, Broken):
                    self._broken = True
                else:
                    self._heard(message)
            except UnusablePacket as lost:
                self._lost(lost.tag, str(lost), unreadable=lost.unreadable)
            except BlockingIOError:
                return
            except (ChannelClosed, OSError):
                self._give_up()
            if not to_the_end:
                return

    def _lost(self, tag: int, reason: str, *, unreadable: bool = False, whole: bool = True) -> None:
        """A message got lost on its way, to the worker or back."""
        logger.warning("a message to or of worker %d was lost: %s", self._placement.index, reason)
        if tag == ASIDE:
            return
        if tag == NO_BATCH:
            # Neither side would ever go on: without its start, or ready and not known to be.
            self._fault = f"it could not be spoken to: {reason}"
            self._give_up()
            return
        self._arenas.give_back(tag, whole=whole)
        self._heard((Raised if unreadable else Lost)(tag, reason))

    def _sealed(self, packet: Packet, sealing: asyncio.Future[Packet]) -> None:
        """A thread has copied a message, or could not."""
        self._sealing.discard(sealing)
        error = None if sealing.cancelled() else sealing.exception()
        if self._channel is None or sealing.cancelled():
            packet.close()  # it was dropped meanwhile
        elif error is None:
            self._flush()
        else:
            self._outbox.remove(packet)
            self._lost(packet.tag, f"it cannot be sent: {describe(error)}", whole=False)
            if self._channel is not None:
                self._flush()

    def _trim_later(self) -> None:
        if self._trimming is None and self._arenas.trimmable:
            self._trimming = self._loop.call_later(arena.IDLE_S, self._trim)

    def _trim(self) -> None:
        """Free what is kept for messages as large as have not come for a while, on both sides."""
        self._trimming = None
        if self._channel is not None and (numbers := self._arenas.trim(self._loop.time())):
            self._post(pack(Unmap(numbers), ASIDE))
        self._trim_later()

    def _give_up(self) -> None:
        """A worker that cannot be spoken to is of no use; usually it is dead already."""
        self._hang_up()
        self._send_signal(signal.SIGKILL)

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            self._loop.remove_reader(channel.fileno())
            self._loop.remove_writer(channel.fileno())
            channel.close()
        self._drop_outbox()
        self._arenas.close()
        if self._trimming is not None:
            self._trimming.cancel()
            self._trimming = None

    def _drop_outbox(self) -> None:
        while self._outbox:
            packet = self._outbox.popleft()
            packet.close()
            self._never_sent.add(packet.tag)

    def _send_signal(self, number: signal.Signals) -> None:
        self._signal = number
        if self._process is not None and self._process.returncode is None:
            # Not `Process.send_signal`: it may reap the process itself, and the watcher then never learns how it ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


def _reason(code: int) -> str:
    if code >= 0:
        return f"it exited with code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"
