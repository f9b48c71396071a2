"""What notebooks show of a result."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from sluiceway.client.regions import Region

__all__ = ["as_html"]

# More rows than anybody reads; the rest is counted.
MAX_ROWS = 100
# Of an image, above which a notebook would be heavy for keeping it.
MAX_IMAGE_BYTES = 4 * 2**20
_SIGNATURES = {b"\xff\xd8": "image/jpeg", b"\x89PNG": "image/png", b"GIF8": "image/gif", b"RIFF": "image/webp"}


def as_html(heading: str, regions: Sequence[Region], image: bytes | None) -> str:
    """Write a result as a heading and a table. Nothing in it is loaded from elsewhere, and no text of it is markup."""
    parts = [f"<b>{html.escape(heading)}</b>"]
    kind = next((kind for start, kind in _SIGNATURES.items() if (image or b"").startswith(start)), None)
    if image and kind and len(image) <= MAX_IMAGE_BYTES:
        data = base64.b64encode(image).decode()
        parts.append(f'<img alt="" style="max-width: 100%; max-height: 30em" src="data:{kind};base64,{data}">')
    if regions:
        parts.append(_table(regions[:MAX_ROWS]))
    if len(regions) > MAX_ROWS:
        parts.append(f"and {len(regions) - MAX_ROWS} more")
    return "".join(f"<div>{part}</div>" for part in parts)


def _table(regions: Iterable[Region]) -> str:
    rows = "".join(map(_row, regions))
    return f"<table><tr><th>text</th><th>confidence</th><th>class</th><th>box</th></tr>{rows}</table>"


def _row(region: Region) -> str:
    confidence = region.confidence if region.text_confidence is None else region.text_confidence
    cells = (region.text or "", f"{confidence:.2f}", region.class_name, str(region.box))
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
