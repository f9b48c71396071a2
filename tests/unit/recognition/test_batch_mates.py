"""A string depends on its crop alone: not on what is read beside it, in which order, or in how large a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluiceway_recognition.backends import openvino
from sluiceway_recognition.backends.batches import GraphSettings
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.types import CropTask, PixelFormat, TextAnswer
from sluiceway_recognition.worker.handler import RecognitionHandler, create, worker_config
from sluiceway_recognition.worker.recognizer import ModelRecognizer
from sluiceway_runtime import weights
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.pool import Payload, Placement

MODEL = "ppocrv6-tiny"
# Batches of several sizes, so that graphs are filled in part, too: their empty rows hold what an earlier batch left.
GRAPHS = GraphSettings(batches=(1, 3, 8))
WORDS = 24


class Reader:
    """A handler, crops, and what each of the words is when it is read alone.

    No data class: of a failure hypothesis would show all the pixels.
    """

    def __init__(
        self, handler: RecognitionHandler, crops: list[np.ndarray], alone: list[TextAnswer], *, exact: bool
    ) -> None:
        self.handler = handler
        self.crops = crops
        self.alone = alone
        self.exact = exact

    def read(self, picked: list[int]) -> list[TextAnswer]:
        payloads = [
            Payload(CropTask(MODEL, crop.shape[0], PixelFormat.BGR), (crop.tobytes(),))
            for crop in (self.crops[index] for index in picked)
        ]
        answers = []
        for result in self.handler.run(payloads):
            assert isinstance(result, Payload), result
            assert isinstance(result.meta, TextAnswer)
            answers.append(result.meta)
        return answers


@pytest.fixture(scope="module", params=[1, 2], ids=["one-thread", "two-threads"])
def batched(request: pytest.FixtureRequest) -> Iterator[int]:
    """OpenVINO takes batches wherever they give the same, whether or not they are faster on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino, "_WORTH", 1e9)
        patch.setattr(openvino, "BATCHED_WIDTH", 320)
        yield request.param


@pytest.fixture(scope="module", params=["openvino", pytest.param("torch", marks=pytest.mark.torch)])
def reader(
    request: pytest.FixtureRequest, batched: int, lines: list[tuple[str, np.ndarray]], page_words: list[np.ndarray]
) -> Reader:
    config = RecognitionConfig.model_validate(
        # Few widths, so that crops of unlike widths meet in one batch.
        {"models": [{"name": MODEL, "precision": "f32", "backend": request.param, "buckets": [160, 320, 1920]}]}
    )
    plans = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
    handler = create(worker_config(plans, ImageLimits(config.max_crop_bytes, config.max_crop_px), GRAPHS))
    handler.setup(Placement(0, "cpu", None, batched))
    if request.param == "openvino":
        recognizer = handler.recognizer(MODEL)
        assert isinstance(recognizer, ModelRecognizer)
        assert isinstance(recognizer.backend, openvino.OpenVinoBackend)
        assert recognizer.backend.batched_widths == (160, 320)
    words = [crop for _, crop in lines if crop.shape[1] <= 320][: WORDS // 2]
    words += [crop for crop in page_words if crop.shape[1] <= 320][: WORDS - len(words)]
    # Some of them on their heads: these are read twice.
    words[::4] = [np.ascontiguousarray(word[::-1, ::-1]) for word in words[::4]]
    noise = np.random.default_rng(4)
    # Mates that would leave traces: noise as wide as the bucket, all light, all dark, and next to nothing.
    mates = [noise.integers(0, 256, (48, width, 3), dtype=np.uint8) for width in (160, 320)]
    mates += [np.full((48, 320, 3), 255, np.uint8), np.zeros((48, 160, 3), np.uint8), np.full((48, 1, 3), 9, np.uint8)]
    made = Reader(handler, [*words, *mates], [], exact=request.param == "openvino")
    made.alone = [made.read([index])[0] for index in range(len(words))]
    assert sum(bool(answer.text) for answer in made.alone) > len(words) / 2
    return made


# torch's two threads wait for each other, which takes minutes while neighbours compute.
@pytest.mark.timeout(600)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(picked=st.lists(st.integers(0, WORDS + 4), min_size=2, max_size=25))
def test_a_string_does_not_depend_on_what_is_read_beside_it(reader: Reader, picked: list[int]) -> None:
    for index, answer in zip(picked, reader.read(picked), strict=True):
        if index >= len(reader.alone):
            continue
        expected = reader.alone[index]
        assert answer.text == expected.text
        if reader.exact:
            assert answer == expected
        # Graphs of other sizes add up in another order: the last places of the confidences may differ.
        assert answer.character_confidences == pytest.approx(expected.character_confidences, abs=1e-3)
