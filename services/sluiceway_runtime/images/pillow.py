"""Reading with Pillow, from files of every mode that it knows to 8 bits of blue, green and red."""

from __future__ import annotations

import io
import logging
import warnings
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, ImageCms, ImageOps

from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.facts import ImageHeader
from sluiceway_runtime.images.ground import on_ground
from sluiceway_runtime.images.libtiff import no_errors

__all__ = ["COMES_UPRIGHT", "read_with_pillow"]

# Formats whose decoders turn pictures themselves.
COMES_UPRIGHT = frozenset({"tiff", "avif", "heif"})
# A worker has the threads that it was given.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# What is wrong with an image goes to whoever sent it; the log neither needs nor may have it.
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# Size is judged by `check_image`, by the limit of the configuration and before a file comes here.
Image.MAX_IMAGE_PIXELS = None

_TIFF_PHOTOMETRIC, _TIFF_BITS, _TIFF_SAMPLES, _MIN_IS_WHITE = 262, 258, 339, 0
_PNG_DEPTH_AT = 24
# Rows at a time, so that large pictures take no several times their size.
_ROWS = 256


def read_with_pillow(data: bytes | memoryview, header: ImageHeader) -> NDArray[np.uint8]:
    """Decode a file, whose header was judged.

    Args:
        data: the file.
        header: of it.

    Returns:
        uint8 [H, W, 3] BGR, contiguous; upright where `COMES_UPRIGHT` says so.

    Raises:
        InvalidImage: damaged, of a kind that is not known, or of another size than the header says, in which case
            nothing was decoded.
    """
    kind = header.format.upper()
    if kind == "HEIF":
        _register_heif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            with no_errors(), Image.open(io.BytesIO(data), formats=[kind]) as image:
                if header.format == "tiff":
                    image.seek(header.frame)
                _require_size(image, header)
                upright = ImageOps.exif_transpose(image) if kind == "AVIF" else image
                return _bgr(upright, bytes(data[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1]) if kind == "PNG" else b"")
    except InvalidImage:
        raise
    except Exception as error:  # Pillow's readers raise whatever their parsing runs into
        raise InvalidImage(f"the {kind} file is damaged or of an unsupported kind") from error


def _require_size(image: Image.Image, header: ImageHeader) -> None:
    # In either order: releases differ in when they turn.
    if sorted(image.size) == sorted((header.width_px, header.height_px)):
        return
    # A HEIC may be cut to a part of its size.
    if header.format != "heif" or image.width * image.height > header.width_px * header.height_px:
        raise InvalidImage("the image is not of the size that its header says")


def _bgr(image: Image.Image, png_depth: bytes) -> NDArray[np.uint8]:
    mode = image.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        return _grey_to_bgr(_levels(image), _deep_key(image))
    if mode in ("RGBA", "LA", "PA") or (mode == "P" and "transparency" in image.info):
        return on_ground(np.asarray(image.convert("RGBA")))
    if mode in ("RGBa", "La"):
        return on_ground(np.asarray(image.convert(mode.upper()).convert("RGBA")))
    if mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        assert converted is not None, "it is not converted in place"
        image = converted
    rgb = np.asarray(image.convert("RGB"))
    key = image.info.get("transparency")
    if key is None or not png_depth:
        return np.ascontiguousarray(rgb[:, :, ::-1])
    return on_ground(np.dstack((rgb, _opacity(rgb, key, png_depth[0]))))


def _opacity(rgb: NDArray[np.uint8], key: int | tuple[int, ...], depth: int) -> NDArray[np.uint8]:
    """Of a PNG in which one colour is transparent; `key` is that colour in the depth of the file."""
    levels = key if isinstance(key, tuple) else (key,) * 3
    shown = [level >> 8 if depth == 16 else level * 255 // ((1 << depth) - 1) for level in levels]
    return np.where((rgb == np.array(shown)).all(axis=2), 0, 255).astype(np.uint8)


def _deep_key(image: Image.Image) -> NDArray[np.uint8] | None:
    """Opacity of a grey PNG of 16 bits."""
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return None
    return np.where(np.asarray(image) == key, 0, 255).astype(np.uint8)


def _grey_to_bgr(grey: NDArray[np.uint8], opacity: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    if opacity is None:
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    return on_ground(np.dstack((grey, grey, grey, opacity)))


def _levels(image: Image.Image) -> NDArray[np.uint8]:
    """Levels of grey in 8 bits, of pictures that have more of them."""
    tags = getattr(image, "tag_v2", {})
    image.load()
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        bits = tags.get(_TIFF_BITS, (16,))
        levels = (values >> (max(bits) - 8 if 8 < max(bits) <= 16 else 8)).astype(np.uint8)
    else:
        unsigned = image.mode == "I" and tags.get(_TIFF_SAMPLES, (1,))[0] == 1
        levels = _scaled(values.view(np.uint32) if unsigned else values)
    # Pillow turns the levels of 8 bits and less by itself.
    return 255 - levels if tags.get(_TIFF_PHOTOMETRIC) == _MIN_IS_WHITE else levels


def _scaled(values: NDArray[np.float32] | NDArray[np.int32] | NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Numbers without a known range: up to one that is usual if none is beyond, else from the least to the largest."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        low = float(values.min(initial=np.inf, where=finite))
        high = float(values.max(initial=-np.inf, where=finite))
    else:
        low, high = float(values.min()), float(values.max())
    if not low <= high:  # no number at all
        return np.zeros(values.shape, np.uint8)
    usual = (1, 255, 65535) if values.dtype.kind == "f" else (1, 255)
    full = next((full for full in usual if low >= 0 and high <= full), None)
    start, width = (0.0, float(full)) if full else (low, (high - low) or 1.0)
    out = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):
        part = (values[top : top + _ROWS].astype(np.float64) - start) * (255 / width)
        out[top : top + _ROWS] = np.rint(np.nan_to_num(part, nan=0, posinf=255, neginf=0).clip(0, 255))
    return out


@cache
def _register_heif() -> None:
    import pi_heif  # noqa: PLC0415 - an extra

    pi_heif.options.DECODE_THREADS = 1
    pi_heif.options.THUMBNAILS = False
    pi_heif.register_heif_opener()
