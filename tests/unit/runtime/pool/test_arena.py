"""Shared memory that is used again: who may write to it when, and what is left of it."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sluiceway_runtime.pool.payload import Payload
from sluiceway_runtime.pool.transport import arena as module
from sluiceway_runtime.pool.transport.arena import Arenas
from sluiceway_runtime.pool.transport.channel import Channel, Draft, UnusablePacket, pack, pair


def mappings() -> int:
    return Path("/proc/self/maps").read_text(encoding="ascii").count("memfd:sluiceway-arena")


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@dataclass
class Line:
    """A sender with two arenas and its receiver."""

    here: Channel
    there: Channel
    arenas: Arenas

    def send(self, payload: Payload, tag: int) -> None:
        assert self.here.try_send(pack(payload, tag, self.arenas))


@pytest.fixture
def line() -> Iterator[Line]:
    gc.collect()
    before = descriptors()
    made = Line(*(Channel(end) for end in pair()), Arenas(2))
    yield made
    made.arenas.close()
    made.here.close()
    made.there.close()
    del made.there
    gc.collect()
    assert mappings() == 0
    assert descriptors() <= before


def large(fill: int, size: int = 100_000) -> Payload:
    return Payload(fill, (bytes([fill]) * size, b"tail"))


def test_messages_come_whole_and_the_memory_is_mapped_once_on_each_side(line):
    handed_over = []
    for tag in range(5):
        packet = pack(large(tag), tag, line.arenas)
        handed_over.append(packet.descriptor is not None)
        assert line.here.try_send(packet)
        received = line.there.receive()
        assert (received.meta, bytes(received.buffers[0]), bytes(received.buffers[1])) == (
            tag,
            bytes([tag]) * 100_000,
            b"tail",
        )
        assert received.buffers[0].readonly
        assert mappings() == 2
        line.arenas.give_back(tag)
    assert handed_over == [True, False, False, False, False]


def test_messages_on_their_way_have_memory_of_their_own(line):
    for tag in (1, 2, 3):
        line.send(large(tag), tag)
    received = [line.there.receive() for _ in range(3)]
    # The third found no arena: two are all there are.
    assert mappings() == 4
    assert [bytes(one.buffers[0]) for one in received] == [bytes([tag]) * 100_000 for tag in (1, 2, 3)]
    line.arenas.give_back(1)
    line.send(large(4), 4)
    assert bytes(line.there.receive().buffers[0][:1]) == b"\4"
    assert bytes(received[1].buffers[0]) == b"\2" * 100_000, "a message that was not given back has not changed"


def test_a_larger_message_replaces_the_memory_and_small_ones_need_none(line):
    assert pack(Payload(1, (b"x",)), 1, line.arenas).descriptor is None
    assert mappings() == 0
    line.send(large(2), 2)
    line.there.receive()
    line.arenas.give_back(2)
    line.send(large(3, 3_000_000), 3)
    received = line.there.receive()
    assert bytes(received.buffers[0]) == b"\3" * 3_000_000
    assert mappings() == 2


def test_views_into_replaced_memory_stay_readable(line):
    line.send(large(2), 2)
    old = line.there.receive()
    line.arenas.give_back(2)
    line.send(large(3, 3_000_000), 3)
    line.there.receive()
    assert bytes(old.buffers[0]) == b"\2" * 100_000
    del old
    assert mappings() == 2


def test_a_message_above_the_bound_takes_memory_of_its_own(line, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 200_000)
    line.send(large(1, 300_000), 1)
    assert bytes(line.there.receive().buffers[0]) == b"\1" * 300_000
    assert mappings() == 0


def test_memory_that_never_arrived_is_not_used_again(line):
    """The descriptor is lost on the way: the message is, too, and the next one brings memory that can be mapped."""
    packet = pack(large(1), 1, line.arenas)
    with socket.socket(fileno=os.dup(line.here.fileno())) as bare:
        bare.send(packet.data)
    packet.close()
    with pytest.raises(UnusablePacket) as caught:
        line.there.receive()
    assert (caught.value.tag, caught.value.unreadable) == (1, False)
    line.arenas.give_back(1, whole=False)
    assert mappings() == 0
    line.send(large(2), 2)
    assert bytes(line.there.receive().buffers[0]) == b"\2" * 100_000


def test_without_memory_the_sender_is_told_and_nothing_is_kept(line, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        for tag in range(5):
            with pytest.raises(OSError, match="allocate"):
                pack(large(1), tag, line.arenas)
    assert mappings() == 0
    assert pack(large(1), 9, line.arenas).close() is None
    assert mappings() == 1


def test_closing_unmaps_what_is_lent_and_gives_no_more(line):
    line.send(large(1), 1)
    line.arenas.close()
    assert mappings() == 0
    assert line.arenas.take(2, 100_000) is None
    line.arenas.give_back(1)


def test_a_replacement_that_never_arrived_is_not_taken_for_what_it_replaces(line):
    line.send(large(1), 1)
    assert line.there.receive().meta == 1
    line.arenas.give_back(1)
    packet = pack(large(2, 3_000_000), 2, line.arenas)
    with socket.socket(fileno=os.dup(line.here.fileno())) as bare:
        bare.send(packet.data)
    packet.close()
    with pytest.raises(UnusablePacket):
        line.there.receive()
    line.arenas.give_back(2, whole=False)
    line.send(large(3), 3)
    assert bytes(line.there.receive().buffers[0]) == b"\3" * 100_000


def test_a_message_that_cannot_be_written_leaves_its_arena_to_the_next(line, monkeypatch):
    def fail(*_: object) -> None:
        raise ValueError("no")

    with monkeypatch.context() as patch:
        patch.setattr(module.Arena, "write", fail)
        for tag in range(5):
            with pytest.raises(ValueError, match="no"):
                pack(large(tag), tag, line.arenas)
    packet = pack(large(9), 9, line.arenas)
    assert packet.descriptor is not None
    packet.close()
    assert mappings() == 1


def test_what_has_not_been_needed_for_a_while_is_unmapped_on_both_sides(line):
    for tag, size in ((1, 30_000_000), (2, 5_000_000)):
        assert line.here.try_send(pack(large(tag, size), tag, line.arenas))
        line.there.receive()
        line.arenas.give_back(tag)
        # Nobody needs the first one that is not there yet, and the second message fits into it.
    assert mappings() == 2
    assert line.arenas.trim(module.IDLE_S - 0.1) == ()
    numbers = line.arenas.trim(module.IDLE_S)
    assert len(numbers) == 1
    assert not line.arenas.trimmable
    line.there.unmap(numbers)
    assert mappings() == 0
    line.send(large(3), 3)
    assert bytes(line.there.receive().buffers[0]) == b"\3" * 100_000


def test_memory_is_kept_while_messages_fill_it(line):
    for tag in range(3):
        draft = Draft(large(tag, 30_000_000), tag)
        line.arenas.take(tag, draft.size, 10.0 * tag)
        line.arenas.give_back(tag)
        assert line.arenas.trim(10.0 * tag + module.IDLE_S - 1.0) == ()
    small = Draft(large(3), 3)
    line.arenas.take(3, small.size, 25.0)
    line.arenas.give_back(3)
    assert len(line.arenas.trim(30.0)) == 1, "a small one does not keep it"


@pytest.mark.parametrize("size", [70_000, 2**20, 2**20 + 1, 5_000_000, 33 * 2**20, 64 * 2**20])
def test_memory_is_at_most_a_quarter_larger_than_what_it_was_made_for(line, size):
    room = line.arenas.take(1, size)
    assert room is not None
    assert size <= room.size <= max(module.MIN_BYTES, size * 1.25)
    line.arenas.give_back(1)
