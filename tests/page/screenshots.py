"""Draw the pictures in README and docs: `make screenshots`. A cluster runs for as long as that takes."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from browser import PHONE, Browser, open_browser
from dashboard_picture import draw_dashboard
from explain_picture import draw_story
from PIL import Image
from ports import free_ports
from prometheus import Prometheus
from top_picture import draw_top

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = [sys.executable, "-m", "sluiceway.cli"]
MOST_BYTES = 200_000
SIZE = (1240, 760)
SECTIONS = ("DETECTION", "RECOGNITION", "ORCHESTRATOR")
# Colours that a picture keeps exactly, the most frequent ones.
EXACT = 64


class Addresses(NamedTuple):
    """Of a cluster.

    Attributes:
        page: of the HTTP port.
        grpc: of the orchestrator.
        operations: of all servers, by the name of the job that scrapes them.
    """

    page: str
    grpc: str
    operations: dict[str, list[str]]


@contextmanager
def cluster() -> Iterator[Addresses]:
    """Run a cluster with default models."""
    names = [f"{section}__{key}" for section in SECTIONS for key in ("PORT", "OPERATIONS_PORT")]
    names.append("ORCHESTRATOR__HTTP__PORT")
    ports = free_ports(len(names))
    variables = {f"SLUICEWAY_{name}": str(port) for name, port in zip(names, ports, strict=True)}
    process = subprocess.Popen(
        [*COMMAND, "up"], env=os.environ | variables, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("ready on"):
                break
        else:
            raise SystemExit("".join(said))
        port = dict(zip(names, ports, strict=True))
        yield Addresses(
            page=f"http://127.0.0.1:{port['ORCHESTRATOR__HTTP__PORT']}/",
            grpc=f"127.0.0.1:{port['ORCHESTRATOR__PORT']}",
            operations={
                f"sluiceway-{section.lower()}": [f"127.0.0.1:{port[f'{section}__OPERATIONS_PORT']}"]
                for section in SECTIONS
            },
        )
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def save(browser: Browser, name: str) -> None:
    """Take a picture of the window, in so few colours that it is small."""
    # Once what was asked for is drawn.
    browser.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(() => arguments[0]()))")
    picture = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB")
    file = DOCS / name
    in_few_colours(picture).save(file, optimize=True)
    assert file.stat().st_size < MOST_BYTES, f"{name} has {file.stat().st_size} bytes"
    print(f"{file}: {picture.width} x {picture.height}, {file.stat().st_size} bytes")


def in_few_colours(picture: Image.Image) -> Image.Image:
    """With a palette of 256: the colours of the page as they are, and what comes near to those of photographs."""
    colours = picture.getcolors(picture.width * picture.height) or []
    exact = [colour for _, colour in sorted(colours, reverse=True)[:EXACT]]
    near = picture.quantize(256 - len(exact), Image.Quantize.MEDIANCUT).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in exact for value in colour] + near[: 3 * (256 - len(exact))])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def choose_line(browser: Browser, word: str) -> None:
    """Choose a region by a word of its text."""
    browser.until(lambda: not browser.count("#viewer .pending"), "not read")
    browser.run(
        "const [found] = [...document.querySelectorAll('#panel-text [data-region]')]"
        ".filter((item) => item.textContent.includes(arguments[0])); found.click();",
        word,
    )


def draw(browser: Browser, address: str, samples: Path) -> None:
    """Take every picture."""
    browser.look(SIZE)
    # Twice: the first images after a start wait for what is made once.
    for _ in range(2):
        browser.driver.get(address)
        browser.until(lambda: browser.count("#pipeline option"), "not described")
        browser.drop([samples / name for name in ("page.png", "bus.jpg")])
        browser.until(lambda: browser.count("#sources li.done") == 2, "not read")
    choose_line(browser, "segmentation")
    save(browser, "page-desktop.png")
    browser.look(SIZE, dark=True)
    browser.click("#tab-steps")
    browser.click("#show-text")
    save(browser, "page-dark.png")
    browser.look(PHONE, scale=1.5)
    browser.click("#show-boxes")
    browser.click("#tab-text")
    browser.run("scrollTo(0, 0)")
    save(browser, "page-phone.png")
    browser.look(SIZE)
    browser.click("#tab-cluster")
    browser.until(lambda: browser.count(".state.up") == 2, "no stages")
    # The chart shows work as it goes on; a run of images makes some.
    browser.click("#tab-images")
    browser.drop([samples / "page.png"] * 60)
    browser.click("#tab-cluster")
    browser.until(lambda: browser.count("#sources li.done") == 62, "not read")
    save(browser, "page-cluster.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, cluster() as addresses:
        samples = Path(folder) / "samples"
        pull = [*COMMAND, "samples", "pull", "page.png", "bus.jpg", "--to", str(samples)]
        subprocess.run(pull, check=True, stdout=subprocess.DEVNULL)
        with open_browser(Path(folder) / "profile") as browser:
            draw(browser, addresses.page, samples)
        asyncio.run(draw_story(addresses.grpc, samples / "page.png", DOCS / "explain.svg"))
        with Prometheus(Path(folder), addresses.operations) as prometheus:
            begun_s = time.time()
            asyncio.run(draw_top(addresses.grpc, samples / "page.png", DOCS / "top.svg"))
            draw_dashboard(prometheus, begun_s, DOCS / "dashboard.png")
