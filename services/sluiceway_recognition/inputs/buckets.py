"""Which size a crop is brought to and which width it is padded to: functions of the crop and its model alone.

A padded column changes what a network with global pooling computes, so if the padding depended on the batch, a string
would depend on what happened to be read beside it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from sluiceway_recognition.types import CropSpec, ResizeRule

__all__ = [
    "DEFAULT_BATCHES",
    "DEFAULT_BUCKETS",
    "DEFAULT_COMPILED",
    "DEFAULT_MAX_WIDTH",
    "bucket_of",
    "fitted_size",
    "padded_px",
    "turns",
]

# Each at most a quarter wider than the one before where lines are, so that a ninth of what is computed for them is
# padding; with three of 720, 1120 and 1920 it was a quarter. Each bucket costs a compiled shape in every worker.
DEFAULT_BUCKETS = (64, 96, 128, 160, 192, 256, 320, 400, 512, 640, 800, 1024, 1280, 1600, 1920)
# 40 times the height: a line of about 80 characters.
DEFAULT_MAX_WIDTH = 1920
# On a GPU each batch size has a graph for each width, and each graph costs a start most of a second. On an H200 a batch
# of 8 takes a tenth of a millisecond more than a single crop of PP-OCRv6 tiny, and what is between 8 and 128 is made up
# of both nearly as fast as by a size of its own.
DEFAULT_BATCHES = (8, 128)
# All full batches of words, and a small one of the widest of them. Each takes 15 to 25 s on four cores, once.
DEFAULT_COMPILED = 8


def fitted_size(height: int, width: int, spec: CropSpec) -> tuple[int, int]:
    """The size that a region of any size has as a crop, once it is turned; see `turns`.

    Args:
        height: of the region, pixels, at least 1.
        width: of the region, pixels, at least 1.
        spec: what the model wants.

    Returns:
        Height and width in pixels. A region that already fits stays as it is.
    """
    if spec.resize_rule is not ResizeRule.FIT_HEIGHT:
        return spec.height, spec.max_width
    fitted_width = width if height == spec.height else round(width * spec.height / height)
    return spec.height, min(max(fitted_width, 1), spec.max_width)


def turns(height: int, width: int, spec: CropSpec) -> bool:
    """Whether what was cut out of an image in this size is turned before it is resized.

    What has the spec's height was cut to it, and turned then if need be.
    """
    return height != spec.height and 0 < spec.turn_ratio <= height / width


def bucket_of(width: int, buckets: Sequence[int]) -> int:
    """The least bucket that holds a width.

    Args:
        width: of a crop that fits its spec, pixels.
        buckets: widths in pixels, ascending; empty for no buckets.

    Returns:
        The width to pad to; 0 without buckets. Of a line that is read in pieces the last bucket.
    """
    if not buckets:
        return 0
    return buckets[min(bisect_left(buckets, width), len(buckets) - 1)]


def padded_px(width: int, spec: CropSpec, buckets: Sequence[int]) -> int:
    """Pixels that the model computes for a crop, padding included: what it costs in a batch."""
    return spec.height * max(bucket_of(width, buckets), width)
