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
import ctypes
import errno
import mmap
import os
import pickle
import socket
import struct
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sluiceway_runtime.pool.payload import Buffer
from sluiceway_runtime.pool.transport.arena import Arenas

__all__ = ["Channel", "ChannelClosed", "LostMessage", "Packet", "pack", "pair"]

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


class ChannelClosed(Exception):
    """The peer has closed its end or died."""


class LostMessage(Exception):
    """A packet came, but its message cannot be had.

    Attributes:
        tag: of the message, as given to `pack`.
        unreadable: True if the content is to blame (it cannot be unpickled), False if descriptors or memory ran out.
    """

    def __init__(self, tag: int, reason: str, *, unreadable: bool) -> None:
        super().__init__(reason)
        self.tag = tag
        self.unreadable = unreadable


@dataclass(slots=True)
class Packet:
    """A message ready to be sent. It owns the descriptor until `close`.

    Attributes:
        tag: as given to `pack`.
    """

    tag: int
    data: bytes
    descriptor: int | None = None

    def close(self) -> None:
        """Close the descriptor; the receiver has its own once the packet is sent."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def pack(message: object, tag: int = 0, arenas: Arenas | None = None) -> Packet:
    """Make a packet of a message.

    Args:
        message: picklable, buffers through `PickleBuffer` (as `Payload` does).
        tag: readable by the receiver even if the message is not.
        arenas: those of the receiver; the message may take one, under its tag.

    Raises:
        OSError: no descriptor or memory is left.
        Exception: the message cannot be pickled, or a buffer is not contiguous.
    """
    apart: list[pickle.PickleBuffer] = []
    control = pickle.dumps(message, protocol=5, buffer_callback=apart.append)
    buffers = [buffer.raw() for buffer in apart]
    sizes = [buffer.nbytes for buffer in buffers]
    head = struct.pack(f"<{len(buffers) + 2}Q", len(buffers), *sizes, len(control)) + control
    offsets = []
    end = len(head)
    for size in sizes:
        offset = end + -end % ALIGNMENT
        offsets.append(offset)
        end = offset + size
    if end > INLINE_MAX_BYTES and arenas is not None and (arena := arenas.take(tag, end)) is not None:
        arena.write(((0, head), *zip(offsets, buffers, strict=True)))
        descriptor, arena.descriptor = arena.descriptor, None
        place = IN_KNOWN_ARENA if descriptor is None else IN_NEW_ARENA
        return Packet(tag, HEADER.pack(tag, end, place, arena.slot), descriptor)
    pieces: list[Buffer] = [head]
    at = len(head)
    for offset, buffer in zip(offsets, buffers, strict=True):
        pieces += (ZEROS[: offset - at], buffer)
        at = offset + buffer.nbytes
    if end <= INLINE_MAX_BYTES:
        return Packet(tag, b"".join((HEADER.pack(tag, end, IN_PACKET, 0), *pieces)))
    return Packet(tag, HEADER.pack(tag, end, IN_MEMFD, 0), _write_memory(pieces, end))


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
        rights = array.array("i", () if packet.descriptor is None else (packet.descriptor,))
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        try:
            self._socket.sendmsg([packet.data], ancillary, flags | socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed from error

    def receive(self) -> Any:
        """The next message.

        Raises:
            BlockingIOError: the socket does not block, and nothing is there.
            ChannelClosed: the peer is gone, and all it sent has been received.
            LostMessage: a packet came that is no use. The next may be.
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
                raise LostMessage(tag, "no descriptor is left to receive shared memory", unreadable=False)
            elif place == IN_NEW_ARENA:
                self._arenas.pop(arena, None)  # unmapped first, unless somebody still looks into it
                self._arenas[arena] = _map(descriptor, os.fstat(descriptor).st_size)
                body = self._arenas[arena][:size]
            else:
                body = _map(descriptor, size)
        except OSError as error:
            raise LostMessage(tag, f"shared memory cannot be mapped: {error}", unreadable=False) from error
        finally:
            if descriptor is not None:
                os.close(descriptor)
        try:
            return unpack(body)
        except Exception as error:
            raise LostMessage(tag, f"{type(error).__name__}: {error}", unreadable=True) from error

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        room = socket.CMSG_SPACE(array.array("i").itemsize)
        return self._socket.recvmsg(HEADER.size + INLINE_MAX_BYTES, room, socket.MSG_CMSG_CLOEXEC)[:3]


def _descriptor(ancillary: Sequence[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and data:
            return array.array("i", data)[0]
    return None


def _map(descriptor: int, size: int) -> memoryview:
    """A read-only view of shared memory, which is unmapped when the last slice of the view is gone.

    The standard library's mmap would do, but before Python 3.13 it keeps a descriptor open for each mapping: a thousand
    answers that wait for slow clients would use up the usual limit.
    """
    if os.fstat(descriptor).st_size < size:
        raise OSError(errno.EIO, "shared memory is smaller than announced")  # reading past its end would end us
    # Filling the page table at once saves a fault for every page.
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED | mmap.MAP_POPULATE, descriptor, 0)
    if address == MAP_FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    memory = (ctypes.c_ubyte * size).from_address(address)
    # Not at exit: views may be alive then, and the system unmaps everything anyway.
    weakref.finalize(memory, _libc.munmap, address, size).atexit = False
    return memoryview(memory).cast("B").toreadonly()
