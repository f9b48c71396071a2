"""The choice of an arithmetic, where instruction sets alone do not tell."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sluiceway_recognition.backends import precision
from sluiceway_recognition.backends.precision import Choice, choose, command, undecided
from sluiceway_recognition.plan import ModelPlan, Normalisation
from sluiceway_recognition.types import CropSpec, Head
from sluiceway_runtime import weights

PLAN = ModelPlan(
    "lines", Head.TEXT, CropSpec(48, 320), (160, 320), Normalisation((127.5,) * 3, (127.5,) * 3), weights=Path("a.onnx")
)
AVX512, AMX = frozenset({"avx512_bf16"}), frozenset({"avx512_bf16", "amx_bf16"})


def outputs(confidence: float = 0.9, same: float = 1.0) -> tuple[np.ndarray, ...]:
    classes = np.ones((4, 20), np.int32)
    classes.ravel()[round(same * 80) :] = 2
    return classes, np.full((4, 20), confidence, np.float32)


@pytest.mark.parametrize(
    ("bf16", "chosen", "reason"),
    [
        ((50.0, outputs()), "bf16", "faster"),
        ((95.0, outputs()), "f32", "gains nothing"),
        ((200.0, outputs()), "f32", "gains nothing"),
        ((50.0, outputs(same=0.5)), "f32", "only 50% of the steps"),
        ((50.0, outputs(confidence=0.7)), "f32", "confidence differs by 0.20"),
    ],
)
def test_bf16_has_to_be_faster_and_right(
    bf16: tuple[float, tuple[np.ndarray, ...]], chosen: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = {"f32": (100.0, outputs()), "bf16": bf16}
    monkeypatch.setattr(precision, "_try", lambda _plan, digits: precision._Trial(*tried[digits]))
    choice = choose(PLAN)
    assert choice.precision == chosen
    assert reason in choice.reason


def test_nothing_is_tried_where_instruction_sets_tell() -> None:
    assert undecided([PLAN], "cpu", AVX512) == [PLAN]
    assert undecided([PLAN], "cpu", AMX) == []
    assert undecided([PLAN], "cpu", frozenset({"avx2"})) == []
    assert undecided([PLAN], "cuda:0", AVX512) == []
    assert undecided([replace(PLAN, precision="f32")], "cpu", AVX512) == []
    assert undecided([replace(PLAN, user_class="own:Reader", weights=None)], "cpu", AVX512) == []
    assert undecided([replace(PLAN, backend="torch")], "cpu", AVX512) == []


def test_the_trial_runs_in_its_own_process(tmp_path: Path) -> None:
    path = weights.resolve("ppocrv6-tiny", kind="recognition").path
    asked = command([replace(PLAN, weights=path), replace(PLAN, name="again", weights=path)], None)
    assert asked[0] == sys.executable
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
    choices = [Choice(*answer) for answer in json.loads(done.stdout)]
    assert len(choices) == 2
    assert all(choice.precision in ("f32", "bf16") and choice.reason for choice in choices)
    missing = command([replace(PLAN, weights=tmp_path / "missing.onnx")], (0,))
    done = subprocess.run(missing, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "missing.onnx cannot be read" in done.stderr
