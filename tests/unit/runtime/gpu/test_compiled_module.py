"""`CompiledModule` on the CPU: the same code as on a GPU but for the graphs and streams of CUDA."""

from __future__ import annotations

import errno
import gc
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(280)]


def batch_of(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    return chance.integers(0, 255, (count, 16, 32, 3), dtype=np.uint8), chance.integers(1, 32, count, dtype=np.int32)


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


def open_module(cache: Path, **arguments: str):
    from gpu_nets import recipe
    from sluiceway_runtime.gpu import CompiledModule

    return CompiledModule(recipe(**arguments), name="tiny", device="cpu", cache=cache, depth=2)


def test_runs_are_independent_however_many_are_begun(tmp_path: Path) -> None:
    from gpu_nets import shape_of

    module = open_module(tmp_path)
    shapes = (shape_of(1), shape_of(4))
    assert module.prepare(shapes) == shapes
    assert all(module.cost_ms(shape) > 0 for shape in shapes)
    begun = []
    for number in range(7):
        shape = shapes[number % 2]
        run = module.begin(shape)
        pixels, widths = batch_of(shape.batch, number)
        run.inputs[0][...], run.inputs[1][...] = pixels, widths
        run.launch()
        begun.append((run, pixels, widths))
    for run, pixels, widths in reversed(begun):
        values, doubled = run.result()
        assert values == pytest.approx(expected(pixels, widths), abs=1e-6)
        assert (doubled == widths * 2).all()
        assert run.result()[0] is values


def test_what_was_recorded_is_kept_for_as_long_as_it_is_repeated(tmp_path: Path, monkeypatch) -> None:
    """A CUDA graph holds addresses, not tensors: freed constants would be read on, and be whatever came after them."""
    from gpu_nets import ALIVE, shape_of
    from sluiceway_runtime.gpu.device import CpuDevice

    def nothing() -> None:
        """As far as Python can see, what a replay holds."""

    monkeypatch.setattr(CpuDevice, "record", lambda self, step: step() or nothing)
    module = open_module(tmp_path, wrap="each")
    module.prepare((shape_of(1), shape_of(4)))
    gc.collect()
    assert len(ALIVE) == 2
    del module
    gc.collect()
    assert not ALIVE


def test_a_run_that_is_not_launched_costs_no_buffers(tmp_path: Path) -> None:
    from gpu_nets import shape_of

    module = open_module(tmp_path)
    module.prepare([shape_of(1)])
    for _ in range(5):
        module.begin(shape_of(1))
    pixels, widths = batch_of(1, 0)
    assert module(shape_of(1), pixels, widths)[0] == pytest.approx(expected(pixels, widths), abs=1e-6)


def test_graphs_are_compiled_once_and_a_damaged_one_again(tmp_path: Path, caplog) -> None:
    from gpu_nets import shape_of

    caplog.set_level(logging.INFO)
    shape = shape_of(2)
    pixels, widths = batch_of(2, 0)

    def start() -> str:
        caplog.clear()
        module = open_module(tmp_path)
        module.prepare([shape], [shape])
        assert module(shape, pixels, widths)[0] == pytest.approx(expected(pixels, widths), abs=1e-5)
        return "\n".join(told(caplog))

    assert "compiled 1 of 1 graphs (2x32)" in start()
    assert "compil" not in start()
    (package,) = tmp_path.glob("*/2x32.bin")
    package.write_bytes(package.read_bytes()[:-10])
    assert "compiled 1 of 1 graphs (2x32)" in start()


def test_a_package_that_cannot_be_loaded_is_made_again_and_then_done_without(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    from gpu_nets import shape_of
    from sluiceway_runtime.gpu import builder
    from sluiceway_runtime.gpu.artefacts import Artefacts

    shape = shape_of(2)
    built = []

    def no_machine_code(recipe: object, device: str, wanted: list, told) -> None:
        for one, path in wanted:
            built.append(one)
            path.write_bytes(b"no package")
            told(one, "")

    monkeypatch.setattr(builder, "build", no_machine_code)
    module = open_module(tmp_path)
    module.prepare([shape], [shape])
    assert built == [shape, shape]
    assert "cannot be used and is made again" in caplog.text
    assert "cannot be used and is done without" in caplog.text
    assert isinstance(module._artefacts, Artefacts)
    assert module._artefacts.find(shape) is None
    pixels, widths = batch_of(2, 0)
    assert module(shape, pixels, widths)[0] == pytest.approx(expected(pixels, widths), abs=1e-6)


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("draft", "nothing is compiled ([Errno 28] No space left on device)"),
        ("keep", "1 of 2 graphs could not be compiled"),
        ("building", "nothing is compiled ([Errno 28] No space left on device)"),
    ],
)
def test_a_disk_that_is_full_costs_speed_and_nothing_else(
    tmp_path: Path, monkeypatch, caplog, fails: str, message: str
) -> None:
    from gpu_nets import shape_of
    from sluiceway_runtime.gpu import artefacts, builder, compiler

    def build(_recipe: object, _device: str, wanted: list, told) -> None:
        for shape, path in wanted:
            path.write_bytes(b"package")
            told(shape, "")

    keep = artefacts.Artefacts.keep

    def full(made: artefacts.Artefacts, *arguments) -> Path:
        if fails == "keep" and arguments[0] == shapes[0]:
            return keep(made, *arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shapes = [shape_of(2), shape_of(1)]
    monkeypatch.setattr(builder, "build", build)
    monkeypatch.setattr(compiler, "load", lambda path, module, shape, device: module)
    monkeypatch.setattr(artefacts.Artefacts, fails, full)
    module = open_module(tmp_path)
    assert module.prepare(shapes, shapes) == tuple(shapes)
    assert message in caplog.text
    assert "No space left on device" in caplog.text
    pixels, widths = batch_of(2, 0)
    assert module(shapes[0], pixels, widths)[0] == pytest.approx(expected(pixels, widths), abs=1e-6)


def test_an_artefact_of_another_graph_is_told_and_does_no_harm(tmp_path: Path, caplog) -> None:
    import torch
    from gpu_nets import make, shape_of
    from sluiceway_runtime.gpu import compiler
    from torch._inductor.utils import fresh_cache

    device, pixels_and_widths = torch.device("cpu"), batch_of(3, 0)
    with torch.inference_mode(), fresh_cache():
        module = make(device)(shape_of(2))
        compiler.compile_to(tmp_path / "of-two.bin", module, shape_of(2), device)
        compiled = compiler.load(tmp_path / "of-two.bin", module, shape_of(3), device)
        assert told(caplog, logging.WARNING) == [
            "of-two.bin is of no use to this process, which compiled the graph by itself"
        ]
        values, _ = compiled(*map(torch.from_numpy, pixels_and_widths))
    assert values.numpy() == pytest.approx(expected(*pixels_and_widths), abs=1e-5)


def test_what_cannot_be_compiled_is_told_once_and_computed_as_it_is(tmp_path: Path, caplog) -> None:
    from gpu_nets import shape_of

    shapes = [shape_of(1), shape_of(2)]
    module = open_module(tmp_path, wrap="sync")
    assert module.prepare(shapes, shapes) == tuple(shapes)
    (warning,) = told(caplog, logging.WARNING)
    assert warning.startswith(
        "tiny: 2 of 2 graphs could not be compiled and compute at about half the speed; the first"
    )
    pixels, widths = batch_of(2, 0)
    assert module(shapes[1], pixels, widths)[0] == pytest.approx(expected(pixels, widths), abs=1e-6)


def test_without_a_compiler_there_is_one_plain_warning(tmp_path: Path, monkeypatch, caplog) -> None:
    from gpu_nets import shape_of

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    module = open_module(tmp_path)
    module.prepare([shape_of(1)], [shape_of(1)])
    assert told(caplog, logging.WARNING) == [
        "tiny: nothing is compiled, as there is no C compiler; it computes at about half the speed"
    ]


def test_a_builder_ends_with_whoever_started_it() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sluiceway_runtime.gpu.builder_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0
    assert process.stdout is not None
    process.stdout.close()


def test_a_builder_that_dies_fails_its_own_graph(tmp_path: Path, monkeypatch) -> None:
    from gpu_nets import recipe, shape_of
    from sluiceway_runtime.gpu import builder

    monkeypatch.setattr(builder, "_cores", lambda: 4)
    told: dict[str, str] = {}
    wanted = [(shape_of(1), tmp_path / "1.bin"), (shape_of(2), tmp_path / "2.bin")]
    builder.build(recipe(wrap="die"), "cpu", wanted, lambda shape, fault: told.update({shape.name: fault}))
    assert told == {"1x32": "the builder ended with code 9", "2x32": "the builder ended with code 9"}


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("no such program", "no builder can be started: [Errno 2] No such file or directory"),
        ("/bin/sh -c 'read job; printf \"{\"; kill -9 $$'", "the builder ended with code -9"),
    ],
)
def test_a_builder_that_cannot_start_or_is_killed_is_told_of_each_graph(
    tmp_path: Path, monkeypatch, program: str, fault: str
) -> None:
    from gpu_nets import recipe, shape_of
    from sluiceway_runtime.gpu import builder

    start = subprocess.Popen
    monkeypatch.setattr(builder.subprocess, "Popen", lambda _command, **options: start(shlex.split(program), **options))
    told: dict[str, str] = {}
    wanted = [(shape_of(number), tmp_path / f"{number}.bin") for number in (1, 2)]
    builder.build(recipe(), "cpu", wanted, lambda shape, fault: told.update({shape.name: fault}))
    assert {name: text.partition(": 'no")[0] for name, text in told.items()} == {"1x32": fault, "2x32": fault}


def test_a_fault_is_told_with_its_cause() -> None:
    from sluiceway_runtime.gpu.builder_process import _in_a_line

    trace = (
        "An exception occurred in a subprocess:\n\nTraceback (most recent call last):\n"
        "  File \"k.py\", line 3\nNameError: name 'Any' is not defined\n"
    )
    assert _in_a_line(RuntimeError(trace)) == (
        "RuntimeError: An exception occurred in a subprocess: NameError: name 'Any' is not defined"
    )
    assert _in_a_line(ValueError("too wide\nfor this device")) == "ValueError: too wide"
    assert _in_a_line(ValueError()) == "ValueError: no message"


class Faulty:
    """Stands in for the device's `transfer`: the runs that are named fail, when they are launched or waited for."""

    def __init__(self, module, *, launching: tuple[int, ...] = (), waiting: tuple[int, ...] = ()) -> None:
        self._transfer, self._launching, self._waiting = module._device.transfer, launching, waiting
        self.number = -1

    def __call__(self, *steps):
        self.number += 1
        if self.number in self._launching:
            raise RuntimeError(f"launch {self.number} failed")
        wait = self._transfer(*steps)
        if self.number in self._waiting:
            number = self.number

            def failing() -> None:
                raise RuntimeError(f"wait {number} failed")

            return failing
        return wait


def launched(module, seed: int):
    from gpu_nets import shape_of

    run = module.begin(shape_of(1))
    run.inputs[0][...], run.inputs[1][...] = batch_of(1, seed)
    run.launch()
    return run


def test_a_fault_that_the_device_survives_costs_its_batch_alone_and_no_buffers(tmp_path: Path, monkeypatch) -> None:
    from gpu_nets import shape_of

    module = open_module(tmp_path)
    module.prepare([shape_of(1)])
    monkeypatch.setattr(module._device, "transfer", Faulty(module, launching=(1,), waiting=(0, 3)))
    failed = launched(module, 0)
    with pytest.raises(RuntimeError, match="launch 1 failed"):
        launched(module, 1)
    # More batches than there are buffers: the failed ones are waited for to make room, and tell it to nobody else.
    runs = [launched(module, number) for number in range(2, 7)]
    for number, run in enumerate(runs, start=2):
        if number == 3:
            for _ in range(2):
                with pytest.raises(RuntimeError, match="wait 3 failed"):
                    run.result()
        else:
            assert run.result()[0] == pytest.approx(expected(*batch_of(1, number)), abs=1e-6)
    with pytest.raises(RuntimeError, match="wait 0 failed"):
        failed.result()
    assert (len(module._ring._free), len(module._ring._on_their_way)) == (2, 0)


@pytest.mark.parametrize("fails", ["launching", "waiting"])
def test_a_device_that_is_lost_ends_the_worker(tmp_path: Path, monkeypatch, fails: str) -> None:
    """After some faults CUDA answers nothing but errors to the process: each further batch would fail, too."""
    from gpu_nets import shape_of
    from sluiceway_runtime.gpu.device import CpuDevice
    from sluiceway_runtime.pool.handler import WorkerBroken

    module = open_module(tmp_path)
    module.prepare([shape_of(1)])
    monkeypatch.setattr(module._device, "transfer", Faulty(module, **{fails: (0,)}))
    monkeypatch.setattr(CpuDevice, "is_lost", lambda self: True, raising=False)
    with pytest.raises(WorkerBroken, match=r"tiny: cpu fails: (launch|wait) 0 failed"):
        launched(module, 0).result()


def test_memory_that_runs_out_is_no_loss_of_the_device(tmp_path: Path, monkeypatch) -> None:
    import torch
    from gpu_nets import shape_of
    from sluiceway_runtime.gpu.device import CpuDevice

    def full(*_steps):
        raise torch.OutOfMemoryError("CUDA out of memory")

    module = open_module(tmp_path)
    module.prepare([shape_of(1)])
    monkeypatch.setattr(module._device, "transfer", full)
    monkeypatch.setattr(CpuDevice, "is_lost", lambda self: pytest.fail("asked"), raising=False)
    with pytest.raises(torch.OutOfMemoryError):
        launched(module, 0)
