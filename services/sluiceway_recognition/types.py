"""Values of the recognition stage: what a recogniser wants, what it says, and what is answered for a crop.

User code imports from here. Nothing in this module imports a model library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Answer",
    "ClassAnswer",
    "ClassReading",
    "CropSpec",
    "CropTask",
    "EmbeddingAnswer",
    "EmbeddingReading",
    "KIND",
    "Head",
    "ModelFacts",
    "PixelFormat",
    "Reading",
    "ResizeRule",
    "TextAnswer",
    "TextReading",
    "WordAnswer",
]

# Of stage; the default stage has it as its name and its section, too.
KIND: Final = "recognition"

MAX_HEIGHT_PX = 4096
MAX_WIDTH_PX = 16384
MAX_NAME_CHARACTERS = 100  # of a model


class Head(StrEnum):
    """What a model answers with."""

    TEXT = "text"
    CLASSIFY = "classify"
    EMBED = "embed"


class PixelFormat(StrEnum):
    """Order and number of the colour channels, one byte each."""

    BGR = "bgr"
    RGB = "rgb"
    GRAY = "gray"

    @property
    def channels(self) -> int:
        """Bytes per pixel."""
        return 1 if self is PixelFormat.GRAY else 3


class ResizeRule(StrEnum):
    """How a region is brought to the size that a recogniser wants."""

    # To the height, aspect ratio kept, squeezed only above the greatest width.
    FIT_HEIGHT = "fit_height"
    # To exactly the greatest width and the height.
    STRETCH = "stretch"
    # Likewise, but the aspect ratio is kept, and what is over on both sides left out.
    COVER = "cover"


@dataclass(frozen=True, slots=True)
class CropSpec:
    """What a recogniser wants its crops to look like.

    Attributes:
        height: of every crop, pixels.
        max_width: greatest width of a crop, pixels; with STRETCH the width of every crop.
        format: channel order of the arrays that the recogniser is called with: BGR or RGB.
        resize_rule: how a region becomes a crop.
        classes: detection classes that the recogniser wants; empty means all.
        turn_ratio: regions at least this many times as high as wide are turned anticlockwise by 90 degrees before they
            are resized (text that runs down); 0 turns none.
        align_points: where the keypoints of a region are to lie in its crop, x and y of each in parts of the crop's
            width and height; empty: they do not matter.
    """

    height: int
    max_width: int
    format: PixelFormat = PixelFormat.BGR
    resize_rule: ResizeRule = ResizeRule.FIT_HEIGHT
    classes: tuple[str, ...] = ()
    turn_ratio: float = 0.0
    align_points: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (1 <= self.height <= MAX_HEIGHT_PX and 1 <= self.max_width <= MAX_WIDTH_PX):
            raise ValueError(f"a crop has 1 to {MAX_HEIGHT_PX} rows and 1 to {MAX_WIDTH_PX} columns")
        if self.format is PixelFormat.GRAY:
            raise ValueError("recognisers are called with three channels: the format must be bgr or rgb")
        if self.turn_ratio and not self.turn_ratio >= 1:
            raise ValueError("turn_ratio must be 0 or at least 1")


@dataclass(frozen=True, slots=True)
class TextReading:
    """Text of one crop.

    Attributes:
        text: Unicode, empty when nothing could be read.
        character_confidences: one for each character, (0, 1].
        characters: the characters where some have several code points (flags); None: each code point is one.
    """

    text: str
    character_confidences: Sequence[float] = ()
    characters: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class ClassReading:
    """Class of one crop: float [C], the probability of each class, in the order of the labels."""

    probabilities: NDArray[Any] | Sequence[float]


@dataclass(frozen=True, slots=True)
class EmbeddingReading:
    """Embedding of one crop: float [D], of any length but 0; it is scaled to length 1 before it is answered."""

    vector: NDArray[Any] | Sequence[float]


Reading = TextReading | ClassReading | EmbeddingReading


class WordAnswer(NamedTuple):
    """A word, and its left, top, right and bottom edge in the crop as it was read, in parts of its width and height."""

    text: str
    confidence: float
    parts: tuple[float, float, float, float]


class TextAnswer(NamedTuple):
    """Checked text. `confidence` is the mean over the characters, 0 without any; those are listed where asked for.

    `rotation_degrees`: how far the text is turned clockwise in its region: 0, 90 (it runs down), 180 or 270. `words`:
    where they were asked for. `spans`: of each character, the columns of the crop between which the model saw it, in
    pixels; within a worker alone, where words are made of them.
    """

    text: str
    confidence: float
    characters: tuple[str, ...] = ()
    character_confidences: tuple[float, ...] = ()
    rotation_degrees: int = 0
    words: tuple[WordAnswer, ...] = ()
    spans: tuple[tuple[float, float], ...] = ()


class ClassAnswer(NamedTuple):
    """The most probable classes, the most probable first, as (class id, name, probability)."""

    labels: tuple[tuple[int, str, float], ...]


class EmbeddingAnswer(NamedTuple):
    """A vector of length 1, float32 in native byte order."""

    vector: bytes


# What passes between front and worker for each crop is made of named tuples: they pickle three times as fast as frozen
# dataclasses.
Answer = TextAnswer | ClassAnswer | EmbeddingAnswer


class CropTask(NamedTuple):
    """What a worker has to know of one crop beside its bytes.

    The width is not in it: it follows from the bytes, and without it nearly all crops of a batch have one task, which
    is pickled once.

    Attributes:
        model: name of the model that reads it.
        height: rows of raw pixels, 0 for an encoded crop.
        format: channel order of raw pixels; None says that the bytes are an image file.
        top_k: classes to name, for classifiers.
        characters: whether a text's characters are wanted one by one. Most are not, and cost as much as all the rest.
        rotation_degrees: how far the pixels have been turned anticlockwise since they were cut out.
        words: whether it is wanted where each word of a text lies.
    """

    model: str
    height: int = 0
    format: PixelFormat | None = None
    top_k: int = 1
    characters: bool = True
    rotation_degrees: int = 0
    words: bool = False


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A loaded model, as the worker tells the front.

    Attributes:
        name: by which crops ask for it.
        version: of the weights.
        weights_sha256: of the weights file; empty for user code.
        head: what it answers with.
        crop_spec: the crops that it wants.
        buckets: widths that crops are padded to, ascending; empty: crops of all widths share a batch.
        labels: class names.
        embedding_size: length of an embedding; 0 if unknown before the first one.
        backend: what computes.
        precision: arithmetic in use; empty if unknown.
        device: where it computes.
        upright: what finds text that stands on its head; empty where nothing does.
        reading: stands for how an own model's classes become text; empty where its file says it all.
    """

    name: str
    version: str
    weights_sha256: str
    head: Head
    crop_spec: CropSpec
    buckets: tuple[int, ...]
    labels: tuple[str, ...]
    embedding_size: int
    backend: Literal["openvino", "torch", "user"]
    precision: str
    device: str
    upright: str = ""
    reading: str = ""
