"""Transparent pictures: what is drawn on them must stand out, in whatever way transparency is said."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.ground import on_ground
from sluiceway_runtime.images.limits import ImageLimits

from sluiceway.client.sources import load_source

LIMITS = ImageLimits()
BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (220, 0, 0)
BACK, INK = (2, 2), (20, 20)  # places, as row and column


def drawn(colour: tuple[int, int, int], hidden: tuple[int, int, int] | None = None) -> Image.Image:
    """A square of one colour; all around it is transparent, and of the same colour unless another is hidden there."""
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[:, :, :3] = colour if hidden is None else hidden
    pixels[12:28, 12:28] = (*colour, 255)
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, colour_type: int, *, depth: int = 16, key: bytes = b"") -> bytes:
    """A PNG of [H, W, channels] in any depth."""
    height, width = samples.shape[:2]
    if depth < 8:
        bits = (samples[:, :, 0, None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1), axis=1)
    else:
        rows = samples.astype(">u2" if depth == 16 else "u1").reshape(height, -1).view(np.uint8)
    data = zlib.compress(np.hstack((np.zeros((height, 1), np.uint8), rows)).tobytes())
    size = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    transparent = chunk(b"tRNS", key) if key else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + transparent + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def grey_of(decoded: np.ndarray, place: tuple[int, int]) -> int:
    return int(decoded[place].astype(int).mean())


@pytest.mark.parametrize("colour", [BLACK, WHITE, RED])
@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGBA", "png", {}),
        ("LA", "png", {}),
        ("RGBA", "webp", {"lossless": True, "exact": True}),
        ("RGBA", "webp", {"quality": 90}),
        ("RGBA", "tiff", {}),
        ("LA", "tiff", {"compression": "tiff_lzw"}),
        ("RGBA", "avif", {}),
        ("RGBA", "jpeg2000", {}),
        ("RGBA", "gif", {}),
    ],
)  # fmt: skip
def test_what_is_drawn_stands_out(colour: tuple[int, int, int], mode: str, kind: str, options: dict[str, Any]) -> None:
    decoded = decode_image(encode(drawn(colour).convert(mode), kind, **options), LIMITS)
    assert abs(grey_of(decoded, INK) - grey_of(decoded, BACK)) > 120
    assert (decoded[BACK] == (BLACK if colour == WHITE else WHITE)).all()


@pytest.mark.parametrize("level", [0, 65535])
@pytest.mark.parametrize("channels", [2, 4])
def test_sixteen_bits_and_alpha(level: int, channels: int) -> None:
    samples = np.zeros((40, 40, channels), np.uint16)
    samples[:, :, :-1] = level
    samples[12:28, 12:28, -1] = 65535
    decoded = decode_image(png(samples, 4 if channels == 2 else 6), LIMITS)
    assert abs(grey_of(decoded, INK) - grey_of(decoded, BACK)) == 255


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_level_of_grey(depth: int) -> None:
    most = (1 << depth) - 1
    for ink in (0, most):
        samples = np.full((40, 40, 1), most - ink, np.uint16)
        samples[12:28, 12:28] = ink
        # What is not ink is transparent, so the ground takes its place: the same level, by contrast.
        key = struct.pack(">H", most - ink)
        decoded = decode_image(png(samples, 0, depth=depth, key=key), LIMITS)
        assert grey_of(decoded, INK) == (255 if ink else 0)
        assert grey_of(decoded, BACK) == (0 if ink else 255)
        # And if what is transparent has nearly the level of the ink, it is replaced by the other.
        if depth > 1:
            samples[samples == most - ink] = abs(ink - 1)
            decoded = decode_image(png(samples, 0, depth=depth, key=struct.pack(">H", abs(ink - 1))), LIMITS)
            assert grey_of(decoded, INK) == (255 if ink else 0)
            assert grey_of(decoded, BACK) == (0 if ink else 255)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour(depth: int) -> None:
    most = (1 << depth) - 1
    samples = np.full((40, 40, 3), (most // 4, 0, most // 4), np.uint16)
    samples[12:28, 12:28] = (most // 4, most // 8, most // 4)
    decoded = decode_image(png(samples, 2, depth=depth, key=struct.pack(">3H", most // 4, 0, most // 4)), LIMITS)
    assert decoded[BACK].tolist() == [255, 255, 255]
    assert decoded[INK].tolist() == [63, 31, 63]


def test_palettes_with_degrees_of_transparency() -> None:
    image = drawn(BLACK).convert("RGB").quantize(4)
    for degrees in (b"\0", b"\0\x80\xff"):
        decoded = decode_image(encode(image, "png", transparency=degrees), LIMITS)
        assert decoded.shape == (40, 40, 3)
    image = Image.new("P", (40, 40), 1)
    image.putpalette([250, 250, 250, 240, 240, 240])
    image.paste(0, (12, 12, 28, 28))
    decoded = decode_image(encode(image, "png", transparency=b"\xff\0"), LIMITS)
    assert (grey_of(decoded, INK), grey_of(decoded, BACK)) == (250, 0)


def test_multiplied_alpha_of_a_tiff() -> None:
    data = bytearray(encode(drawn(WHITE), "tiff"))
    image = Image.open(io.BytesIO(bytes(data)))
    assert image.tag_v2[338] == (2,)
    # The value of an entry stands in it: of ExtraSamples, 2 says not multiplied, 1 multiplied.
    at = data.index(struct.pack("<HHI", 338, 3, 1)) + 8
    data[at : at + 2] = struct.pack("<H", 1)
    decoded = decode_image(bytes(data), LIMITS)
    assert (grey_of(decoded, INK), grey_of(decoded, BACK)) == (255, 0)


def test_a_bmp_with_a_mask_of_alpha() -> None:
    pixels = np.asarray(drawn(BLACK))[::-1, :, [2, 1, 0, 3]]
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 40, 40, 1, 32, 3, pixels.size, 0, 0, 0, 0) + masks + bytes(52)
    file = b"BM" + struct.pack("<IHHI", 14 + len(header) + pixels.size, 0, 0, 14 + len(header)) + header
    decoded = decode_image(file + pixels.tobytes(), LIMITS)
    assert (grey_of(decoded, INK), grey_of(decoded, BACK)) == (0, 255)


def test_both_black_and_white_stand_out_from_grey() -> None:
    image = drawn(BLACK)
    image.paste(Image.new("RGBA", (8, 16), (*WHITE, 255)), (12, 12))
    decoded = decode_image(encode(image, "png"), LIMITS)
    assert {grey_of(decoded, (20, 14)), grey_of(decoded, (20, 26))} == {0, 255}
    assert grey_of(decoded, BACK) == 128


def test_edges_are_blended() -> None:
    image = drawn(BLACK)
    image.putpixel((12, 12), (0, 0, 0, 51))
    assert decode_image(encode(image, "png"), LIMITS)[12, 12].tolist() == [204, 204, 204]


def test_an_alpha_channel_that_says_nothing_changes_nothing() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for alpha in (0, 255):
        rgba = np.dstack((colours, np.full((40, 40), alpha, np.uint8)))
        assert (decode_image(encode(Image.fromarray(rgba), "png"), LIMITS)[:, :, ::-1] == colours).all()


def test_rows_beyond_a_slab_are_blended_alike() -> None:
    rgba = np.zeros((700, 3, 4), np.uint8)
    rgba[::2, :, 3] = 255
    laid = on_ground(rgba)
    assert (laid[::2] == 0).all()
    assert (laid[1::2] == 255).all()


@pytest.mark.parametrize("colour", [BLACK, WHITE])
def test_clients_send_transparency_along(colour: tuple[int, int, int]) -> None:
    image = drawn(colour)
    rgba = np.asarray(image)
    palette = image.convert("RGB").quantize(4)
    palette.info["transparency"] = palette.getpixel((0, 0)) if colour == WHITE else bytes(4)
    for source in (image, image.convert("LA"), image.convert("RGBa"), rgba):
        loaded = load_source(source, channels="rgb")
        assert loaded.image is not None
        decoded = decode_image(loaded.image, LIMITS)
        assert abs(grey_of(decoded, INK) - grey_of(decoded, BACK)) == 255, source
    for array in (rgba[:, :, [2, 1, 0, 3]],):
        loaded = load_source(np.ascontiguousarray(array))
        assert loaded.image is not None
        decoded = decode_image(loaded.image, LIMITS)
        assert abs(grey_of(decoded, INK) - grey_of(decoded, BACK)) == 255


def test_clients_send_the_order_of_channels_with_transparency() -> None:
    blue = np.zeros((8, 8, 4), np.uint8)
    blue[2:6, 2:6] = (200, 0, 0, 255)
    loaded = load_source(blue, channels="bgr")
    assert loaded.image is not None
    assert decode_image(loaded.image, LIMITS)[4, 4].tolist() == [200, 0, 0]


def test_clients_send_opaque_pictures_as_fast_as_before() -> None:
    opaque = drawn(BLACK)
    opaque.putalpha(255)
    loaded = load_source(opaque)
    assert loaded.image is not None
    assert loaded.image.startswith(b"BM")
