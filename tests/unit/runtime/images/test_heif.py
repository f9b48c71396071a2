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


def with_kind(kind: bytes, rest: bytes) -> bytes:
    """The picture, with another item in place of its second one, whose place in the file is then not sound."""
    meta, items = PLAIN.index(b"meta") - 4, PLAIN.index(b"iinf") - 4
    former = PLAIN.rindex(b"infe", 0, PLAIN.index(b"pitm")) - 4
    size = int.from_bytes(PLAIN[former : former + 4], "big")
    head = PLAIN[former + 4 : former + 16]
    item = (20 + len(rest)).to_bytes(4, "big") + head + kind + rest
    made = bytearray(PLAIN[:former] + item + PLAIN[former + size :])
    for box in (meta, items):
        made[box : box + 4] = (int.from_bytes(made[box : box + 4], "big") + len(item) - size).to_bytes(4, "big")
    return bytes(made)


@pytest.mark.parametrize(
    ("kind", "rest", "sound"),
    [
        (b"Exif", b"\0", True),
        (b"\xc5xif", b"\0", False),
        (b"mime", b"\xe9\0text/plain\0", True),
        (b"mime", b"\0text/\xe9\0", False),
    ],
)
def test_items_whose_kind_is_no_text_are_refused_before_the_decoder_sees_them(
    kind: bytes, rest: bytes, *, sound: bool
) -> None:
    data = with_kind(kind, rest)
    if sound:
        assert check_image(data, LIMITS).format == "heif"
    else:
        with pytest.raises(InvalidImage, match="no text"):
            check_image(data, LIMITS)
