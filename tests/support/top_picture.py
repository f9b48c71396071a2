"""A picture of `sluiceway top` beside a cluster that has enough to do."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from sluiceway import AsyncClient
from sluiceway.errors import SluicewayError
from sluiceway.top.app import TopApp

__all__ = ["draw_top", "without_outside_fonts"]

SIZE = (138, 15)
CALLERS = 10
# Long enough for the lines of what was to have a shape.
SECONDS = 50


async def draw_top(address: str, image: Path, file: Path) -> None:
    """Put a load on a cluster, and draw what is said of it.

    Args:
        address: of the orchestrator.
        image: that is sent.
        file: to draw to, as SVG.
    """
    done = asyncio.Event()
    async with AsyncClient(address) as client:
        callers = [asyncio.create_task(_call(client, image, done, number)) for number in range(CALLERS)]
        try:
            app = TopApp(client)
            async with app.run_test(size=SIZE) as pilot:
                await pilot.pause(SECONDS)
                assert "busy" in app.export_screenshot(), "nothing limits"
                file.write_text(without_outside_fonts(app.export_screenshot(title="sluiceway top")), "utf-8")
        finally:
            done.set()
            await asyncio.gather(*callers)
    print(f"{file}: {file.stat().st_size} bytes")


async def _call(client: AsyncClient, image: Path, done: asyncio.Event, number: int) -> None:
    """Come again and again, the later ones later: the load grows."""
    await asyncio.sleep(number * SECONDS / CALLERS)
    while not done.is_set():
        try:
            await client.process(image)
        except SluicewayError as error:
            print(error)


def without_outside_fonts(svg: str) -> str:
    """What a browser would fetch from elsewhere; any font will do whose letters are equally wide."""
    plain = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return plain.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")
