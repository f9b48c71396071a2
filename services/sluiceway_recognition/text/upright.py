"""Text whose top is not up in its crop: found among what was read with doubt, read again, kept where that is better.

A line upside down reads as garbage of low confidence (PP-OCRv6 tiny: 0.5 to 0.7, where the same line upright has 0.95
and more). So only crops that were read with doubt are looked at. On a CPU a small classifier is asked about each of
them first; on a GPU reading costs less than asking. Everything depends on the crop alone.

And a region that is higher than wide was turned, as if text ran down there; but a narrow letter, such as a 1 that a
detector of words found, is so, too. What is narrow and was turned is read as it lay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import ModelFailed

from sluiceway_recognition.backends import Backend
from sluiceway_recognition.plan import Normalisation
from sluiceway_recognition.types import Answer, TextAnswer

__all__ = ["CLASSIFIER_HEIGHT", "CLASSIFIER_NORMALISATION", "CLASSIFIER_WIDTH", "Upright", "as_read"]

# What PaddleOCR's classifier of lines takes.
CLASSIFIER_HEIGHT, CLASSIFIER_WIDTH = 48, 192
CLASSIFIER_NORMALISATION = Normalisation((127.5,) * 3, (127.5,) * 3)
# Its classes are 0 and 180 degrees.
_HALF_TURN = 1

# So many times as wide as high, and what has more is a line.
WORD_RATIO = CLASSIFIER_WIDTH / CLASSIFIER_HEIGHT

# A crop that was turned anticlockwise when it was cut, turned back: 90 degrees more, clockwise, are upright.
_AS_IT_LAY = 270

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
# A line that was turned when it was cut runs up as likely as down, and PP-OCRv6 small reads lines on their heads with
# letters left out and a confidence of up to 0.9.
TURNED_LINE = _Evidence(0.98, 0.1, 0.0)
# A short word may read well on its head ("uns" for Sum, "ON" for NO., 9 for 6), so two readings tell little. There the
# classifier has to be sure, by the threshold that PaddleOCR has for it, and then the readings must not gainsay. Of 278
# short words on their heads 261 are turned so (with the evidence for lines and a sure classifier 248), of 288 that
# stand none.
WORD = _Evidence(0.98, 0.9, 0.0)
# Whatever is narrow and was turned is read as it lay if that is clearly better: of 767 letters and digits alone 457 are
# read right so (without 136, and 507 if none had been turned), of 1,359 words and columns that run down or up 1,246
# (without 1,249).
NARROW = _Evidence(0.98, 0.0, 0.05)


class Upright:
    """Gives the best of the readings of a crop: as it came, turned by 180 degrees, and as it lay in its image.

    Args:
        read: reads crops of a text model.
        classifier: probabilities of 0 and of 180 degrees; without one, only lines are read twice, no short words.
    """

    def __init__(self, read: Callable[[Crops], list[Answer | ModelFailed]], classifier: Backend | None) -> None:
        self._read = read
        self._classifier = classifier

    def settle(
        self, crops: Crops, answers: list[Answer | ModelFailed], turned: Sequence[bool] = ()
    ) -> list[Answer | ModelFailed]:
        """Read again what seems to be turned the wrong way.

        Args:
            crops: uint8 [H, w_i, 3], as they were read.
            answers: for each.
            turned: whether each was turned anticlockwise by 90 degrees when it was cut; empty for none.

        Returns:
            For each crop its answer, or that of the crop turned, with a `rotation_degrees` of 180, or of 270 where it
            is read as it lay. See `as_read`.
        """
        wanted = [_evidence(crop, sideways) for crop, sideways in zip(crops, turned or repeat(False), strict=False)]
        standing = self._likely(crops, wanted, _doubtful(answers, wanted))
        settled = self._better(crops, answers, 180, {at: wanted[at].least_gain for at in standing})
        if not any(turned):
            return settled
        narrow = [at for at in _doubtful(settled, [NARROW] * len(crops)) if turned[at] and wanted[at] is WORD]
        return self._better(crops, settled, _AS_IT_LAY, dict.fromkeys(narrow, NARROW.least_gain))

    def _better(
        self,
        crops: Crops,
        answers: list[Answer | ModelFailed],
        degrees: int,
        least_gains: Mapping[int, float],
    ) -> list[Answer | ModelFailed]:
        """The answers, but of crops that are worth it those of the crop turned, if so much more confident."""
        if not least_gains:
            return answers
        settled = list(answers)
        again = self._read([as_read(crops[position], degrees) for position in least_gains])
        for (position, least_gain), second in zip(least_gains.items(), again, strict=True):
            first = answers[position]
            assert isinstance(first, TextAnswer)
            if isinstance(second, TextAnswer) and second.confidence >= first.confidence + least_gain:
                settled[position] = second._replace(rotation_degrees=degrees)
        return settled

    def _likely(self, crops: Crops, wanted: Sequence[_Evidence], doubtful: Sequence[int]) -> Sequence[int]:
        """Positions of those that are worth another reading."""
        if self._classifier is None or not doubtful:
            return [position for position in doubtful if wanted[position] is not WORD]
        pixels = [_for_classifier(crops[position]) for position in doubtful]
        (probabilities,) = self._classifier.launch(pixels, CLASSIFIER_WIDTH)()
        least = [wanted[position].least_probability for position in doubtful]
        yes: list[bool] = (probabilities[:, _HALF_TURN] >= least).tolist()
        return [position for position, likely in zip(doubtful, yes, strict=True) if likely]


def _evidence(crop: NDArray[np.uint8], turned: bool) -> _Evidence:
    height, width = crop.shape[:2]
    if width <= WORD_RATIO * height:
        return WORD
    return TURNED_LINE if turned else LINE


def _doubtful(answers: Sequence[Answer | ModelFailed], wanted: Sequence[_Evidence]) -> list[int]:
    """Positions of the texts that were read with doubt."""
    return [
        position
        for position, (answer, evidence) in enumerate(zip(answers, wanted, strict=True))
        if isinstance(answer, TextAnswer) and answer.confidence < evidence.doubtful
    ]


def as_read(crop: NDArray[np.uint8], rotation_degrees: int) -> NDArray[np.uint8]:
    """The pixels in which a text was read.

    Args:
        crop: uint8 [H, W, 3], as it came.
        rotation_degrees: of its answer, as `Upright.settle` gives it: 0, 180 or 270.

    Returns:
        uint8 [H, w, 3], C-contiguous.
    """
    if rotation_degrees == _AS_IT_LAY:
        lying = np.asarray(cv2.rotate(crop, cv2.ROTATE_90_CLOCKWISE), np.uint8)
        height, width = lying.shape[:2]
        size = (max(1, round(width * crop.shape[0] / height)), crop.shape[0])
        return np.asarray(cv2.resize(lying, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.ascontiguousarray(crop[::-1, ::-1]) if rotation_degrees else crop


def _for_classifier(crop: NDArray[np.uint8]) -> NDArray[Any]:
    """At its height; of a long line the middle alone, squeezed by half, as all of it would be squeezed too much."""
    height, width = crop.shape[:2]
    longest = 2 * CLASSIFIER_WIDTH * height // CLASSIFIER_HEIGHT
    if width > longest:
        begin = (width - longest) // 2
        crop, width = crop[:, begin : begin + longest], longest
    size = (min(CLASSIFIER_WIDTH, max(1, round(width * CLASSIFIER_HEIGHT / height))), CLASSIFIER_HEIGHT)
    return crop if size == (width, height) else cv2.resize(crop, size, interpolation=cv2.INTER_LINEAR)
