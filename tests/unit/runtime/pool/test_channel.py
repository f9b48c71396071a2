"""Packets, shared memory and descriptors between two ends of a socket."""

from __future__ import annotations

import gc
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.pool.payload import Payload
from sluiceway_runtime.pool.transport.channel import (
    INLINE_MAX_BYTES,
    Channel,
    ChannelClosed,
    UnusablePacket,
    pack,
    pair,
)


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    gc.collect()
    before = len(open_descriptors())
    here, there = (Channel(end) for end in pair())
    yield here, there
    here.close()
    there.close()
    assert len(open_descriptors()) <= before


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:sluiceway")


@pytest.mark.parametrize("size", [0, 1, INLINE_MAX_BYTES // 2, INLINE_MAX_BYTES, INLINE_MAX_BYTES + 1, 3_000_000])
def test_what_is_sent_arrives(ends, size):
    here, there = ends
    data = os.urandom(size)
    here.send(Payload({"size": size}, (data, b"", data[:7])))
    received = there.receive()
    assert received.meta == {"size": size}
    assert [bytes(view) for view in received.buffers] == [data, b"", data[:7]]


def test_only_small_messages_travel_in_the_packet():
    small, large = pack(Payload(1, (bytes(1000),))), pack(Payload(1, (bytes(100_000),)))
    assert small.descriptor is None
    assert large.descriptor is not None
    assert len(large.data) < 100
    large.close()


def test_large_metadata_goes_through_shared_memory_too(ends):
    here, there = ends
    here.send(Payload(list(range(50_000))))
    assert there.receive().meta == list(range(50_000))


def test_more_buffers_than_one_write_takes(ends):
    here, there = ends
    buffers = tuple(bytes([index % 256]) * 100 for index in range(3000))
    here.send(Payload(None, buffers))
    assert tuple(bytes(view) for view in there.receive().buffers) == buffers


def test_views_are_read_only_flat_and_aligned_where_it_matters(ends):
    here, there = ends
    shaped = memoryview(bytes(60_000)).cast("B", (100, 200, 3))
    here.send(Payload(None, (b"x", shaped, bytes(60_000))))
    views = there.receive().buffers
    assert all(view.readonly and view.ndim == 1 and view.format == "B" for view in views)
    with pytest.raises(TypeError):
        views[0][0] = 1


def test_memory_is_unmapped_with_the_last_view_and_not_before(ends):
    here, there = ends
    here.send(Payload(None, (b"a" * 100_000, b"b" * 100_000)))
    payload = there.receive()
    view = payload.buffers[1][5:10]
    del payload
    assert mappings() == 1
    assert bytes(view) == b"bbbbb"
    del view
    assert mappings() == 0


def test_mapped_answers_hold_no_descriptors(ends):
    here, there = ends
    before = open_descriptors()
    kept = []
    for _ in range(50):
        here.send(Payload(None, (bytes(100_000),)))
        kept.append(there.receive())
    assert open_descriptors() == before
    assert mappings() == 50


def test_a_closed_peer_is_noticed_after_its_last_words(ends):
    here, there = ends
    here.send("last words")
    here.close()
    assert there.receive() == "last words"
    with pytest.raises(ChannelClosed):
        there.receive()
    with pytest.raises(ChannelClosed):
        there.send("too late")


def test_last_words_are_heard_even_if_the_peer_left_something_unread(ends):
    """The kernel then reports a reset before the data that it still holds."""
    here, there = ends
    there.send("never read")
    here.send("last words")
    here.close()
    assert there.receive() == "last words"
    with pytest.raises(ChannelClosed):
        there.receive()


def test_a_full_socket_refuses_and_takes_the_packet_later(ends):
    here, there = ends
    sent = 0
    packet = pack(bytes(60_000))
    while here.try_send(packet):
        sent += 1
        packet = pack(bytes(60_000))
        assert sent < 100
    assert sent >= 1
    assert there.receive() == bytes(60_000)
    assert here.try_send(packet)


def test_a_descriptor_is_given_away_with_the_packet(ends):
    here, there = ends
    packet = pack(Payload(None, (bytes(100_000),)))
    before = len(open_descriptors())
    assert here.try_send(packet)
    assert packet.descriptor is None
    there.receive()
    assert len(open_descriptors()) < before


class Unreadable:
    def __reduce__(self) -> tuple[object, ...]:
        return (int, ("this is no number",))


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_message_that_cannot_be_read_names_its_tag_and_the_next_one_is_fine(ends, size):
    here, there = ends
    here.send([Unreadable(), bytes(size)], tag=42)
    here.send("fine")
    with pytest.raises(UnusablePacket, match="ValueError") as caught:
        there.receive()
    assert (caught.value.tag, caught.value.unreadable) == (42, True)
    assert there.receive() == "fine"


def test_what_cannot_be_pickled_raises_at_the_sender_and_sends_nothing(ends):
    here, there = ends
    with pytest.raises((AttributeError, pickle.PicklingError)):
        here.send(lambda: None)
    with pytest.raises(pickle.PicklingError, match="contiguous"):
        here.send(Payload(None, (memoryview(bytes(100))[::2],)))
    here.send("next")
    assert there.receive() == "next"


def test_a_packet_without_its_descriptor_is_lost_not_fatal(ends):
    here, there = ends
    packet = pack(Payload(None, (bytes(100_000),)), tag=7)
    with socket.socket(fileno=os.dup(here.fileno())) as bare:
        bare.send(packet.data)
    packet.close()
    with pytest.raises(UnusablePacket) as caught:
        there.receive()
    assert (caught.value.tag, caught.value.unreadable) == (7, False)


def test_memory_that_is_shorter_than_announced_is_refused(ends):
    here, there = ends
    packet = pack(Payload(None, (bytes(100_000),)), tag=7)
    os.ftruncate(packet.descriptor, 10)
    here.try_send(packet)
    with pytest.raises(UnusablePacket, match="smaller"):
        there.receive()


def test_errors_travel_whole(ends):
    here, there = ends
    here.send(InvalidImage("broken", metadata={"format": "png"}, retry_after_s=1.5))
    error = there.receive()
    assert isinstance(error, InvalidImage)
    assert (error.message, error.metadata, error.retry_after_s) == ("broken", {"format": "png"}, 1.5)
