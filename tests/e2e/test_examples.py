"""The examples run as their first lines say, and what they answer makes sense."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = [sys.executable, "-W", "error", "-m", "sluiceway.cli"]
# Coordinates of a child are computed from those of its crop, whose edges lie on whole pixels.
PIXEL = 1.0
TITLE = "Annual Report"
PARAGRAPH = (
    "Sales of garden tools rose in every region last year and the",
    "new shop in the harbour opened in the middle of summer. Most",
    "of our customers still come by bicycle, and many of them stay",
    "for the coffee that we began to serve behind the counter.",
)
TABLE = (("Product", "Sold", "Change"), ("Spades", "1200", "150"), ("Rakes", "830", "80"), ("Hammers", "960", "44"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The examples in a folder of their own, as somebody has them who copied them."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A page with a title, a paragraph and a table."""
    page = Image.new("RGB", (1000, 1000), "white")
    pen = ImageDraw.Draw(page)
    pen.text((500, 80), TITLE, "black", ImageFont.load_default(52), anchor="mt")
    font = ImageFont.load_default(26)
    for index, line in enumerate(PARAGRAPH):
        pen.text((100, 200 + 38 * index), line, "black", font)
    top, width, height = 480, 250, 56
    for index in range(len(TABLE) + 1):
        pen.line((100, top + index * height, 100 + 3 * width, top + index * height), "black", 2)
    for index in range(4):
        pen.line((100 + index * width, top, 100 + index * width, top + len(TABLE) * height), "black", 2)
    for row, texts in enumerate(TABLE):
        for column, text in enumerate(texts):
            pen.text((120 + column * width, top + 14 + row * height), text, "black", font)
    path = tmp_path / "report.png"
    page.save(path)
    return path


def run(name: str, source: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    """What `sluiceway run` prints for one image."""
    # Every example adds one stage, which is called like it. Whatever the machine: one worker for each stage.
    sections = ("DETECTION", "RECOGNITION", f"STAGES__{name.upper()}")
    settings = {f"SLUICEWAY_{section}__WORKERS": "1" for section in sections}
    command = [*COMMAND, "run", str(source), "--config", f"{name}.toml", "--json", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["status"] == "ok"
    lies_in_its_parent(answer)
    return answer


def lies_in_its_parent(answer: dict[str, Any]) -> None:
    """A parent comes before its children, and they lie in it: coordinates are those of the page, however deep."""
    boxes = {None: (0, 0, answer["width"], answer["height"])}
    for region in answer["regions"]:
        left, top, right, bottom = boxes[region["parent"]]
        x0, y0, x1, y1 = region["box"]
        assert left - PIXEL <= x0 < x1 <= right + PIXEL, region
        assert top - PIXEL <= y0 < y1 <= bottom + PIXEL, region
        boxes[region["id"]] = region["box"]


def of_step(answer: dict[str, Any], step: str) -> list[dict[str, Any]]:
    return [region for region in answer["regions"] if region["step"] == step]


def words_in(answer: dict[str, Any], parent: dict[str, Any]) -> set[str]:
    lines = [region["text"] for region in answer["regions"] if region["parent"] == parent["id"]]
    return {word for line in lines for word in line.split()}


def found(words: set[str], text: str) -> float:
    """The share of the words of a text that were found. A model may misread one, or see two in one."""
    wanted = set(text.split())
    return len(words & wanted) / len(wanted)


def test_layout(folder: Path, report: Path) -> None:
    answer = run("layout", report, folder)
    parts = of_step(answer, "parts")
    assert all(part["parent"] is None and part["text"] is None for part in parts)
    assert all(region["parent"] is not None for region in of_step(answer, "text"))
    by_class = {part["class"]: words_in(answer, part) for part in parts}
    assert found(by_class["Text"], " ".join(PARAGRAPH)) > 0.8
    assert found(by_class["Table"], " ".join(" ".join(row) for row in TABLE)) > 0.8
    assert any(found(words, TITLE) == 1 for name, words in by_class.items() if name in ("Title", "Section-header"))
    assert not by_class["Text"] & by_class["Table"], "each word is in one part"
    assert {model["name"] for model in answer["models"]} == {"doclaynet-v8n", "ppocrv6-tiny-det", "ppocrv6-tiny"}


def test_objects(folder: Path, samples: Path) -> None:
    answer = run("objects", samples / "bus.jpg", folder)
    things, lettering = of_step(answer, "objects"), of_step(answer, "text")
    (bus,) = [thing for thing in things if thing["class"] == "bus"]
    assert {thing["class"] for thing in things} >= {"bus", "person"}
    assert {region["parent"] for region in lettering} == {bus["id"]}
    assert {"cero", "emisiones"} <= words_in(answer, bus)
    assert {model["name"] for model in answer["models"]} == {"coco-v8n", "ppocrv6-tiny-det", "ppocrv6-tiny"}


def test_vehicles(folder: Path, samples: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", "colour_model.py"], cwd=folder, check=True, capture_output=True)
    answer = run("vehicles", samples / "bus.jpg", folder)
    # There are people in the photograph as well, which the pipeline does not ask for.
    (bus,) = answer["regions"]
    assert (bus["step"], bus["class"], bus["parent"]) == ("vehicles", "bus", None)
    assert bus["labels"][0]["class"] == "blue"
    assert bus["values"] == {"fee": {"price": 12, "colour": "blue"}}
    assert answer["values"] == {"bill": {"vehicles": 1, "total": 12}}
    answer = run("vehicles", samples / "bus.jpg", folder, "--param", "permit=A7")
    assert answer["values"] == {"bill": {"vehicles": 1, "total": 0}}


def test_a_detector_of_ones_own_as_a_third_stage(folder: Path, samples: Path) -> None:
    answer = run("ink", samples / "page.png", folder)
    lines, blobs = of_step(answer, "text"), of_step(answer, "ink")
    assert "markers" in " ".join(line["text"] for line in lines).split()
    assert {blob["class"] for blob in blobs} == {"blob"}
    with_ink = {blob["parent"] for blob in blobs}
    assert with_ink <= {line["id"] for line in lines}
    assert len(with_ink) > len(lines) * 0.9
