"""Compiled and captured graphs on a real GPU: the same values, the cache, its faults, and the memory they take."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.cuda, pytest.mark.timeout(300)]


def batch_of(count: int, seed: int, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    pixels = chance.integers(0, 255, (count, 16, width, 3), dtype=np.uint8)
    return pixels, chance.integers(1, width, count, dtype=np.int32)


def told(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """What our own code logged."""
    return [
        record.message for record in caplog.records if record.levelno >= level and record.name.startswith("sluiceway")
    ]


def expected(pixels: np.ndarray, widths: np.ndarray) -> np.ndarray:
    import torch
    from gpu_nets import Tiny

    with torch.inference_mode():
        return Tiny()(torch.from_numpy(pixels), torch.from_numpy(widths))[0].numpy()


def open_module(cache: Path, *, wrap: str = "", **options: int):
    from gpu_nets import recipe
    from sluiceway_runtime.gpu import CompiledModule

    return CompiledModule(
        recipe(**({"wrap": wrap} if wrap else {})), name="tiny", device="cuda:0", cache=cache, **options
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


def test_compiled_graphs_compute_the_same_and_are_found_again(cache: Path, caplog) -> None:
    from gpu_nets import shape_of

    caplog.set_level(logging.INFO)
    shapes = [shape_of(1), shape_of(8)]
    first = open_module(cache)
    assert first.prepare(shapes) == tuple(shapes)
    assert "compiled 2 of 2 graphs" in caplog.text
    caplog.clear()
    again = open_module(cache)
    again.prepare(shapes)
    assert not any("compil" in line for line in told(caplog))
    for module in (first, again):
        for shape in shapes:
            pixels, widths = batch_of(shape.batch, 3)
            values, doubled = module(shape, pixels, widths)
            assert values == pytest.approx(expected(pixels, widths), abs=1e-4)
            assert (doubled == widths * 2).all()


def test_a_damaged_artefact_is_made_again(cache: Path, caplog) -> None:
    from gpu_nets import shape_of

    caplog.set_level(logging.INFO)
    (package,) = cache.glob("*/8x32.bin")
    package.write_bytes(package.read_bytes()[:-100])
    module = open_module(cache)
    module.prepare([shape_of(8)])
    assert "compiled 1 of 1 graphs (8x32)" in caplog.text


def test_several_batches_on_their_way_do_not_touch_each_other(cache: Path) -> None:
    from gpu_nets import shape_of

    shapes = [shape_of(1), shape_of(8)]
    module = open_module(cache, depth=3)
    module.prepare(shapes)
    wanted, runs = [], []
    for number in range(40):
        shape = shapes[number % 2]
        pixels, widths = batch_of(shape.batch, number)
        # More are begun than there are buffers: the oldest are then waited for, and their results kept.
        run = module.begin(shape)
        run.inputs[0][...], run.inputs[1][...] = pixels, widths
        run.launch()
        runs.append(run)
        wanted.append((pixels, widths))
    for run, (pixels, widths) in reversed(list(zip(runs, wanted, strict=True))):
        values, doubled = run.result()
        assert values == pytest.approx(expected(pixels, widths), abs=1e-4)
        assert (doubled == widths * 2).all()


def test_without_a_compiler_graphs_are_captured_as_they_are(tmp_path: Path, monkeypatch, caplog) -> None:
    from gpu_nets import shape_of
    from sluiceway_runtime.gpu import compiler

    monkeypatch.setattr(compiler, "missing_tool", lambda: "there is no C compiler")
    module = open_module(tmp_path)
    module.prepare([shape_of(4)])
    assert told(caplog, logging.WARNING) == [
        "tiny: nothing is compiled, as there is no C compiler; it computes at about half the speed"
    ]
    pixels, widths = batch_of(4, 1)
    assert module(shape_of(4), pixels, widths)[0] == pytest.approx(expected(pixels, widths), abs=1e-4)


def test_what_cannot_be_compiled_or_captured_still_computes(tmp_path: Path, caplog) -> None:
    from gpu_nets import shape_of

    module = open_module(tmp_path, wrap="sync")
    module.prepare([shape_of(2)])
    assert "1 of 1 graphs could not be compiled" in caplog.text
    assert "cannot be captured" in caplog.text
    pixels, widths = batch_of(2, 1)
    assert module(shape_of(2), pixels, widths)[0] == pytest.approx(expected(pixels, widths), abs=1e-4)


def test_graphs_that_do_not_fit_are_left_out(tmp_path: Path, caplog) -> None:
    import torch
    from gpu_nets import shape_of

    # One of very many workers: its share holds small batches of wide images and no large ones.
    total = torch.cuda.mem_get_info()[1]
    share = 400 * 2**20
    try:
        module = open_module(tmp_path, workers_on_device=round(total / share))
        shapes = [shape_of(1, 1024), shape_of(16, 1024), shape_of(4096, 1024)]
        ready = module.prepare(shapes, compiled=())
        assert ready == tuple(shapes[:2])
        assert "4096x1024" in caplog.text
        pixels, widths = batch_of(16, 1, 1024)
        assert module(shapes[1], pixels, widths)[0] == pytest.approx(expected(pixels, widths), abs=1e-4)
        assert torch.cuda.memory_reserved() <= share
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
