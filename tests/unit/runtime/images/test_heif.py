"""HEIC, which an extra reads."""

import pytest
from heic_files import PLAIN, TRANSPARENT, TURNED
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage
from sluiceway_runtime.images import header
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits, check_image

LIMITS = ImageLimits()


def test_a_picture_and_its_turn() -> None:
    plain = decode_image(PLAIN, LIMITS)
    assert plain.shape == (48, 64, 3)
    assert (plain[15, 15, 2] > 180, plain[15, 15, 0] < 60, plain[40, 40].min() > 240) == (True, True, True)
    turned = decode_image(TURNED, LIMITS)
    assert turned.shape == (64, 48, 3)
    assert (turned[15, 32, 2] > 180, turned[15, 32, 0] < 60) == (True, True)


def test_what_is_transparent_stands_out() -> None:
    decoded = decode_image(TRANSPARENT, LIMITS)
    assert (decoded[15, 15].max() < 20, decoded[40, 40].min() > 235) == (True, True)


def test_without_the_extra_it_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "_reads_heif", lambda: False)
    with pytest.raises(InvalidImage, match=r"HEIC.*heic"):
        check_image(PLAIN, LIMITS)


def test_size_is_judged_before_decoding() -> None:
    with pytest.raises(ImageTooLarge, match="64 x 64"):
        decode_image(PLAIN, ImageLimits(max_pixels=4095))


def test_a_damaged_one_raises_nothing_but_our_errors() -> None:
    for at in range(0, len(PLAIN), 3):
        broken = bytearray(PLAIN)
        broken[at] ^= 0x55
        for data in (bytes(broken), PLAIN[:at]):
            try:
                decode_image(data, ImageLimits(max_pixels=10**6))
            except (InvalidImage, ImageTooLarge):
                continue
