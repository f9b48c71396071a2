"""Images shown in parts: who decides what, and that a map which is joined is the map of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluiceway_detection.db import joined_map
from sluiceway_detection.inputs.parts import CONTEXT_PX, Parts, content_at
from sluiceway_detection.inputs.shapes import Inputs

ANY_SHAPE = Inputs(((320, 320),), enlarges=False, any_shape=True)
LISTED = Inputs(((320, 320), (256, 320), (320, 256)), enlarges=False)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def blue(inputs_bgr: list[np.ndarray]) -> list[np.ndarray]:
    """What a network gives whose map is the blue of each pixel."""
    return [image[None, ..., 0].astype(np.float32) / 255 for image in inputs_bgr]


@given(
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    inputs=st.sampled_from([ANY_SHAPE, LISTED]),
    seed=st.integers(0, 9),
)
def test_parts_are_the_whole(height: int, width: int, inputs: Inputs, seed: int) -> None:
    image = noise(height, width, seed)
    parts = Parts(image, (height, width), inputs)
    shown = parts.draw()
    assert len({part.shape for part in shown}) == 1
    if not inputs.any_shape:
        assert shown[0].shape == (320, 320, 3)
    assert max(shown[0].shape) <= 320
    (joined,) = joined_map(parts, blue(shown))
    np.testing.assert_array_equal(joined, image[..., 0])


@given(st.data())
def test_an_area_alone_is_decided_and_the_rest_is_as_it_was(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(40, 800)), data.draw(st.integers(40, 800))
    left, top = data.draw(st.integers(0, width - 2)), data.draw(st.integers(0, height - 2))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    image = noise(height, width)
    base = np.full((height // 4 + 1, width // 4 + 1), 0.2, np.float32)
    parts = Parts(image, (height, width), ANY_SHAPE, area=(left, top, right, bottom))
    (joined,) = joined_map(parts, blue(parts.draw()), base)
    expected = np.full((height, width), 51, np.uint8)
    expected[top:bottom, left:right] = image[top:bottom, left:right, 0]
    np.testing.assert_array_equal(joined, expected)


@pytest.mark.parametrize("inputs", [ANY_SHAPE, LISTED])
def test_what_a_part_decides_is_seen_with_what_surrounds_it(inputs: Inputs) -> None:
    """A part that knows how far each of its pixels is from its own edge: none nearer than the context decides."""
    height, width = 900, 700
    parts = Parts(noise(height, width), (height, width), inputs)

    def depths(part: np.ndarray) -> np.ndarray:
        across, down = np.arange(part.shape[1]), np.arange(part.shape[0])
        across, down = np.minimum(across, across[::-1]), np.minimum(down, down[::-1])
        return np.minimum(across[None], down[:, None])[None].astype(np.float32) / 255

    (joined,) = joined_map(parts, [depths(part) for part in parts.draw()])
    inner = joined[CONTEXT_PX:-CONTEXT_PX, CONTEXT_PX:-CONTEXT_PX]
    assert inner.min() >= CONTEXT_PX - 1


def test_what_is_no_number_is_no_text() -> None:
    parts = Parts(noise(40, 50), (40, 50), ANY_SHAPE)
    (part,) = parts.draw()
    output = np.full((1, *part.shape[:2]), np.nan, np.float32)
    output[0, 10, 10] = 1
    (joined,) = joined_map(parts, [output])
    assert joined[10, 10] == 255
    assert np.count_nonzero(joined) == 1


def test_a_scale_is_bounded_by_pixels() -> None:
    assert content_at((300, 400), 0.5, 10**6) == (150, 200)
    height, width = content_at((30_000, 40_000), 1.0, 10**6)
    assert height * width == pytest.approx(10**6, rel=0.01)
    assert height / width == pytest.approx(0.75, rel=0.01)
    assert content_at((1, 40_000), 0.01, 10**6) == (1, 400)
