"""OpenVINO on the CPU: where crops are computed together, and where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from sluiceway_recognition.backends import openvino
from sluiceway_recognition.backends.openvino import BATCH, BATCHED_WIDTH, OpenVinoBackend
from sluiceway_recognition.plan import Normalisation
from sluiceway_recognition.types import Head

HEIGHT = 16


@pytest.fixture(autouse=True)
def _always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long something takes on this machine plays no part."""
    monkeypatch.setattr(openvino, "_WORTH", 1e9)


def network(path: Path, *, mixes: bool = False, batch: int = -1) -> Path:
    """The mean of each channel, [N, 3]; if it mixes, less the mean over the batch."""
    pixels = ops.parameter(ov.PartialShape([batch, 3, HEIGHT, -1]), np.float32, name="images")
    value = ops.reduce_mean(pixels, ops.constant(np.array([2, 3], dtype=np.int64)), keep_dims=False)
    if batch > 0:
        # As exporters write it for a batch that they take for fixed.
        value = ops.reshape(value, ops.constant(np.array([batch, 3], dtype=np.int64)), special_zero=False)
    if mixes:
        value = ops.subtract(value, ops.reduce_mean(value, ops.constant(np.array([0], dtype=np.int64)), keep_dims=True))
    ov.save_model(ov.Model([value], [pixels], "means"), path)
    return path


def backend(path: Path, *widths: int, threads: int = 1, dynamic: bool = False) -> OpenVinoBackend:
    normalisation = Normalisation((0, 0, 0), (1, 1, 1))
    made = OpenVinoBackend(
        path, head=Head.EMBED, height=HEIGHT, normalisation=normalisation, threads=threads, dynamic=dynamic
    )
    made.warm(widths)
    return made


def crops(count: int, width: int) -> list[np.ndarray]:
    noise = np.random.default_rng(count)
    return [noise.integers(0, 256, (HEIGHT, width - row % 3, 3), dtype=np.uint8) for row in range(count)]


def test_narrow_crops_have_a_graph_for_batches_and_wide_ones_none(tmp_path: Path) -> None:
    made = backend(network(tmp_path / "m.xml"), 32, 64, BATCHED_WIDTH, BATCHED_WIDTH + 1, 1000)
    assert made.batched_widths == (32, 64, BATCHED_WIDTH)


def test_a_batch_that_is_not_faster_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "_WORTH", 0.0)
    made = backend(network(tmp_path / "m.xml"), 32, 64)
    assert made.batched_widths == ()
    # And takes no memory: of the first width it was tried, of the next not even that.
    assert set(made.graphs) == {(1, 32), (1, 64)}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 31])
def test_crops_together_are_as_they_are_alone(tmp_path: Path, threads: int, count: int) -> None:
    made = backend(network(tmp_path / "m.xml"), 32, threads=threads)
    some = crops(count, 32)
    (together,) = made.launch(some, 32)()
    alone = [made.launch([crop], 32)()[0] for crop in some]
    assert together.shape == (count, 3)
    assert np.array_equal(together, np.concatenate(alone))


def test_a_model_whose_crops_mix_is_computed_one_by_one(tmp_path: Path) -> None:
    made = backend(network(tmp_path / "m.xml", mixes=True), 32)
    assert made.batched_widths == ()
    (values,) = made.launch(crops(BATCH, 32), 32)()
    assert (values == 0).all()  # each less itself


def test_a_file_of_one_fixed_batch_is_computed_one_by_one(tmp_path: Path) -> None:
    made = backend(network(tmp_path / "m.xml", batch=1), 32)
    assert made.batched_widths == ()
    assert made.launch(crops(9, 32), 32)()[0].shape == (9, 3)


def test_one_graph_for_all_widths_computes_one_by_one(tmp_path: Path) -> None:
    made = backend(network(tmp_path / "m.xml"), 32, 64, dynamic=True)
    assert made.batched_widths == ()
    assert made.launch(crops(9, 32), 32)()[0].shape == (9, 3)
