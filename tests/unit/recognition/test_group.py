"""What tells replicas apart whose answers do not fit together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sluiceway_recognition.plan import ModelPlan, Normalisation
from sluiceway_recognition.types import CropSpec, Head
from sluiceway_recognition.worker.handler import _reading


def test_how_the_classes_of_an_own_model_become_text_tells_its_group(tmp_path: Path) -> None:
    """Of replicas with one file and two alphabets half of the texts would be wrong."""
    plan = ModelPlan("m", Head.TEXT, CropSpec(48, 320), (), Normalisation((0.5,) * 3, (0.5,) * 3), own=True)
    letters = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    for path, text in zip(letters, ("ab", "ba", "ab"), strict=True):
        path.write_text(text)
    ways = [
        _reading(replace(plan, **changes))
        for changes in (
            {}, {"alphabet": "ab"}, {"alphabet": "ba"}, {"blank": "last"}, {"ends": True},
            {"characters": letters[0]}, {"characters": letters[1]},
        )
    ]  # fmt: skip
    assert ways[0] == ""
    assert len(set(ways)) == len(ways)
    assert _reading(replace(plan, characters=letters[2])) == ways[5]
