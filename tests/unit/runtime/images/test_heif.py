"""HEIC, which an extra reads. Nothing here can write it, so the pictures are in this file."""

import base64

import pytest
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage
from sluiceway_runtime.images import header
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits, check_image

LIMITS = ImageLimits()
# White, 64 x 48, with a red rectangle from (8, 8) to (31, 23); the coded picture has 64 rows. The second one says that
# it has to be turned clockwise. The third is black where it is not transparent.
PLAIN = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAA"
    "AAAERAAAEAAQAAAAABoQABAAAAAAAAAEsAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAA"
    "AADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkA"
    "AAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAA"
    "AAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAF"
    "NtZGF0AAAARygBrwT4QZ4xFp1pQCTF/fxp/9B+/6ah8+6i/sVqMIyObmLQdaTj/nHFBG2H33/5U+X3r34ULfj2fwLfim+QD+4Z3mb63Blw"
)
TURNED = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAA"
    "AAAERAAAIAAQAAAAAB7AABAAAAAAAAAEsAAgAAAAACNwABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVp"
    "bmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGE"
    "ABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkA"
    "AAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEH"
    "BpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAHdtZGF0AAAA"
    "RygBrwT4QZ4xFp1pQCTF/fxp/9B+/6ah8+6i/sVqMIyObmLQdaTj/nHFBG2H33/5U+X3r34ULfj2fwLfim+QD+4Z3mb63BlwAAAABkV4aWYAAE"
    "1NACoAAAAIAAEBEgADAAAAAQAGAAAAAAAA"
)
TRANSPARENT = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAmttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAA"
    "AAAERAAAIAAQAAAAACjwABAAAAAAAAABcAAgAAAAACpgABAAAAAAAAAD4AAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVp"
    "bmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAABAAABqmlwcnAAAAGCaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGE"
    "ABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkA"
    "AAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEH"
    "BpeGkAAAAAAwgICAAAAHBodmNDAQQIAAAAn/gAAAAAHvAA/Pz4+AAADwNgAAEAF0ABDAH//wQIAAADAJ/4AAADAAAeugJAYQABACVCAQEECAAA"
    "AwCf+AAAAwAAHsCCBBZbq5Ka5sCAAAAMgAAAAwCEYgABAAZEAcFzwIkAAAAOcGl4aQAAAAABCAAAACdhdXhDAAAAAHVybjptcGVnOmhldmM6Mj"
    "AxNTphdXhpZDoxAAAAACBpcG1hAAAAAAAAAAIAAQWBAgMFhAACBYYDB4iEAAAAGmlyZWYAAAAAAAAADmF1eGwAAgABAAEAAABdbWRhdAAAABMo"
    "Aa8E+HJdmSzf/fQCQRtbh+34AAAAOigBrgnwZ3yvb+nbilq9F5eP3bN9Hr4iVzh9/0u/d3Xsf00rdPLgmUscXlAI+5d+HMOKw/o5s3N4w8A="
)


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
