"""What a request wants to have looked at: an image or crops, found where they lie in its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sluiceway_runtime.errors import ImageTooLarge, InvalidImage, InvalidOption
from sluiceway_runtime.images.limits import ImageLimits

from sluiceway.common.v1 import crop_pb2
from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway_detection.crops import channels_of
from sluiceway_detection.front import wire
from sluiceway_detection.front.convert.formats import FORMATS
from sluiceway_detection.job import RawPixels

__all__ = [
    "EncodedCrop",
    "RawCrop",
    "Request",
    "check_crops",
    "file_of",
    "pixels_of",
    "read_request",
    "request_of",
]

# Numbers of the fields that may be large, as in detection.proto and crop.proto.
_IMAGE, _CROPS = pb.DetectRequest.IMAGE_FIELD_NUMBER, pb.DetectRequest.CROPS_FIELD_NUMBER
_RAW, _ENCODED = crop_pb2.Crop.RAW_FIELD_NUMBER, crop_pb2.Crop.ENCODED_FIELD_NUMBER
_DATA = crop_pb2.RawImage.DATA_FIELD_NUMBER


class RawCrop(NamedTuple):
    """A crop of raw pixels as it came, unchecked; `format` is a number of the enumeration."""

    id: int
    height: int
    width: int
    format: int
    data: bytes | memoryview


class EncodedCrop(NamedTuple):
    """A crop that is an image file, unchecked; None if the crop had no content at all."""

    id: int
    data: bytes | memoryview | None


class Request(NamedTuple):
    """A request as it came.

    Attributes:
        message: all of it but `image` and `crops`.
        image: the file, empty if there is none.
        crops: unchecked.
    """

    message: pb.DetectRequest
    image: bytes | memoryview = b""
    crops: Sequence[RawCrop | EncodedCrop] = ()


def read_request(data: bytes) -> Request:
    """Read a serialised `DetectRequest`; image and pixels become views into it where that is possible.

    Raises:
        DecodeError: it is none.
    """
    try:
        rest, taken = wire.take_out(memoryview(data), (_IMAGE, _CROPS))
        # Of a field that is there several times, the last one counts.
        image = next((content for number, content in reversed(taken) if number == _IMAGE), b"")
        crops = [_read_crop(content) for number, content in taken if number == _CROPS]
    except wire.Unusual:
        return request_of(pb.DetectRequest.FromString(data))
    return Request(pb.DetectRequest.FromString(rest), image, crops)


def _read_crop(data: memoryview) -> RawCrop | EncodedCrop:
    rest, contents = wire.take_out(data, (_RAW, _ENCODED))
    crop = crop_pb2.Crop.FromString(rest)
    if len(contents) != 1:
        raise wire.Unusual
    ((number, content),) = contents
    if number == _ENCODED:
        return EncodedCrop(crop.id, content)
    rest, pixels = wire.take_out(content, (_DATA,))
    raw = crop_pb2.RawImage.FromString(rest)
    return RawCrop(crop.id, raw.height, raw.width, raw.format, pixels[-1][1] if pixels else b"")


def request_of(message: pb.DetectRequest) -> Request:
    """The request that a message holds; what is large is taken out of the message."""
    request = Request(message, message.image, [_crop_of(crop) for crop in message.crops])
    message.ClearField("image")
    message.ClearField("crops")
    return request


def _crop_of(crop: crop_pb2.Crop) -> RawCrop | EncodedCrop:
    content = crop.WhichOneof("content")
    if content == "raw":
        return RawCrop(crop.id, crop.raw.height, crop.raw.width, crop.raw.format, crop.raw.data)
    return EncodedCrop(crop.id, crop.encoded if content == "encoded" else None)


def check_crops(request: Request, max_crops: int) -> None:
    """Check what concerns image and crops as a whole.

    Raises:
        InvalidOption: an image and crops, too many crops, or ids that are negative or not distinct.
        InvalidImage: neither an image nor crops. An image of no bytes looks like that as well.
    """
    crops = request.crops
    if not crops:
        if not request.image:
            raise InvalidImage("the request has neither an image nor crops, or the image is empty")
        return
    if request.image:
        raise _invalid("a request has either an image or crops")
    if len(crops) > max_crops:
        raise InvalidOption(
            f"crops: {len(crops)} in one request; at most {max_crops} are accepted",
            metadata={"option": "crops", "limit": "max_crops", "max": str(max_crops)},
        )
    ids = {crop.id for crop in crops}
    if min(ids) < 0:
        raise _invalid(f"id {min(ids)} is negative")
    if len(ids) < len(crops):
        raise _invalid("ids must be distinct")


def file_of(crop: EncodedCrop) -> bytes | memoryview:
    """The image file of a crop.

    Raises:
        InvalidImage: nothing is in it.
    """
    if crop.data is None:
        raise InvalidImage("the crop has neither raw pixels nor an encoded file")
    return crop.data


def pixels_of(crop: RawCrop, limits: ImageLimits) -> RawPixels:
    """Check a raw crop and find what its pixels are.

    Raises:
        InvalidImage: an unknown format, no pixels, or bytes that are not height x width x channels.
        ImageTooLarge: more pixels than allowed; `metadata` names the limit.
    """
    _, height, width, number, data = crop
    pixel_format = FORMATS.get(number)
    if pixel_format is None:
        raise InvalidImage(f"unknown pixel format {number}")
    if height < 1 or width < 1:
        raise InvalidImage(f"the crop has {height} x {width} pixels")
    if height * width > limits.max_pixels:
        raise ImageTooLarge(
            f"the crop has {height} x {width} pixels; at most {limits.max_pixels} are accepted",
            metadata={"limit": limits.keys[1], "max": str(limits.max_pixels)},
        )
    channels = channels_of(pixel_format)
    if len(data) != height * width * channels:
        raise InvalidImage(f"{len(data)} bytes are not {height} x {width} x {channels} pixels")
    return RawPixels(height, width, pixel_format)


def _invalid(message: str) -> InvalidOption:
    return InvalidOption(f"crops: {message}", metadata={"option": "crops"})
