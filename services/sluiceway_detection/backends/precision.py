"""Which arithmetic a CPU is fast in, found by trying, and whether it still gives the model's answers.

An instruction set alone does not tell: a virtual machine may offer AVX512-BF16 without AMX, and bf16 is then slower
than f32. So both are timed on one image, and bf16 has to agree with f32 on it. This runs once, before the workers
start, in a process of its own (`python -m sluiceway_detection.backends.precision`), because compiled models that are
thrown away leave their memory behind, and because all workers must compute alike.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
from sluiceway_runtime.errors import StartupError

from sluiceway_detection.backends.agreement import raw_answers_differ, reference_image
from sluiceway_detection.backends.base import BackendSpec, Precision
from sluiceway_detection.backends.opening import open_backend
from sluiceway_detection.models.card import ModelCard
from sluiceway_detection.models.thresholds import Thresholds
from sluiceway_detection.selection import Output

__all__ = ["Choice", "choose_precision", "command", "cpu_has_bf16", "is_quantised", "settled"]

CPU_INFO = Path("/proc/cpuinfo")
_RUNS = 2
# bf16 gives up digits, so it has to pay: at least a tenth faster.
_LEAST_GAIN = 1.1


@dataclass(frozen=True, slots=True)
class Choice:
    """The arithmetic to use and, for operators, why."""

    precision: Precision
    reason: str


class _Trial(NamedTuple):
    """What came of one image: the CPU time, the best of a few runs, and the network's raw output.

    CPU time does not hang on what else computes meanwhile, as other servers do that start.
    """

    milliseconds: float
    output: Output
    card: ModelCard


def cpu_has_bf16(flags: str | None = None) -> bool:
    """Whether the CPU multiplies bf16 in hardware (AMX or AVX512-BF16).

    Args:
        flags: the flags of /proc/cpuinfo, by default this machine's.
    """
    if flags is None:
        try:
            lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        flags = next((line for line in lines if line.startswith("flags")), "")
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags.split())


def is_quantised(weights: Path) -> bool:
    """Whether an ONNX file holds int8 weights, as `sluiceway models calibrate` writes them."""
    # Names of operators stand in the file as they are.
    return weights.suffix == ".onnx" and b"DequantizeLinear" in weights.read_bytes()


def settled(spec: BackendSpec) -> Choice | None:
    """The choice where nothing has to be tried: the arithmetic is given, or there is only one; None where there is."""
    if spec.precision not in (None, "bf16"):
        return Choice(spec.precision, "configured")
    if spec.precision is None and is_quantised(spec.weights):
        return Choice("int8", "the weights are quantised")
    if spec.precision is None and not cpu_has_bf16():
        return Choice("f32", "this CPU has no bf16 arithmetic")
    return None


def choose_precision(spec: BackendSpec) -> Choice:
    """Decide between f32 and bf16 for OpenVINO on this CPU.

    Args:
        spec: the model. `precision` None leaves the choice open; "bf16" is only checked.

    Raises:
        StartupError: bf16 was asked for and its answers differ from those in f32; or the model cannot be loaded.
    """
    if choice := settled(spec):
        return choice
    f32, bf16 = (_try(replace(spec, precision=precision)) for precision in ("f32", "bf16"))
    fault = raw_answers_differ(f32.output, bf16.output, f32.card)
    times = f"bf16 {bf16.milliseconds:.0f} ms, f32 {f32.milliseconds:.0f} ms per image"
    if spec.precision == "bf16":
        if fault:
            raise StartupError(f"detection.precision: bf16 does not give this model's answers: {fault}; use f32")
        return Choice("bf16", f"configured, checked against f32 ({times})")
    if fault:
        return Choice("f32", f"bf16 does not give this model's answers: {fault}")
    if bf16.milliseconds * _LEAST_GAIN > f32.milliseconds:
        return Choice("f32", f"bf16 gains nothing on this CPU ({times})")
    return Choice("bf16", f"faster, and checked against f32 ({times})")


def _try(spec: BackendSpec) -> _Trial:
    backend = open_backend("openvino", replace(spec, trial=True))
    image, best_s = reference_image(backend.inputs.shapes[0]), float("inf")
    for _ in range(_RUNS):
        begun_s = time.process_time()
        (output,) = backend.infer([image])
        best_s = min(best_s, time.process_time() - begun_s)
    copied = tuple(part.copy() for part in output) if isinstance(output, tuple) else output.copy()
    return _Trial(best_s * 1000, copied, backend.card)


def command(spec: BackendSpec, cores: tuple[int, ...] | None) -> list[str]:
    """How to run `choose_precision` in a process of its own, on these cores."""
    values = {**asdict(spec), "weights": str(spec.weights), "cores": cores}
    return [sys.executable, "-m", "sluiceway_detection.backends.precision", json.dumps(values)]


def main(arguments: Sequence[str]) -> int:
    """Read a spec as JSON from the only argument, print the choice as JSON; faults go to stderr, exit code 1."""
    values = json.loads(arguments[0])
    if cores := values.pop("cores", None):
        os.sched_setaffinity(0, cores)
    cv2.setNumThreads(values["threads"])
    shapes = tuple((int(height), int(width)) for height, width in values.pop("shapes"))
    known = Thresholds.from_plain(values.pop("known"))
    spec = BackendSpec(weights=Path(values.pop("weights")), shapes=shapes, known=known, **values)
    try:
        choice = choose_precision(spec)
    except StartupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(choice)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
