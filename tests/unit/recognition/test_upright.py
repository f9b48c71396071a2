"""Crops that were read with doubt are read the other way around, and the better reading counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sluiceway_recognition.text.upright import CLASSIFIER_HEIGHT, CLASSIFIER_WIDTH, Upright
from sluiceway_recognition.types import TextAnswer
from sluiceway_runtime.errors import ModelFailed


class Reader:
    """Gives the same answer for every crop, and remembers the crops."""

    def __init__(self, answer: TextAnswer | ModelFailed) -> None:
        self.answer = answer
        self.seen: list[np.ndarray] = []

    def __call__(self, crops: Sequence[np.ndarray]) -> list[TextAnswer | ModelFailed]:
        self.seen += crops
        return [self.answer] * len(crops)


class Classifier:
    """Finds each crop to stand on its head with the probability that its first pixel has, in percent."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def launch(self, crops: Sequence[np.ndarray], width: int) -> object:
        assert width == CLASSIFIER_WIDTH
        self.shapes += [crop.shape for crop in crops]
        half = np.array([crop[0, 0, 0] / 100 for crop in crops], np.float32)
        return lambda: (np.stack([1 - half, half], axis=1),)


def crop(percent: int = 100, width: int = 300, height: int = 48) -> np.ndarray:
    pixels = np.full((height, width, 3), percent, np.uint8)
    pixels[-1, -1] = 7
    return pixels


BETTER = TextAnswer("upright", 0.97, ("u",), (0.97,))


def test_what_was_read_without_doubt_is_not_looked_at() -> None:
    reader, classifier = Reader(BETTER), Classifier()
    answers = [TextAnswer("sure", 0.95), ModelFailed("no number")]
    assert Upright(reader, classifier).settle([crop(), crop()], answers) == answers
    assert not reader.seen
    assert not classifier.shapes


def test_what_stands_on_its_head_is_read_the_other_way_around() -> None:
    reader = Reader(BETTER)
    given = [crop(), crop(), crop()]
    answers = [TextAnswer("sure", 0.95), TextAnswer("umop", 0.6), TextAnswer("", 0.0)]
    settled = Upright(reader, Classifier()).settle(given, answers)
    assert settled == [answers[0], BETTER._replace(rotation_degrees=180), BETTER._replace(rotation_degrees=180)]
    assert [seen[0, 0].tolist() for seen in reader.seen] == [[7, 7, 7]] * 2


def test_who_is_not_believed_to_stand_on_his_head_is_not_read_again() -> None:
    reader = Reader(BETTER)
    answers = [TextAnswer("blurred", 0.6), TextAnswer("umop", 0.6)]
    settled = Upright(reader, Classifier()).settle([crop(5), crop(15)], answers)
    assert settled[0] == answers[0]
    assert settled[1] == BETTER._replace(rotation_degrees=180)
    assert len(reader.seen) == 1


def test_the_second_reading_must_be_clearly_better() -> None:
    # A 6 on its head is as good a 9.
    for width, confidence in ((300, 0.89), (40, 0.79)):
        for second in (TextAnswer("9", confidence), ModelFailed("no number")):
            first = TextAnswer("6", 0.8)
            assert Upright(Reader(second), Classifier()).settle([crop(100, width)], [first]) == [first]


def test_without_a_classifier_every_doubtful_line_is_read_again() -> None:
    answers = [TextAnswer("umop", 0.6), TextAnswer("sure", 0.95)]
    settled = Upright(Reader(BETTER), None).settle([crop(0), crop(0)], answers)
    assert settled == [BETTER._replace(rotation_degrees=180), answers[1]]


def test_a_short_word_that_reads_well_on_its_head_is_turned_where_the_classifier_is_sure() -> None:
    word, line = crop(95, 100), crop(95, 300)
    for first, second, turned in (("ON", 0.97, 180), ("NO.", 0.96, 0)):
        settled = Upright(Reader(TextAnswer("NO.", second)), Classifier()).settle([word], [TextAnswer(first, 0.97)])
        assert settled[0].rotation_degrees == turned
    # Read with so much confidence, a line stands as it should, and so does a word that was read with more.
    reader, classifier = Reader(BETTER), Classifier()
    Upright(reader, classifier).settle([line, word], [TextAnswer("line", 0.97), TextAnswer("NO.", 0.99)])
    assert not reader.seen
    assert not classifier.shapes


def test_of_a_short_word_the_classifier_must_be_sure() -> None:
    answers = [TextAnswer("US", 0.6)] * 3
    crops = [crop(89, 100), crop(91, 100), crop(20, 193)]
    settled = Upright(Reader(BETTER), Classifier()).settle(crops, answers)
    assert [answer.rotation_degrees for answer in settled if isinstance(answer, TextAnswer)] == [0, 180, 180]
    # And with nobody to ask it stays as it is.
    settled = Upright(Reader(BETTER), None).settle(crops, answers)
    assert [answer.rotation_degrees for answer in settled if isinstance(answer, TextAnswer)] == [0, 0, 180]


def test_crops_of_any_size_are_brought_to_that_of_the_classifier() -> None:
    classifier = Classifier()
    sizes = [(48, 20), (48, 192), (48, 193), (48, 1920), (32, 64), (64, 1000), (300, 1)]
    crops = [crop(100, width, height) for height, width in sizes]
    Upright(Reader(BETTER), classifier).settle(crops, [TextAnswer("", 0.0)] * len(crops))
    assert [shape[0] for shape in classifier.shapes] == [CLASSIFIER_HEIGHT] * len(sizes)
    assert [shape[1] for shape in classifier.shapes] == [20, 192, 192, 192, 96, 192, 1]
