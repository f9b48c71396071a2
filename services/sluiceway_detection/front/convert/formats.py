"""Pixel formats, in the contract's numbers and in ours."""

from __future__ import annotations

from collections.abc import Mapping

from sluiceway.common.v1 import crop_pb2
from sluiceway_detection.crops import PixelFormat

__all__ = ["FORMATS", "NUMBERS"]

FORMATS: Mapping[int, PixelFormat] = {
    crop_pb2.PIXEL_FORMAT_UNSPECIFIED: "bgr",
    crop_pb2.PIXEL_FORMAT_BGR: "bgr",
    crop_pb2.PIXEL_FORMAT_RGB: "rgb",
    crop_pb2.PIXEL_FORMAT_GRAY: "gray",
}
NUMBERS: Mapping[PixelFormat, crop_pb2.PixelFormat.ValueType] = {
    "bgr": crop_pb2.PIXEL_FORMAT_BGR,
    "rgb": crop_pb2.PIXEL_FORMAT_RGB,
    "gray": crop_pb2.PIXEL_FORMAT_GRAY,
}
