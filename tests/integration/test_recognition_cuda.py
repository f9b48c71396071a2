"""Recognition on a real GPU: the strings of ONNX Runtime, and none that depends on its batch mates."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ppocr_reference import reference_of
from rendered_lines import rendered_lines
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.types import Answer, CropTask, PixelFormat
from sluiceway_recognition.worker.handler import RecognitionHandler, create, worker_config
from sluiceway_runtime import devices, weights
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.pool import Payload, Placement

pytestmark = [pytest.mark.cuda, pytest.mark.timeout(300)]
LINES = rendered_lines()
WIDTHS = (160, 320, 720)
# Of 300 lines; what 16 bits may cost.
LEAST = {"ppocrv5-mobile": 0.985, "ppocrv6-tiny": 0.995, "ppocrv6-small": 0.995}


def open_handler(model: dict[str, object], batches: tuple[int, ...] = (1, 32), compiled: int = 2) -> RecognitionHandler:
    from sluiceway_recognition.backends.batches import GraphSettings

    config = RecognitionConfig.model_validate({"models": [model]})
    plans = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
    handler = create(worker_config(plans, ImageLimits(10**7, 10**7), GraphSettings(batches, compiled=compiled)))
    handler.setup(Placement(0, "cuda:0", None, 4))
    return handler


@pytest.fixture(scope="module")
def handlers() -> Callable[[str], RecognitionHandler]:
    made: dict[str, RecognitionHandler] = {}

    def make(name: str) -> RecognitionHandler:
        if name not in made:
            made[name] = open_handler({"name": name, "max_width": WIDTHS[-1], "buckets": WIDTHS})
        return made[name]

    return make


def payload(model: str, crop: np.ndarray) -> Payload:
    return Payload(CropTask(model, crop.shape[0], PixelFormat.BGR), (crop.tobytes(),))


def read(handler: RecognitionHandler, model: str, crops: list[np.ndarray]) -> list[Answer]:
    results = []
    for first in range(0, len(crops), 64):
        results += handler.run([payload(model, crop) for crop in crops[first : first + 64]])
    return [result.meta for result in results]


@pytest.mark.parametrize("model", LEAST)
def test_strings_in_half_precision_are_those_of_onnx_runtime(model: str, handlers) -> None:
    crops = [crop for _, crop in LINES]
    reference = reference_of(model)
    # The reference pads to the default buckets: so does this handler, through a model of its own.
    handler = open_handler({"name": model}, batches=(1, 32), compiled=0)
    answers = read(handler, model, crops)
    same = [answer.text == reference(crop)[0] for answer, crop in zip(answers, crops, strict=True)]
    print(f"{model}: {sum(same)} of {len(same)} strings equal in f16")
    assert np.mean(same) >= LEAST[model]


@pytest.mark.parametrize("model", ["ppocrv5-mobile", "ppocrv6-tiny"])
def test_compiled_graphs_read_what_uncompiled_ones_read(model: str, handlers) -> None:
    crops = [crop for _, crop in LINES if crop.shape[1] <= WIDTHS[1]]
    uncompiled = open_handler({"name": model, "max_width": WIDTHS[-1], "buckets": WIDTHS}, compiled=0)
    pairs = list(zip(read(handlers(model), model, crops), read(uncompiled, model, crops), strict=True))
    assert sum(a.text == b.text for a, b in pairs) >= LEAST[model] * len(pairs)


def test_an_answer_never_depends_on_its_batch_mates(handlers) -> None:
    model = "ppocrv6-tiny"
    handler = open_handler({"name": model, "max_width": 320, "buckets": [320]}, batches=(32,), compiled=1)
    crops = [crop for _, crop in LINES if crop.shape[1] <= 320][:64]
    alone = [read(handler, model, [crop])[0] for crop in crops]
    chance = random.Random(3)
    for _ in range(20):
        picked = [chance.randrange(len(crops)) for _ in range(chance.randint(2, 32))]
        # To the last bit, confidences included.
        assert read(handler, model, [crops[index] for index in picked]) == [alone[index] for index in picked]


def test_batches_overlap_and_come_back_in_order(handlers) -> None:
    model = "ppocrv6-tiny"
    handler = handlers(model)
    crops = [crop for _, crop in LINES][:96]
    expected = read(handler, model, crops)
    begun = [handler.launch([payload(model, crop) for crop in crops[first : first + 8]]) for first in range(0, 96, 8)]
    texts = [result.meta.text for finish in begun for result in finish()]
    assert texts == [answer.text for answer in expected]


def test_a_network_of_torch_export_is_served(tmp_path: Path) -> None:
    import torch
    from own_models import export_mean_colour

    path = export_mean_colour(tmp_path / "colour.pt2")
    handler = open_handler(
        {"name": "m", "kind": "classify", "weights": str(path), "height": 16, "max_width": 24, "mean": 0, "std": 51},
        batches=(1, 4),
    )
    crop = np.full((16, 24, 3), (0, 51, 255), dtype=np.uint8)
    answers = read(handler, "m", [crop] * 6)
    expected = np.exp(5) / np.exp([0, 1, 5]).sum()
    assert [answer.labels[0][0] for answer in answers] == [2] * 6
    assert [answer.labels[0][2] for answer in answers] == pytest.approx([expected] * 6, abs=2e-3)
    assert torch.cuda.is_available()


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(StartupError, match=r"cuda:99"):
        devices.resolve("cuda:99")
