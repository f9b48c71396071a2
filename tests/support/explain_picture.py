"""A picture of `sluiceway explain`: the story of one request among others."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

from rich.console import Console
from top_picture import without_outside_fonts

from sluiceway import AsyncClient
from sluiceway.cli.waterfall import print_story

__all__ = ["draw_story"]

WIDTH = 110
# Beside the one whose story is told, so that there is something to wait for.
OTHERS = 5


async def draw_story(address: str, image: Path, file: Path) -> None:
    """Send some images at once, and draw what is told of one.

    Args:
        address: of the orchestrator.
        image: that is sent.
        file: to draw to, as SVG.
    """
    async with AsyncClient(address) as client:
        results = await asyncio.gather(*(client.process(image) for _ in range(OTHERS + 1)))
        story = await client.explain(results[-1].request_id)
    assert story.found, "it is not remembered"
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    print_story(console, story)
    file.write_text(without_outside_fonts(console.export_svg(title="sluiceway explain")), "utf-8")
    print(f"{file}: {file.stat().st_size} bytes")
