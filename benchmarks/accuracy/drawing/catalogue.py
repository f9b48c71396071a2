"""The classes of drawn pictures: how each is made, how many there are, and what is asked of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.accuracy.drawing import camera, pages, papers, places, scripts, wording
from benchmarks.accuracy.drawing.fonts import Fonts
from benchmarks.accuracy.picture import Picture

__all__ = ["CLASSES", "DrawnClass", "draw"]

Maker = Callable[[random.Random, Fonts], Picture]


@dataclass(frozen=True)
class DrawnClass:
    """A class of pictures.

    Attributes:
        group: of classes that are shown together.
        make: draws one.
        pictures: how many; together they have at least 300 words.
        least_f: what F of the words must reach.
        least_neighbours: which share of neighbouring words must be neighbours in what is read.
        boxes: whether boxes of words are compared.
        small_only: whether the tiny models do not know the script.
    """

    group: str
    make: Maker
    pictures: int
    least_f: float | None = None
    least_neighbours: float | None = None
    boxes: bool = False
    small_only: bool = False


def _on_its_side(degrees: int) -> Maker:
    def make(chance: random.Random, fonts: Fonts) -> Picture:
        return camera.quarter_turned(pages.page(chance, fonts, 10, 1 + chance.randrange(2)), degrees)

    return make


def _fine_scan(chance: random.Random, fonts: Fonts) -> Picture:
    return pages.page(chance, fonts, 10, 1, dpi=600, share=0.6)


def _footnotes(chance: random.Random, fonts: Fonts) -> Picture:
    return pages.page(chance, fonts, 6, 2, share=0.4)


def _page(points: int, columns: int) -> DrawnClass:
    make = partial(pages.page, points=points, columns=columns)
    return DrawnClass("pages", make, 1, least_f=0.99, least_neighbours=0.98, boxes=True)


CLASSES: dict[str, DrawnClass] = {
    **{f"page-{points}pt-{columns}col": _page(points, columns) for points in (12, 10, 9, 8) for columns in (1, 2)},
    **{
        f"skew-{degrees}": DrawnClass(
            "turned", partial(pages.skewed, degrees=degrees), 1, least_f=0.99, least_neighbours=0.98
        )
        for degrees in (2, 5, 10, 20)
    },
    **{
        f"turned-{degrees}": DrawnClass("turned", _on_its_side(degrees), 1, least_f=0.97, least_neighbours=0.98)
        for degrees in (90, 180, 270)
    },
    "letters-skewed": DrawnClass("papers", pages.letter, 2),
    "receipts": DrawnClass("papers", papers.receipt, 8),
    "forms": DrawnClass("papers", papers.form, 4),
    "invoices": DrawnClass("papers", papers.invoice, 1),
    "screens-light": DrawnClass("screens", partial(places.screen, dark=False), 2),
    "screens-dark": DrawnClass("screens", partial(places.screen, dark=True), 2),
    "signs": DrawnClass("places", places.sign, 70),
    "shelf-labels": DrawnClass("places", places.shelf_label, 24),
    "large-letters": DrawnClass("sizes", places.large_letters, 90),
    "thumbnails": DrawnClass("sizes", pages.thumbnail, 150),
    "strips": DrawnClass("sizes", places.strip, 10),
    "footnotes-6pt": DrawnClass("sizes", _footnotes, 1),
    "scan-600dpi": DrawnClass("sizes", _fine_scan, 1),
    "scan-150dpi-jpeg": DrawnClass("scans", pages.jpeg, 1),
    "fax": DrawnClass("scans", pages.bad_copy, 1),
    "faint": DrawnClass("scans", pages.faint, 2),
    "photographed-page": DrawnClass("scans", pages.photographed_page, 1),
    "accents": DrawnClass("scripts", scripts.accents, 2),
    "chinese": DrawnClass("scripts", partial(scripts.rows, text=wording.CHINESE), 2),
    "chinese-columns": DrawnClass("scripts", partial(scripts.columns, text=wording.CHINESE), 2),
    "japanese": DrawnClass("scripts", partial(scripts.rows, text=wording.JAPANESE), 1, small_only=True),
    "japanese-columns": DrawnClass("scripts", partial(scripts.columns, text=wording.JAPANESE), 2, small_only=True),
    "vertical-words": DrawnClass("scripts", scripts.downward_words, 8, least_f=0.95),
    "upside-down-lines": DrawnClass("scripts", scripts.upside_down, 4),
}


def draw(name: str, number: int, fonts: Fonts) -> Picture:
    """One picture: a function of its class, its number and the fonts."""
    return CLASSES[name].make(random.Random(f"{name} {number}"), fonts)
