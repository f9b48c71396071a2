"""Models that compute nothing but read what is written into the picture: whose it is, and what should go wrong.

A picture is rows of black and white blocks, 8 x 8 pixels each. The first row says which picture it is, how many regions
it has and what is to happen to it; each further row is a region. So every answer can be traced to its question, by
client, detector and recogniser alike, without one knowing anything of the others.
"""

from __future__ import annotations

import ctypes
import os
import time
import zlib
from enum import IntEnum
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sluiceway_detection.types import Region
from sluiceway_recognition.types import ClassReading, CropSpec, TextReading
from sluiceway_runtime.pool.handler import WorkerBroken

Image = NDArray[np.uint8]

BLOCK_PX = 8
# number 32, region or regions 8, deed 8, argument 16, checksum 16
BITS = 80
WIDTH_PX = BITS * BLOCK_PX


class Deed(IntEnum):
    """What happens to a picture. `argument` is a time in milliseconds, or a size in MB."""

    NOTHING = 0
    # in detection
    CRASH = 1
    HANG = 2  # until killed, with the interpreter's lock held
    RAISE = 3
    NAN = 4
    ZERO_SIZED = 5
    SLOW = 6
    LEAK = 7
    # in recognition
    READ_CRASH = 16
    READ_RAISE = 17
    READ_NAN = 18
    READ_SLOW = 19
    READ_LEAK = 20


def draw(number: int, regions: int = 1, deed: Deed = Deed.NOTHING, argument: int = 0) -> bytes:
    """Make the picture of a number as a PNG file of a few hundred bytes."""
    rows = [_row(number, regions, deed, argument)]
    rows += [_row(number, region, deed, argument) for region in range(regions)]
    small = np.array(rows, np.uint8) * 255
    pixels = np.repeat(np.repeat(small, BLOCK_PX, axis=0), BLOCK_PX, axis=1)
    return bytes(cv2.imencode(".png", pixels)[1])


def _row(number: int, part: int, deed: Deed, argument: int) -> list[int]:
    value = (((number << 8 | part) << 8 | deed) << 16) | argument
    value = value << 16 | zlib.crc32(value.to_bytes(8, "big")) & 0xFFFF
    return [value >> (BITS - 1 - bit) & 1 for bit in range(BITS)]


def read(row: Image) -> tuple[int, int, Deed, int] | None:
    """Number, region (or their count), deed and argument of a row of blocks [8, 640, 3]; None if it is none."""
    if row.shape[0] < BLOCK_PX or row.shape[1] != WIDTH_PX:
        return None
    bits = row[BLOCK_PX // 2, BLOCK_PX // 2 :: BLOCK_PX, 1] > 127
    value = int.from_bytes(np.packbits(bits).tobytes(), "big")
    value, checksum = value >> 16, value & 0xFFFF
    if zlib.crc32(value.to_bytes(8, "big")) & 0xFFFF != checksum:
        return None
    return value >> 32, value >> 24 & 0xFF, Deed(value >> 16 & 0xFF), value & 0xFFFF


def _hang() -> None:
    ctypes.PyDLL(None).sleep(3600)


class LedgerDetector:
    """Finds the regions that the picture says it has; a picture that is not ours has none."""

    classes = ("row",)

    def setup(self, device: str) -> None:
        while Path(os.environ.get("LEDGER_LOADS_WHILE", "/nowhere")).exists():
            time.sleep(0.02)
        self._leaked: list[bytearray] = []

    def __call__(self, batch: list[Image]) -> list[list[Region]]:
        return [self._find(image) for image in batch]

    def _find(self, image: Image) -> list[Region]:
        told = read(image[:BLOCK_PX])
        if told is None:
            return []
        _, regions, deed, argument = told
        if deed is Deed.CRASH:
            os._exit(1)
        if deed is Deed.HANG:
            _hang()
        if deed is Deed.RAISE:
            raise ValueError("asked to fail")
        if deed is Deed.SLOW:
            time.sleep(argument / 1000)
        if deed is Deed.LEAK:
            self._leaked.append(bytearray(b"x") * (argument * 2**20))
        boxes = [(0.0, (row + 1.0) * BLOCK_PX, float(WIDTH_PX), (row + 2.0) * BLOCK_PX) for row in range(regions)]
        found = [Region(box, 0, 0.9) for box in boxes]
        nan = float("nan")
        if deed is Deed.NAN:
            found += [Region((nan, 0, 10, 10), 0, 0.9), Region((0, 0, 10, 10), 0, nan)]
            found += [Region((0, 0, float("inf"), 10), 0, 0.9), Region((0, 0, 10, 10), 0, float("inf"))]
        if deed is Deed.ZERO_SIZED:
            found += [Region((5, 5, 5, 9), 0, 0.9), Region((5, 5, 9, 5), 0, 0.9), Region((9, 9, 5, 5), 0, 0.9)]
            found += [Region((-50, -50, -20, -20), 0, 0.9), Region((1e6, 0, 2e6, 10), 0, 0.9)]
        return found


class LoadingDetector(LedgerDetector):
    """Is never done with its setup. A file in the working directory says that it has begun."""

    def setup(self, device: str) -> None:
        Path("loading").touch()
        time.sleep(3600)


def _fail_if_ill() -> None:
    """As a device that is lost does, while a file says so."""
    if Path(os.environ.get("LEDGER_ILL", "/nowhere")).exists():
        raise WorkerBroken("the device answers nothing but errors")


class FrailDetector(LedgerDetector):
    """Computes on a device that may be lost."""

    def __call__(self, batch: list[Image]) -> list[list[Region]]:
        _fail_if_ill()
        return super().__call__(batch)


class LedgerRecognizer:
    """Reads a row as `number:region`. Its setup lasts as long as the file is there that `LEDGER_LOADS_WHILE` names."""

    crop_spec = CropSpec(height=BLOCK_PX, max_width=WIDTH_PX)

    def setup(self, device: str) -> None:
        while Path(os.environ.get("LEDGER_LOADS_WHILE", "/nowhere")).exists():
            time.sleep(0.02)
        self._leaked: list[bytearray] = []

    def __call__(self, batch: list[Image]) -> list[TextReading | ClassReading]:
        return [self._read(crop) for crop in batch]

    def _read(self, crop: Image) -> TextReading | ClassReading:
        told = read(crop)
        if told is None:
            return TextReading("")
        number, region, deed, argument = told
        if deed is Deed.READ_CRASH:
            os._exit(1)
        if deed is Deed.READ_RAISE:
            raise ValueError("asked to fail")
        if deed is Deed.READ_SLOW:
            time.sleep(argument / 1000)
        if deed is Deed.READ_LEAK:
            self._leaked.append(bytearray(b"x") * (argument * 2**20))
        text = f"{number}:{region}"
        confidence = float("nan") if deed is Deed.READ_NAN else 0.9
        return TextReading(text, [confidence] * len(text))


class FrailRecognizer(LedgerRecognizer):
    """Computes on a device that may be lost."""

    def __call__(self, batch: list[Image]) -> list[TextReading | ClassReading]:
        _fail_if_ill()
        return super().__call__(batch)
