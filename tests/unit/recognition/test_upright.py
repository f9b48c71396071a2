"""Crops that were read with doubt are read the other way around, or as they lay, and the better reading counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sluiceway_recognition.text.upright import CLASSIFIER_HEIGHT, CLASSIFIER_WIDTH, Upright, as_read
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


def test_a_narrow_letter_that_was_turned_is_read_as_it_lay() -> None:
    reader, answers = Reader(BETTER), [TextAnswer("-", 0.6)] * 2
    settled = Upright(reader, Classifier()).settle([crop(0, 96), crop(0, 96)], answers, [True, False])
    # What was turned anticlockwise to be cut lies clockwise by three quarters in its crop.
    assert settled == [BETTER._replace(rotation_degrees=270), answers[1]]
    assert [seen.shape for seen in reader.seen] == [(48, 24, 3)], "turned back, and as high as any crop"


def test_text_that_runs_down_is_not_read_as_it_lay() -> None:
    reader = Reader(BETTER)
    line, word = crop(0, 300), crop(0, 96)
    # A line is no letter; and what was read without doubt, or as well, stays.
    answers = [TextAnswer("line", 0.6), TextAnswer("Hz", 0.999)]
    assert Upright(reader, Classifier()).settle([line, word], answers, [True, True]) == answers
    assert not reader.seen
    answers = [TextAnswer("no", 0.9)]
    assert Upright(Reader(TextAnswer("z", 0.9)), Classifier()).settle([word], answers, [True]) == answers


def test_pixels_as_they_were_read() -> None:
    pixels = np.arange(48 * 96 * 3, dtype=np.uint32).reshape(48, 96, 3).astype(np.uint8)
    assert as_read(pixels, 0) is pixels
    assert np.array_equal(as_read(pixels, 180), pixels[::-1, ::-1])
    bar = np.zeros((48, 96, 3), np.uint8)
    bar[:, :32] = 255  # on the left as it was cut: at the upper edge of what was there
    lying = as_read(bar, 270)
    assert lying.shape == (48, 24, 3)
    assert lying[:15].min() == 255
    assert lying[17:].max() == 0


def test_a_line_that_was_turned_runs_up_as_likely_as_down() -> None:
    first, second = TextAnswer("Ba 95", 0.95), TextAnswer("Balance 6295", 0.97)
    given = [crop(15), crop(15)]
    settled = Upright(Reader(second), Classifier()).settle(given, [first, first], [True, False])
    assert settled == [second._replace(rotation_degrees=180), first]
