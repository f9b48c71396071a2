"""Messages over a unix SEQPACKET socket; whatever is large goes in anonymous shared memory beside it.

A message is pickled with its buffers kept apart (pickle protocol 5). If all of it is small it travels in the packet;
else it is written to shared memory, once: to an arena of the sender if it has one (see `arena`), which the receiver
maps when it first comes, or to a memfd of its own, whose descriptor the packet carries. The receiver gets views on it:
between the sender's buffers and the receiver's views lies one copy. A memfd has no name, so a killed process leaves
nothing behind. Both ends trust each other: workers run the operator's own code.

    packet: header (tag, size of the body, where the body is, number of the arena) [body]
    body:   count of buffers, their sizes, size of the pickle, pickle, buffers each at a multiple of 64 bytes
"""

from __future__ import annotations

import array
import os
import pickle
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sluiceway_runtime.pool.payload import Buffer
from sluiceway_runtime.pool.transport.arena import Arena, Arenas
from sluiceway_runtime.pool.transport.memory import map_shared

__all__ = ["Channel", "ChannelClosed", "Draft", "Packet", "UnusablePacket", "pack", "pair"]

# Above this a memfd is cheaper than copying through the socket twice, and socket buffers (208 KiB) hold few packets.
INLINE_MAX_BYTES = 64 * 1024
# Cache line; also what vector loads want.
ALIGNMENT = 64
HEADER = struct.Struct("<QQBB")
IN_PACKET, IN_MEMFD, IN_NEW_ARENA, IN_KNOWN_ARENA = range(4)
WORD = struct.Struct("<Q")
# The kernel takes at most this many pieces in one writev.
PIECES_MAX = 1024
ZEROS = bytes(ALIGNMENT)


class ChannelClosed(Exception):
    """The peer has closed its end or died."""


class UnusablePacket(Exception):
    """A packet came, but its message cannot be had.

    Attributes:
        tag: of the message, as given to `pack`.
        unreadable: True if the content is to blame (it cannot be unpickled), False if descriptors or memory ran out.
    """

    def __init__(self, tag: int, reason: str, *, unreadable: bool) -> None:
        super().__init__(reason)
        self.tag = tag
        self.unreadable = unreadable


@dataclass(slots=True, eq=False)
class Packet:
    """A message ready to be sent, once it has data. It owns the descriptor until `close`.

    Attributes:
        tag: as given to `pack`.
    """

    tag: int
    data: bytes = b""
    descriptor: int | None = None

    def close(self) -> None:
        """Close the descriptor; the receiver has its own once the packet is sent."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Draft:
    """A message that is pickled and has not been copied yet.

    Args:
        message: picklable, buffers through `PickleBuffer` (as `Payload` does).
        tag: readable by the receiver even if the message is not.

    Attributes:
        tag: as given.
        size: bytes of the body.

    Raises:
        Exception: the message cannot be pickled, or a buffer is not contiguous.
    """

    __slots__ = ("_buffers", "_head", "_offsets", "size", "tag")

    def __init__(self, message: object, tag: int) -> None:
        apart: list[pickle.PickleBuffer] = []
        control = pickle.dumps(message, protocol=5, buffer_callback=apart.append)
        self.tag = tag
        self._buffers = [buffer.raw() for buffer in apart]
        sizes = [buffer.nbytes for buffer in self._buffers]
        self._head = struct.pack(f"<{len(sizes) + 2}Q", len(sizes), *sizes, len(control)) + control
        self._offsets = []
        end = len(self._head)
        for size in sizes:
            offset = end + -end % ALIGNMENT
            self._offsets.append(offset)
            end = offset + size
        self.size = end

    @property
    def inline(self) -> bool:
        """Whether it travels in the packet."""
        return self.size <= INLINE_MAX_BYTES

    def seal(self, packet: Packet, arena: Arena | None = None) -> Packet:
        """Copy the message to where it travels, and make the packet that tells of it. May run in a thread.

        Args:
            packet: is given its data; of this tag.
            arena: to copy it to; else what is large gets memory of its own.

        Raises:
            OSError: no descriptor or memory is left.
        """
        if arena is not None:
            if not arena.made:
                arena.make()
            arena.write(((0, self._head), *zip(self._offsets, self._buffers, strict=True)))
            packet.descriptor, arena.descriptor = arena.descriptor, None
            place = IN_KNOWN_ARENA if packet.descriptor is None else IN_NEW_ARENA
            packet.data = HEADER.pack(self.tag, self.size, place, arena.number)
        elif self.inline:
            packet.data = b"".join((HEADER.pack(self.tag, self.size, IN_PACKET, 0), *self._pieces()))
        else:
            packet.descriptor = _write_memory(self._pieces(), self.size)
            packet.data = HEADER.pack(self.tag, self.size, IN_MEMFD, 0)
        return packet

    def _pieces(self) -> list[Buffer]:
        pieces: list[Buffer] = [self._head]
        at = len(self._head)
        for offset, buffer in zip(self._offsets, self._buffers, strict=True):
            pieces += (ZEROS[: offset - at], buffer)
            at = offset + buffer.nbytes
        return pieces


def pack(message: object, tag: int = 0, arenas: Arenas | None = None) -> Packet:
    """Make a packet of a message, at once.

    Args:
        message: see `Draft`.
        tag: likewise.
        arenas: those of the receiver; the message may take one, under its tag.

    Raises:
        OSError: no descriptor or memory is left. The arena is free again.
        Exception: as `Draft`.
    """
    draft = Draft(message, tag)
    arena = None if arenas is None or draft.inline else arenas.take(tag, draft.size)
    try:
        return draft.seal(Packet(tag), arena)
    except BaseException:
        if arenas is not None:
            arenas.give_back(tag, whole=False)
        raise


def _write_memory(pieces: Sequence[Buffer], size: int) -> int:
    descriptor = os.memfd_create("sluiceway", os.MFD_CLOEXEC)
    try:
        # Writing makes whole pages without clearing them first, which a mapping would.
        for first in range(0, len(pieces), PIECES_MAX):
            _write_all(descriptor, pieces[first : first + PIECES_MAX])
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == size, "the sizes of the pieces add up"
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write_all(descriptor: int, pieces: Sequence[Buffer]) -> None:
    left = sum(memoryview(piece).nbytes for piece in pieces)
    written = os.writev(descriptor, pieces)
    if written < left:
        # Short writes happen above 2 GiB or when a signal comes in between; the rest goes piece by piece.
        for piece in pieces:
            view = memoryview(piece).cast("B")
            skipped = min(written, view.nbytes)
            written -= skipped
            view = view[skipped:]
            while view.nbytes:
                view = view[os.write(descriptor, view) :]


def unpack(body: memoryview) -> Any:
    """Rebuild a message on a body; its buffers are read-only views that keep the body alive."""
    (count,) = WORD.unpack_from(body)
    *sizes, control_size = struct.unpack_from(f"<{count + 1}Q", body, WORD.size)
    start = WORD.size * (count + 2)
    at = start + control_size
    buffers = []
    for size in sizes:
        at += -at % ALIGNMENT
        buffers.append(body[at : at + size])
        at += size
    return pickle.loads(body[start : start + control_size], buffers=buffers)  # noqa: S301 - from our own process


class Channel:
    """One end of a connection. It owns the socket.

    `send` and `receive` block or not as the socket does; `try_send` never blocks.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._arenas: dict[int, memoryview] = {}  # of the peer, by number

    def fileno(self) -> int:
        """The socket's descriptor, -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end; the peer sees the end of the stream."""
        self._socket.close()

    def send(self, message: object, tag: int = 0) -> None:
        """Pack and send, and wait while the peer does not read.

        Raises:
            ChannelClosed: the peer is gone.
            Exception: as `pack`.
        """
        packet = pack(message, tag)
        try:
            self._send(packet, 0)
        finally:
            packet.close()

    def try_send(self, packet: Packet) -> bool:
        """Send if that is possible at once; the packet is closed if it was sent.

        Raises:
            ChannelClosed: the peer is gone.
            OSError: the kernel is short of memory or descriptors for it.
        """
        try:
            self._send(packet, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        packet.close()
        return True

    def _send(self, packet: Packet, flags: int) -> None:
        flags |= socket.MSG_NOSIGNAL
        try:
            if packet.descriptor is None:
                self._socket.send(packet.data, flags)
            else:
                # Not `socket.send_fds`, nor `recv_fds` below: as of Python 3.13 both drop their flags, so that one may
                # wait and the other gives descriptors to every process that is started later.
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (packet.descriptor,)))
                self._socket.sendmsg([packet.data], [rights], flags)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed from error

    def receive(self) -> Any:
        """The next message.

        Raises:
            BlockingIOError: the socket does not block, and nothing is there.
            ChannelClosed: the peer is gone, and all it sent has been received.
            UnusablePacket: a packet came that is no use. The next may be.
        """
        try:
            data, ancillary, flags = self._receive()
        except ConnectionResetError:
            # The peer ended without reading all that we sent. The kernel says so once, before what the peer had said.
            data, ancillary, flags = self._receive()
        if not data:
            raise ChannelClosed
        descriptor = _descriptor(ancillary)
        tag, size, place, arena = HEADER.unpack_from(data)
        try:
            if place == IN_PACKET:
                body = memoryview(data)[HEADER.size :]
            elif place == IN_KNOWN_ARENA and arena in self._arenas:
                body = self._arenas[arena][:size]
            elif descriptor is None or flags & socket.MSG_CTRUNC:
                raise UnusablePacket(tag, "no descriptor is left to receive shared memory", unreadable=False)
            elif place == IN_NEW_ARENA:
                self._arenas.pop(arena, None)  # unmapped first, unless somebody still looks into it
                self._arenas[arena] = map_shared(descriptor, os.fstat(descriptor).st_size)
                body = self._arenas[arena][:size]
            else:
                body = map_shared(descriptor, size)
        except OSError as error:
            raise UnusablePacket(tag, f"shared memory cannot be mapped: {error}", unreadable=False) from error
        finally:
            if descriptor is not None:
                os.close(descriptor)
        try:
            return unpack(body)
        except Exception as error:
            raise UnusablePacket(tag, f"{type(error).__name__}: {error}", unreadable=True) from error

    def unmap(self, arenas: Iterable[int]) -> None:
        """The peer has let go of these arenas. They are unmapped, unless somebody still looks into one."""
        for number in arenas:
            self._arenas.pop(number, None)

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        room = socket.CMSG_SPACE(array.array("i").itemsize)
        return self._socket.recvmsg(HEADER.size + INLINE_MAX_BYTES, room, socket.MSG_CMSG_CLOEXEC)[:3]


def _descriptor(ancillary: Sequence[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and data:
            return array.array("i", data)[0]
    return None
