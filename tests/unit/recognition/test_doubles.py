"""Letters that stand twice, in crops of which only the size counts."""

from __future__ import annotations

import numpy as np
import pytest
from sluiceway_recognition.text.doubles import with_doubles
from sluiceway_recognition.text.spaces import SPACED_PX
from sluiceway_recognition.types import Answer, TextAnswer
from sluiceway_runtime.errors import ModelFailed

STEP = 8.0


def read(text: str, *, apart: float = 2 * STEP, long: dict[int, float] | None = None) -> TextAnswer:
    """A text whose letters stand in even distances, each seen in one step or, if it is named, over so many columns."""
    spans = [(at * apart, at * apart + STEP) for at in range(len(text))]
    for at, width in (long or {}).items():
        spans[at] = (spans[at][0], spans[at][0] + width)
    return TextAnswer(text, 0.9, tuple(text), tuple(at / 100 for at in range(len(text))), spans=tuple(spans))


def looked_at(answer: Answer | ModelFailed, width: int = SPACED_PX) -> Answer | ModelFailed:
    (found,) = with_doubles([np.zeros((48, width, 3), np.uint8)], [answer])
    return found


def test_a_letter_as_long_as_two_is_written_twice() -> None:
    found = looked_at(read("a sadle 80 ladr", long={4: 4 * STEP, 13: 5 * STEP}))
    assert isinstance(found, TextAnswer)
    assert found.text == "a saddle 80 laddr"
    assert "".join(found.characters) == found.text
    assert found.character_confidences[3:7] == (0.03, 0.04, 0.04, 0.05)
    assert found.spans[4:6] == ((64.0, 80.0), (80.0, 96.0))
    assert found.spans[6] == (80.0, 88.0)
    assert len(found.spans) == len(found.character_confidences) == len(found.text)
    assert found.confidence == 0.9


@pytest.mark.parametrize(
    "answer",
    [
        read("a sadle", long={4: 3 * STEP}),  # hardly longer than one
        read("a sadle", apart=20.0, long={4: 4 * STEP}),  # all letters of this line are wide
        read("a sa-le", long={4: 6 * STEP}),  # a dash may be of any length
        read("a sa le", long={4: 6 * STEP}),
        read("月月月月月", long={4: 6 * STEP}),
        read("sadl", long={2: 4 * STEP}),  # too few to tell
        read("a sadle", long={4: 4 * STEP})._replace(spans=()),
        ModelFailed("no"),
    ],
)
def test_others_stay_as_they_were_read(answer: Answer | ModelFailed) -> None:
    assert looked_at(answer) == answer


def test_a_narrow_crop_stays_whether_or_not_it_has_spans() -> None:
    answer = read("a sadle", long={4: 4 * STEP})
    assert looked_at(answer, SPACED_PX - 1) == answer
    assert looked_at(answer) != answer
