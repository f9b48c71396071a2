"""Pictures that say what is in them, so that a client can account for everything that it gets.

A picture is a PNG file by its header; what workers find in it stands in a chunk of our own. Crops begin with the number
of their picture, that of their region, and what they do to a worker.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from sluiceway_runtime.pool import Buffer

__all__ = ["Harm", "Mark", "Picture", "crop_pixels", "mark_of"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">I4sIIBBBBBI")
_CHUNK = struct.Struct(">I4s")
_FACTS = struct.Struct(">IHHBH")
_MARK = struct.Struct(">IIBB")
_FACTS_AT = len(_SIGNATURE) + _HEADER.size + _CHUNK.size
CHANNELS = 3
LINE_PX = 32


class Harm(IntEnum):
    """What an item does to whoever computes it."""

    NONE = 0
    REFUSED = 1
    """The handler answers with an error for this item."""
    RAISES = 2
    """The handler raises: one item of the batch is to blame."""
    KILLS = 3
    """The worker dies of it."""


_HARMS = tuple(Harm)


class Picture(NamedTuple):
    """One source.

    Attributes:
        number: by which everything that comes of it is known.
        regions: lines of text in it.
        crop_width_px: of each line, cut to a height of 32 pixels.
        harm: what it does to detection.
        region_harm: what its first region does to recognition.
        least_width_px: of the picture, which is as wide as its lines at least.
    """

    number: int
    regions: int
    crop_width_px: int = 96
    harm: Harm = Harm.NONE
    region_harm: Harm = Harm.NONE
    least_width_px: int = 640

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        return max(self.least_width_px, self.crop_width_px + 20), max(480, self.regions * LINE_PX)

    def encode(self, size_bytes: int = 0) -> bytes:
        """The file, filled up to a size."""
        width, height = self.size_px
        harms = self.harm << 4 | self.region_harm
        facts = _FACTS.pack(self.number, self.regions, self.crop_width_px, harms, self.least_width_px)
        head = _HEADER.pack(13, b"IHDR", width, height, 8, 2, 0, 0, 0, 0)
        end = _CHUNK.pack(0, b"IEND") + bytes(4)
        fixed = len(_SIGNATURE) + len(head) + _CHUNK.size + 4 + len(end)
        filling = bytes(max(0, size_bytes - fixed - len(facts)))
        ours = _CHUNK.pack(len(facts) + len(filling), b"slUi") + facts + filling + bytes(4)
        return b"".join((_SIGNATURE, head, ours, end))

    @classmethod
    def decode(cls, file: Buffer) -> Picture:
        """What a file says."""
        number, regions, crop_width_px, harms, width_px = _FACTS.unpack_from(file, _FACTS_AT)
        return cls(number, regions, crop_width_px, _HARMS[harms >> 4], _HARMS[harms & 15], width_px)


class Mark(NamedTuple):
    """What a crop says of itself."""

    number: int
    region: int
    harm: Harm
    version: int


def crop_pixels(mark: Mark, height_px: int, width_px: int) -> bytes:
    """Pixels of a crop, uint8 [height, width, 3]."""
    return _MARK.pack(*mark).ljust(height_px * width_px * CHANNELS, b"\x7f")


def mark_of(pixels: Buffer) -> Mark:
    """What stands in the pixels of a crop."""
    number, region, harm, version = _MARK.unpack_from(pixels)
    return Mark(number, region, _HARMS[harm], version)
