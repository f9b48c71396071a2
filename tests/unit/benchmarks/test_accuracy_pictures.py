"""The drawn pictures of `make accuracy`: the same each time, and with enough words; the labels of the real ones."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.drawing.catalogue import CLASSES, draw
from benchmarks.accuracy.drawing.fonts import Fonts
from benchmarks.accuracy.picture import Picture, Stored
from benchmarks.accuracy.sources import SOURCES, labelled, real_pictures
from benchmarks.accuracy.words import words_of

# Pillow's own font: it draws other letters than those that are fetched, in the same places as far as matters here.
FONTS = Fonts({})
SMALL = (
    "receipts",
    "signs",
    "shelf-labels",
    "thumbnails",
    "strips",
    "screens-light",
    "upside-down-lines",
    "vertical-words",
    "faint",
)


def words(picture: Picture) -> list[str]:
    return [word for line in picture.lines for part in line for word in words_of(part.text)]


@pytest.mark.parametrize("name", SMALL)
def test_a_picture_is_a_function_of_its_class_and_number(name: str) -> None:
    first, other, again = draw(name, 0, FONTS), draw(name, 1, FONTS), draw(name, 0, FONTS)
    assert np.array_equal(first.pixels, again.pixels)
    assert first.lines == again.lines
    assert first.lines != other.lines


# The others are pages as well, with as many words, and take a second each.
COUNTED = [name for name, kind in CLASSES.items() if kind.group not in {"pages", "turned"} and name != "scan-600dpi"]


@pytest.mark.parametrize("name", [*COUNTED, "page-12pt-2col"])
def test_a_class_has_300_words(name: str) -> None:
    # One of each is drawn, and counts for all: drawing hundreds would take a minute.
    picture = draw(name, 0, FONTS)
    assert len(words(picture)) * CLASSES[name].pictures * 1.15 >= 300
    assert picture.pixels.ndim == 3
    assert picture.pixels.dtype == np.uint8


@pytest.mark.parametrize("name", ["screens-dark", "page-12pt-2col", "invoices"])
def test_boxes_are_where_the_ink_is(name: str) -> None:
    picture = draw(name, 0, FONTS)
    assert picture.upright
    for line in picture.lines[::7]:
        for word in line:
            left, top, right, bottom = (round(side) for side in word.box)
            inside = picture.pixels[top:bottom, left:right].astype(int)
            assert inside.max() - inside.min() > 60, word


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    picture = draw("screens-light", 0, FONTS)
    picture.save(tmp_path / "deep" / "000")
    stored = Stored.load(tmp_path / "deep" / "000.png")
    assert [word for line in stored.lines for word in words_of(line)] == words(picture)
    assert [len(line) for line in stored.boxes] == [len(line) for line in picture.lines]


def test_every_real_picture_is_labelled_once_and_can_be_had() -> None:
    packages = tomllib.loads(SOURCES.read_text(encoding="utf-8"))["packages"]
    pictures = labelled()
    with_words = [item for item in pictures if words_of(" ".join(item.lines))]
    assert len(with_words) >= 40
    assert len({item.sha256 for item in pictures}) == len(pictures)
    for item in pictures:
        assert item.package in packages
        assert re.fullmatch("[0-9a-f]{64}", item.sha256)
    for table in packages.values():
        assert table["kind"] in {"wheel", "sdist", "deb"}
        assert table["licence"]


def test_a_file_that_is_not_the_labelled_one_is_refused(tmp_path: Path) -> None:
    item = labelled()[0]
    version = tomllib.loads(SOURCES.read_text(encoding="utf-8"))["packages"][item.package]["version"]
    path = tmp_path / "packages" / f"{item.package}-{version}" / item.member
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another picture")
    with pytest.raises(SystemExit, match=re.escape(f"{item.member} should have the SHA-256 {item.sha256}")):
        real_pictures(tmp_path)
