"""Sizes and buckets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sluiceway_recognition.inputs.buckets import DEFAULT_BUCKETS, DEFAULT_MAX_WIDTH, bucket_of, fitted_size, padded_px
from sluiceway_recognition.types import CropSpec, ResizeRule

LINE = CropSpec(48, DEFAULT_MAX_WIDTH)


def test_a_crop_that_fits_is_left_as_it_is() -> None:
    assert fitted_size(48, 301, LINE) == (48, 301)


def test_other_heights_keep_their_aspect_ratio() -> None:
    assert fitted_size(24, 100, LINE) == (48, 200)
    assert fitted_size(96, 100, LINE) == (48, 50)
    assert fitted_size(1, 1, LINE) == (48, 48)


def test_what_is_too_wide_is_squeezed_and_what_is_too_narrow_keeps_a_column() -> None:
    assert fitted_size(48, 16384, LINE) == (48, 1920)
    assert fitted_size(4096, 1, LINE) == (48, 1)


def test_stretch_ignores_the_aspect_ratio() -> None:
    assert fitted_size(10, 500, CropSpec(32, 64, resize_rule=ResizeRule.STRETCH)) == (32, 64)


def test_the_bucket_is_the_least_that_holds_the_crop() -> None:
    assert [bucket_of(width, (64, 96)) for width in (1, 64, 65, 96)] == [64, 64, 96, 96]
    assert bucket_of(70, ()) == 0
    # In pieces.
    assert bucket_of(200, (64, 96)) == 96
    assert padded_px(200, LINE, (64, 96)) == 48 * 200


@given(st.integers(1, 4096), st.integers(1, 16384))
def test_every_crop_has_a_bucket_that_holds_it(height: int, width: int) -> None:
    fitted_height, fitted_width = fitted_size(height, width, LINE)
    bucket = bucket_of(fitted_width, DEFAULT_BUCKETS)
    assert fitted_height == 48
    assert 1 <= fitted_width <= bucket <= DEFAULT_MAX_WIDTH
    assert padded_px(fitted_width, LINE, DEFAULT_BUCKETS) == 48 * bucket
    assert padded_px(fitted_width, LINE, ()) == 48 * fitted_width
