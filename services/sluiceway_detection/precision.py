"""Which arithmetic a CPU is fast in, found by trying, and whether it still gives the model's answers.

An instruction set alone does not tell: a virtual machine may offer AVX512-BF16 without AMX, and bf16 is then slower
than f32. So both are timed on one image, and bf16 has to agree with f32 on it. This runs once, before the workers
start, in a process of its own (`python -m sluiceway_detection.precision`), because compiled models that are thrown away
leave their memory behind, and because all workers must compute alike.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from sluiceway_runtime.errors import StartupError

from sluiceway_detection.backends import Backend, BackendSpec, open_backend
from sluiceway_detection.backends.base import Precision
from sluiceway_detection.input_shapes import InputShape
from sluiceway_detection.types import ImageBgr

__all__ = [
    "Choice",
    "choose_precision",
    "command",
    "cpu_has_bf16",
    "difference",
    "is_quantised",
    "overlap",
    "reference_image",
]

CPU_INFO = Path("/proc/cpuinfo")
_RUNS = 2
QUANTISED = "the weights are quantised"
# bf16 gives up digits, so it has to pay: at least a tenth faster.
_LEAST_GAIN = 1.1
# FACTS of the trade: bf16 boxes match f32 boxes at an overlap above 0.8 in 99% or more. Fewer than 95% of the strongest
# places of one picture means that the model does not bear bf16.
_LEAST_IOU, _LEAST_AGREEING, _STRONGEST = 0.8, 0.95, 100
_LARGEST_SHIFT = 0.1  # of a confidence


@dataclass(frozen=True, slots=True)
class Choice:
    """The arithmetic to use and, for operators, why."""

    precision: Precision
    reason: str


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


def choose_precision(spec: BackendSpec) -> Choice:
    """Decide between f32 and bf16 for OpenVINO on this CPU.

    Args:
        spec: the model. `precision` None leaves the choice open; "bf16" is only checked.

    Raises:
        StartupError: bf16 was asked for and its answers differ from those in f32; or the model cannot be loaded.
    """
    wanted = spec.precision
    if wanted not in (None, "bf16"):
        return Choice(wanted, "configured")
    if wanted is None and is_quantised(spec.weights):
        return Choice("int8", QUANTISED)
    if wanted is None and not cpu_has_bf16():
        return Choice("f32", "this CPU has no bf16 arithmetic")
    f32_ms, expected = _try(replace(spec, precision="f32"))
    bf16_ms, found = _try(replace(spec, precision="bf16"))
    fault = difference(expected, found)
    times = f"bf16 {bf16_ms:.0f} ms, f32 {f32_ms:.0f} ms per image"
    if wanted == "bf16":
        if fault:
            raise StartupError(f"detection.precision: bf16 does not give this model's answers: {fault}; use f32")
        return Choice("bf16", f"configured, checked against f32 ({times})")
    if fault:
        return Choice("f32", f"bf16 does not give this model's answers: {fault}")
    if bf16_ms * _LEAST_GAIN > f32_ms:
        return Choice("f32", f"bf16 gains nothing on this CPU ({times})")
    return Choice("bf16", f"faster, and checked against f32 ({times})")


def reference_image(shape: InputShape) -> ImageBgr:
    """A drawn page with a picture: lines of text, frames, and a face of circles; the same on every machine."""
    height, width = shape
    image = np.full((height, width, 3), 235, np.uint8)
    step = max(height // 16, 12)
    scale = step / 40
    for row in range(step, height * 2 // 3, step):
        text = f"Line {row}: lock 14 lets the water down, {row * 7} litres"
        cv2.putText(image, text, (width // 20, row), cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 30), 1, cv2.LINE_AA)
    top, left = height * 2 // 3, width // 20
    across = np.linspace(40, 220, width - 2 * left).astype(np.uint8)
    image[top : height - height // 20, left : width - left] = across[None, :, None]
    centre, radius = (width // 2, (top + height) // 2), max(height // 10, 8)
    cv2.circle(image, centre, radius, (90, 130, 200), -1, cv2.LINE_AA)
    for side in (-1, 1):
        eye = (centre[0] + side * radius // 3, centre[1] - radius // 4)
        cv2.circle(image, eye, max(radius // 8, 2), (20, 20, 20), -1, cv2.LINE_AA)
    return image


def _try(spec: BackendSpec) -> tuple[float, npt.NDArray[np.floating]]:
    """Milliseconds for one image, the best of a few runs, and the raw output."""
    backend = open_backend("openvino", replace(spec, trial=True))
    return _time(backend, reference_image(backend.shapes[0]))


def _time(backend: Backend, image: ImageBgr) -> tuple[float, npt.NDArray[np.floating]]:
    best_s = float("inf")
    for _ in range(_RUNS):
        begun_s = time.perf_counter()
        (output,) = backend.infer([image])
        best_s = min(best_s, time.perf_counter() - begun_s)
    output = output.copy()
    return best_s * 1000, output if not backend.card.end_to_end else _as_classic(output)


def _as_classic(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Rows of an NMS-free head as [4 + 1, places], boxes as centre and size."""
    corners = rows[:, :4]
    middle = (corners[:, :2] + corners[:, 2:]) / 2
    return np.concatenate((middle, corners[:, 2:] - corners[:, :2], rows[:, 4:5]), axis=1).T


def difference(expected: npt.NDArray[np.floating], found: npt.NDArray[np.floating]) -> str | None:
    """What is wrong with `found`, both [4 + classes, places]; None if nothing is."""
    if not np.isfinite(found).all():
        return "it gives numbers that are not finite"
    scores = expected[4:].max(axis=0)
    strongest = np.argsort(-scores)[:_STRONGEST]
    shift = float(np.abs(expected[4:, strongest] - found[4:, strongest]).max())
    if shift > _LARGEST_SHIFT:
        return f"a confidence differs by {shift:.2f}"
    # Weak places are noise in any arithmetic; only what could become a region is compared.
    places = strongest[scores[strongest] > _LARGEST_SHIFT]
    agreeing = overlap(expected[:4, places], found[:4, places]) > _LEAST_IOU
    if len(places) and agreeing.mean() < _LEAST_AGREEING:
        return f"only {agreeing.mean():.0%} of the boxes stay where they are"
    return None


def overlap(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Intersection over union of boxes given as centre and size, [4, N] each."""
    lower = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    upper = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    common = np.prod(np.maximum(upper - lower, 0), axis=0)
    return np.asarray(common / np.maximum(np.prod(a[2:], axis=0) + np.prod(b[2:], axis=0) - common, 1e-9))


def command(spec: BackendSpec, cores: tuple[int, ...] | None) -> list[str]:
    """How to run `choose_precision` in a process of its own, on these cores."""
    values = {**asdict(spec), "weights": str(spec.weights), "cores": cores}
    return [sys.executable, "-m", "sluiceway_detection.precision", json.dumps(values)]


def main(arguments: Sequence[str]) -> int:
    """Read a spec as JSON from the only argument, print the choice as JSON; faults go to stderr, exit code 1."""
    values = json.loads(arguments[0])
    if cores := values.pop("cores", None):
        os.sched_setaffinity(0, cores)
    cv2.setNumThreads(values["threads"])
    shapes = tuple((int(height), int(width)) for height, width in values.pop("shapes"))
    spec = BackendSpec(weights=Path(values.pop("weights")), shapes=shapes, **values)
    try:
        choice = choose_precision(spec)
    except StartupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(choice)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
