"""What was found in a source, and what the steps of the pipeline said of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sluiceway.errors import SluicewayError

__all__ = ["Box", "Character", "Keypoint", "Label", "Reading", "Region", "Word", "error_to_dict", "reading_to_dict"]


class Box(NamedTuple):
    """An upright rectangle in pixels of the original image, origin top left; (x1, y1) is the outer corner."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Horizontal extent in pixels."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Vertical extent in pixels."""
        return self.y1 - self.y0

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """Clockwise from the top left one."""
        return ((self.x0, self.y0), (self.x1, self.y0), (self.x1, self.y1), (self.x0, self.y1))

    def __str__(self) -> str:
        return "({:.1f}, {:.1f}, {:.1f}, {:.1f})".format(*self)


class Keypoint(NamedTuple):
    """One point of a thing that has several: pixels of the page, and how sure the model is that it is seen, [0, 1]."""

    x: float
    y: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Character:
    """One character of a text and how sure the model is of it, (0, 1]."""

    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a text.

    Attributes:
        text: what stands between spaces.
        confidence: mean of its characters, (0, 1].
        box: where it is, in pixels of the page; where it is turned, the upright rectangle around it.
        outline: its corners clockwise, in pixels.
    """

    text: str
    confidence: float
    box: Box
    outline: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Label:
    """One candidate class of a classifier and its probability, [0, 1]."""

    class_id: int
    class_name: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What one step said of one region, of a page, or of the source.

    Attributes:
        model: name of the model; empty for APIs.
        text: what was read; None from steps that do not read.
        confidence: of the text, or of the best label; 0 for an empty text.
        characters: the text one by one, if `characters` was asked for.
        labels: the best classes of a classifier, the most probable first.
        embedding: a vector of length 1.
        error: why the step failed here.
        step: name of the step.
        data: what an API answered; None from models.
        rotation: how many degrees clockwise the text is turned in its region: 0, 90 (it runs down), 180 or 270.
        words: where each word lies, if `words` was asked for.
    """

    model: str
    text: str | None = None
    confidence: float = 0.0
    characters: tuple[Character, ...] = ()
    labels: tuple[Label, ...] = ()
    embedding: tuple[float, ...] = ()
    error: SluicewayError | None = None
    step: str = ""
    data: Mapping[str, Any] | None = None
    rotation: int = 0
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Region:
    """One thing found in a page, or in another region of it.

    Attributes:
        id: names it within its source.
        box: where it is, in pixels of the page; for other shapes, the upright rectangle around it.
        class_name: what it is.
        class_id: the same as a number of the model.
        confidence: of the detection, (0, 1].
        outline: corners clockwise, in pixels; four for a box.
        readings: what the steps said of it, in the order of the pipeline; empty where none wants this class.
        step: name of the step that found it.
        parent_id: the region that it was found in; None for regions of the page itself.
        page: number of the page, from 0.
        keypoints: in the order of the model; empty from models without them.
    """

    id: int
    box: Box
    class_name: str
    class_id: int
    confidence: float
    outline: tuple[tuple[float, float], ...]
    readings: tuple[Reading, ...] = ()
    step: str = ""
    parent_id: int | None = None
    page: int = 0
    keypoints: tuple[Keypoint, ...] = ()

    def __repr__(self) -> str:
        text = "" if self.text is None else f" {self.text!r}"
        return f"<Region {self.id} {self.class_name} {self.confidence:.2f}{text} at {self.box}>"

    @property
    def values(self) -> Mapping[str, Reading]:
        """The readings by the name of their step."""
        return {reading.step: reading for reading in self.readings}

    @property
    def text(self) -> str | None:
        """What was read; None if nothing reads this class, or reading failed."""
        reading = self._text_reading()
        return reading.text if reading else None

    @property
    def text_confidence(self) -> float | None:
        """Mean confidence of the characters, [0, 1]; None where there is no text."""
        reading = self._text_reading()
        return reading.confidence if reading else None

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of the text, if they were asked for."""
        reading = self._text_reading()
        return reading.words if reading else ()

    def _text_reading(self) -> Reading | None:
        return next((reading for reading in self.readings if reading.text is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the output of `sluiceway run --json`."""
        plain: dict[str, Any] = {
            "id": self.id,
            "parent": self.parent_id,
            "step": self.step,
            "box": [round(value, 2) for value in self.box],
        }
        # A box that was turned by nothing may begin at any of its corners.
        if sorted(self.outline) != sorted(Box(*self.box).corners):
            plain["outline"] = [[round(x, 2), round(y, 2)] for x, y in self.outline]
        if self.keypoints:
            plain["keypoints"] = [[round(x, 2), round(y, 2), round(sure, 4)] for x, y, sure in self.keypoints]
        plain |= {
            "class": self.class_name,
            "confidence": round(self.confidence, 4),
            "text": self.text,
            "text_confidence": None if self.text_confidence is None else round(self.text_confidence, 4),
        }
        if self.words:
            plain["words"] = _words(self.words)
        rotation = next((reading.rotation for reading in self.readings if reading.rotation), 0)
        if rotation:
            plain["text_rotation"] = rotation
        labels = [label for reading in self.readings for label in reading.labels]
        if labels:
            plain["labels"] = _labels(labels)
        characters = next((reading.characters for reading in self.readings if reading.characters), ())
        if characters:
            plain["characters"] = _characters(characters)
        texts = [reading for reading in self.readings if reading.text is not None]
        if len(texts) > 1:
            # Of several steps; the first is `text`.
            plain["texts"] = {reading.step: reading_to_dict(reading) for reading in texts}
        embedding = next((reading.embedding for reading in self.readings if reading.embedding), None)
        if embedding:
            plain["embedding"] = list(embedding)
        values = {reading.step: reading.data for reading in self.readings if reading.data is not None}
        if values:
            plain["values"] = values
        error = next((reading.error for reading in self.readings if reading.error), None)
        if error:
            plain["error"] = error_to_dict(error)
        return plain


def reading_to_dict(reading: Reading) -> dict[str, Any]:
    """Plain data: what one step said."""
    plain: dict[str, Any] = {"model": reading.model} if reading.model else {}
    if reading.text is not None:
        plain |= {"text": reading.text, "confidence": round(reading.confidence, 4)}
    if reading.characters:
        plain["characters"] = _characters(reading.characters)
    if reading.words:
        plain["words"] = _words(reading.words)
    if reading.rotation:
        plain["text_rotation"] = reading.rotation
    if reading.labels:
        plain["labels"] = _labels(reading.labels)
    if reading.embedding:
        plain["embedding"] = list(reading.embedding)
    if reading.data is not None:
        plain["values"] = reading.data
    if reading.error is not None:
        plain["error"] = error_to_dict(reading.error)
    return plain


def _words(words: Iterable[Word]) -> list[dict[str, Any]]:
    return [
        {
            "text": word.text,
            "confidence": round(word.confidence, 4),
            "box": [round(value, 2) for value in word.box],
        }
        for word in words
    ]


def _labels(labels: Iterable[Label]) -> list[dict[str, Any]]:
    return [{"class": item.class_name, "confidence": round(item.confidence, 4)} for item in labels]


def _characters(characters: Iterable[Character]) -> list[dict[str, Any]]:
    return [{"text": item.text, "confidence": round(item.confidence, 4)} for item in characters]


def error_to_dict(error: SluicewayError, *, whole: bool = False) -> dict[str, Any]:
    """Plain data: what programs need to know of a failure.

    Args:
        error: what failed.
        whole: with what there is besides: the id of the request, and when to come back.
    """
    plain: dict[str, Any] = {"code": error.code, "reason": error.reason, "message": error.message}
    if whole and error.request_id:
        plain["request_id"] = error.request_id
    if whole and error.retry_after_s is not None:
        plain["retry_after_s"] = error.retry_after_s
    return plain
