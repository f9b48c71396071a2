"""By which of its first bytes a file is known."""

from __future__ import annotations

from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.facts import Format

__all__ = ["ACCEPTED", "LONGEST", "format_of", "unknown_file"]

ACCEPTED = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or JPEG 2000"

# So many bytes tell.
LONGEST = 32

_STARTS: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),  # BigTIFF
    (b"MM\0+", "tiff"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),  # a code stream without a file around it
)
# Brands of ISO/IEC 23008-12 and of AVIF; the first is the file's own, others say what it may be read as.
_AVIF = frozenset({b"avif", b"avis"})
_HEIF = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
# What people send and is not read, so that the error says what it is.
_FOREIGN = (
    (b"%PDF-", "a PDF document"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"8BPS", "a Photoshop file"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"AT&TFORM", "a DjVu document"),
)


def format_of(start: bytes) -> Format | None:
    """The format of a file.

    Args:
        start: the first `LONGEST` bytes, or all that there are.
    """
    for signature, kind in _STARTS:
        if start.startswith(signature):
            return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    if start[4:8] == b"ftyp":
        brands = {start[8:12], *(start[at : at + 4] for at in range(16, len(start) - 3, 4))}
        if brands & _AVIF:
            return "avif"
        if brands & _HEIF:
            return "heif"
    return None


def unknown_file(start: bytes) -> InvalidImage:
    """The error for a file of no format that is read here."""
    if not start:
        return InvalidImage("the image is empty (0 bytes)")
    found = next((name for signature, name in _FOREIGN if start.startswith(signature)), None)
    return InvalidImage(f"not a {ACCEPTED} file" + (f", but {found}" if found else ""))
