"""Which JPEG files a decoder that is not the CPU's can be trusted with."""

from __future__ import annotations

from typing import NamedTuple

from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.images.facts import ImageHeader
from sluiceway_runtime.images.jpeg import JpegFrame, check_scans, read_frame
from sluiceway_runtime.images.limits import ImageLimits, check_image
from sluiceway_runtime.images.signatures import LONGEST, format_of

__all__ = ["PlainJpeg", "plain_jpeg"]

# Progressive files are decoded by software, one after the other, in nvJPEG too; threads of the CPU do so beside each
# other.
_BASELINE = 0xC0
_YCBCR = 1
# Of brightness; that of the two colours is 1 x 1 then.
_SAMPLING = frozenset({0x11, 0x12, 0x21, 0x22, 0x41})


class PlainJpeg(NamedTuple):
    """A file that is within the limits, has its end, and stores its pixels as nearly all do.

    Attributes:
        data: the file.
        header: of it.
        grey: it has one channel.
    """

    data: bytes
    header: ImageHeader
    grey: bool


def plain_jpeg(data: bytes | memoryview, limits: ImageLimits) -> PlainJpeg | None:
    """The file, if it is plain: baseline, 8 bits, grey or YCbCr with usual sampling, and complete.

    None as well for whatever `read_image` refuses: that says what is wrong.
    """
    if format_of(bytes(data[:LONGEST])) != "jpeg":
        return None
    file = bytes(data)
    try:
        header = check_image(file, limits)
        check_scans(file)
        frame = read_frame(file)
    except SluicewayError:
        return None
    return PlainJpeg(file, header, len(frame.channels) == 1) if _is_plain(frame) and not header.unended else None


def _is_plain(frame: JpegFrame) -> bool:
    if frame.bits != 8 or frame.marker != _BASELINE:
        return False
    if len(frame.channels) == 1:
        return frame.sampling == b"\x11"
    # Without Adobe's word for it, three channels called RGB are that; CMYK has four.
    ycbcr = frame.adobe == _YCBCR or (frame.adobe is None and frame.channels != b"RGB")
    return len(frame.channels) == 3 and ycbcr and frame.sampling[0] in _SAMPLING and frame.sampling[1:] == b"\x11\x11"
