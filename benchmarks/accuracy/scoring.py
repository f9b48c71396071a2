"""From readings to figures: words, characters, neighbours, boxes and CPU by class and reader. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.accuracy.bootstrap import Interval, difference, f_score, interval
from benchmarks.accuracy.matching import Tally, neighbours, tally, wrong_characters
from benchmarks.accuracy.picture import Box, Stored
from benchmarks.accuracy.readings import Reading, mean_cpu_s
from benchmarks.accuracy.words import characters_of, words_of

__all__ = ["Boxes", "ClassScore", "Score", "score_class", "word_boxes"]


@dataclass(frozen=True)
class Score:
    """What one reader made of one class.

    Attributes:
        f: of the words, with its interval.
        wrong: characters that are wrong, as a share of those that are written.
        neighbours: the share of neighbouring words that are neighbours in what was read.
        cpu_s: of an image; None where it was not timed.
        failed: pictures that were refused.
        by_picture: F of each.
    """

    f: Interval
    wrong: float
    neighbours: float
    cpu_s: float | None
    failed: int
    by_picture: tuple[float, ...]


@dataclass(frozen=True)
class ClassScore:
    """A class: its size, its readers, and ours less theirs by pair of readers (`ours-theirs`)."""

    pictures: int
    words: int
    readers: dict[str, Score]
    differences: dict[str, Interval] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Boxes:
    """How boxes of words lie on those that were drawn: intersection over union."""

    words: int
    median: float
    share_above_60: float


def score_class(
    pictures: Sequence[Stored], readings: Mapping[str, Sequence[Reading]], pairs: Sequence[tuple[str, str]]
) -> ClassScore:
    """Figures of one class.

    Args:
        pictures: of the class.
        readings: of each reader, in the order of the pictures.
        pairs: of readers to compare.
    """
    written = [[word for line in stored.lines for word in words_of(line)] for stored in pictures]
    read = {
        name: [[word for line in item.lines for word in words_of(line)] for item in found]
        for name, found in readings.items()
    }
    tallies: dict[str, list[Tally]] = {
        name: [tally(*both) for both in zip(written, found, strict=True)] for name, found in read.items()
    }
    readers = {
        name: Score(
            interval(tallies[name]),
            _wrong(pictures, found),
            _neighbours(written, read[name]),
            mean_cpu_s(found),
            sum(item.error is not None for item in found),
            tuple(round(f_score([one]), 4) for one in tallies[name]),
        )
        for name, found in readings.items()
    }
    differences = {
        f"{ours}-{theirs}": difference(tallies[ours], tallies[theirs])
        for ours, theirs in pairs
        if ours in tallies and theirs in tallies
    }
    return ClassScore(len(pictures), sum(map(len, written)), readers, differences)


def _wrong(pictures: Sequence[Stored], readings: Sequence[Reading]) -> float:
    wrong = all_ = 0
    for stored, reading in zip(pictures, readings, strict=True):
        lines = [characters_of(line) for line in stored.lines]
        wrong += wrong_characters(lines, [characters_of(line) for line in reading.lines])
        all_ += sum(map(len, lines))
    return wrong / all_ if all_ else 0.0


def _neighbours(written: Sequence[Sequence[str]], read: Sequence[Sequence[str]]) -> float:
    counts = [neighbours(*both) for both in zip(written, read, strict=True)]
    pairs = sum(pair[1] for pair in counts)
    return sum(pair[0] for pair in counts) / pairs if pairs else 1.0


def word_boxes(pictures: Sequence[Stored], readings: Sequence[Reading]) -> Boxes | None:
    """How well the boxes of words fit; None where there are none to compare."""
    shares: list[float] = []
    for stored, reading in zip(pictures, readings, strict=True):
        found = sorted(box for _, box in reading.words)
        for line in stored.boxes:
            shares += [max((_overlap(box, other) for other in found), default=0.0) for box in line]
    if not shares or not any(reading.words for reading in readings):
        return None
    return Boxes(len(shares), statistics.median(shares), sum(share >= 0.6 for share in shares) / len(shares))


def _overlap(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return width * height / (areas - width * height)
