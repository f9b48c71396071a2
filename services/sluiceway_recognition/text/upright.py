"""Text that stands on its head: found among what could hardly be read, read again, and kept where that reads better.

A line upside down reads as garbage of low confidence (PP-OCRv6 tiny: 0.5 to 0.7, where the same line upright has 0.95
and more). So only crops that were read with doubt are looked at. On a CPU a small classifier is asked about each of
them first; on a GPU reading costs less than asking. Everything depends on the crop alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import ModelFailed

from sluiceway_recognition.backends import Backend
from sluiceway_recognition.plan import Normalisation
from sluiceway_recognition.types import Answer, TextAnswer

__all__ = ["CLASSIFIER_HEIGHT", "CLASSIFIER_NORMALISATION", "CLASSIFIER_WIDTH", "Upright"]

# What PaddleOCR's classifier of lines takes.
CLASSIFIER_HEIGHT, CLASSIFIER_WIDTH = 48, 192
CLASSIFIER_NORMALISATION = Normalisation((127.5,) * 3, (127.5,) * 3)
# Its classes are 0 and 180 degrees.
_HALF_TURN = 1

# So many times as wide as high, and what has more is a line.
WORD_RATIO = CLASSIFIER_WIDTH / CLASSIFIER_HEIGHT

Crops = Sequence[NDArray[np.uint8]]


class _Evidence(NamedTuple):
    """What it takes to turn a crop.

    Attributes:
        doubtful: read with less confidence than this, it may stand on its head.
        least_probability: from which the classifier is believed.
        least_gain: by so much the second reading must be the more confident one.
    """

    doubtful: float
    least_probability: float
    least_gain: float


# Of a line a wrong yes of the classifier costs no more than a reading, whose confidence then tells; a wrong no costs
# the line.
LINE = _Evidence(0.9, 0.1, 0.1)
# A short word may read well on its head ("uns" for Sum, "ON" for NO., 9 for 6), so two readings tell little. There the
# classifier has to be sure, by the threshold that PaddleOCR has for it, and then the readings must not gainsay. Of 278
# short words on their heads 261 are turned so (with the evidence for lines and a sure classifier 248), of 288 that
# stand none.
WORD = _Evidence(0.98, 0.9, 0.0)


class Upright:
    """Gives the better of two readings of a crop: as it came, and turned by 180 degrees.

    Args:
        read: reads crops of a text model.
        classifier: probabilities of 0 and of 180 degrees; without one, only lines are read twice, no short words.
    """

    def __init__(self, read: Callable[[Crops], list[Answer | ModelFailed]], classifier: Backend | None) -> None:
        self._read = read
        self._classifier = classifier

    def settle(self, crops: Crops, answers: list[Answer | ModelFailed]) -> list[Answer | ModelFailed]:
        """Read again what seems to stand on its head.

        Args:
            crops: uint8 [H, w_i, 3], as they were read.
            answers: for each.

        Returns:
            For each crop its answer, or that of the crop turned, with a `rotation_degrees` of 180.
        """
        doubtful = [
            position
            for position, answer in enumerate(answers)
            if isinstance(answer, TextAnswer) and answer.confidence < _evidence(crops[position]).doubtful
        ]
        doubtful = self._likely(crops, doubtful) if doubtful else doubtful
        if not doubtful:
            return answers
        settled = list(answers)
        again = self._read([_turned(crops[position]) for position in doubtful])
        for position, second in zip(doubtful, again, strict=True):
            first = answers[position]
            assert isinstance(first, TextAnswer)
            least_gain = _evidence(crops[position]).least_gain
            if isinstance(second, TextAnswer) and second.confidence >= first.confidence + least_gain:
                settled[position] = second._replace(rotation_degrees=180)
        return settled

    def _likely(self, crops: Crops, doubtful: Sequence[int]) -> list[int]:
        """Positions of those that are worth another reading."""
        evidence = [_evidence(crops[position]) for position in doubtful]
        if self._classifier is None:
            return [position for position, wanted in zip(doubtful, evidence, strict=True) if wanted is LINE]
        pixels = [_for_classifier(crops[position]) for position in doubtful]
        (probabilities,) = self._classifier.launch(pixels, CLASSIFIER_WIDTH)()
        least = [wanted.least_probability for wanted in evidence]
        yes: list[bool] = (probabilities[:, _HALF_TURN] >= least).tolist()
        return [position for position, likely in zip(doubtful, yes, strict=True) if likely]


def _evidence(crop: NDArray[np.uint8]) -> _Evidence:
    height, width = crop.shape[:2]
    return LINE if width > WORD_RATIO * height else WORD


def _turned(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(crop[::-1, ::-1])


def _for_classifier(crop: NDArray[np.uint8]) -> NDArray[Any]:
    """At its height; of a long line the middle alone, squeezed by half, as all of it would be squeezed too much."""
    height, width = crop.shape[:2]
    longest = 2 * CLASSIFIER_WIDTH * height // CLASSIFIER_HEIGHT
    if width > longest:
        begin = (width - longest) // 2
        crop, width = crop[:, begin : begin + longest], longest
    size = (min(CLASSIFIER_WIDTH, max(1, round(width * CLASSIFIER_HEIGHT / height))), CLASSIFIER_HEIGHT)
    return crop if size == (width, height) else cv2.resize(crop, size, interpolation=cv2.INTER_LINEAR)
