"""Which arithmetic a CPU reads fastest in, where its instruction sets alone do not tell.

With AMX it is bf16, without any bf16 f32. Between them lie CPUs with AVX512-BF16: some are twice as fast in bf16 (AMD
EPYC: 22 ms a line of 1920 columns in place of 40), and on a virtual machine that hides AMX f32 was faster. There both
are timed on drawn lines, once, before the workers start, as all of them must read alike; and in a process of its own
(`python -m sluiceway_recognition.backends.precision`), as graphs that are thrown away leave their memory behind.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from sluiceway_runtime import cores
from sluiceway_runtime.errors import StartupError

from sluiceway_recognition.backends.agreement import TRIAL_WIDTH, outputs_differ, trial_crops
from sluiceway_recognition.backends.opening import library_of
from sluiceway_recognition.plan import ModelPlan, Normalisation, Precision
from sluiceway_recognition.types import CropSpec, Head, PixelFormat

__all__ = ["Choice", "choose", "command", "undecided"]

_RUNS = 3
# bf16 gives up digits, so it has to pay: at least a tenth faster.
_LEAST_GAIN = 1.1


class Choice(NamedTuple):
    """The arithmetic to use and, for operators, why."""

    precision: Precision
    reason: str


class _Trial(NamedTuple):
    """The least CPU time of a few runs, which does not hang on what else computes meanwhile, and the outputs."""

    milliseconds: float
    outputs: tuple[NDArray[Any], ...]


def undecided(plans: Iterable[ModelPlan], device: str, instructions: frozenset[str] | None = None) -> list[ModelPlan]:
    """The models whose arithmetic has to be tried.

    Args:
        plans: of all models.
        device: where they compute.
        instructions: of the CPU, see `cores.isa`; by default this machine's.
    """
    has = cores.isa() if instructions is None else instructions
    if device != "cpu" or "amx_bf16" in has or "avx512_bf16" not in has:
        return []
    return [
        plan
        for plan in plans
        if plan.user_class is None and plan.precision is None and library_of(plan, device) == "openvino"
    ]


def choose(plan: ModelPlan) -> Choice:
    """Decide between f32 and bf16 for a network on this CPU.

    Raises:
        StartupError: it cannot be loaded.
    """
    f32, bf16 = (_try(plan, precision) for precision in ("f32", "bf16"))
    times = f"bf16 {bf16.milliseconds:.1f} ms, f32 {f32.milliseconds:.1f} ms for a few crops"
    if fault := outputs_differ(plan.head, f32.outputs, bf16.outputs):
        return Choice("f32", f"bf16 does not give this model's answers: {fault}")
    if bf16.milliseconds * _LEAST_GAIN > f32.milliseconds:
        return Choice("f32", f"bf16 gains nothing on this CPU ({times})")
    return Choice("bf16", f"faster, and checked against f32 ({times})")


def _try(plan: ModelPlan, precision: Precision) -> _Trial:
    from sluiceway_recognition.backends.openvino import OpenVinoBackend  # noqa: PLC0415 - the front never loads it

    assert plan.weights is not None
    height = plan.crop_spec.height
    backend = OpenVinoBackend(
        plan.weights,
        head=plan.head,
        height=height,
        normalisation=plan.normalisation,
        pixel_format=plan.crop_spec.format,
        precision=precision,
        output=plan.output,
    )
    width = next((bucket for bucket in plan.buckets if bucket >= TRIAL_WIDTH), plan.buckets[-1])
    crops = trial_crops(height, width)
    # The first run compiles as well.
    outputs, least_s = backend.launch(crops, width)(), float("inf")
    for _ in range(_RUNS):
        begun_s = time.process_time()
        backend.launch(crops, width)()
        least_s = min(least_s, time.process_time() - begun_s)
    return _Trial(least_s * 1000, outputs)


def command(plans: Sequence[ModelPlan], on_cores: tuple[int, ...] | None) -> list[str]:
    """How to run `choose` for each of them in a process of its own, on these cores."""
    values = {"cores": on_cores, "plans": [_plain(plan) for plan in plans]}
    return [sys.executable, "-m", "sluiceway_recognition.backends.precision", json.dumps(values)]


def _plain(plan: ModelPlan) -> Mapping[str, Any]:
    """What a trial needs of a plan."""
    spec, normalisation = plan.crop_spec, plan.normalisation
    return {
        "name": plan.name,
        "weights": str(plan.weights),
        "head": plan.head.value,
        "spec": (spec.height, spec.max_width, spec.format.value),
        "buckets": plan.buckets,
        "normalisation": (normalisation.mean, normalisation.std, normalisation.black),
        "output": plan.output,
    }


def _plan_of(values: Mapping[str, Any]) -> ModelPlan:
    height, max_width, pixel_format = values["spec"]
    mean, std, black = values["normalisation"]
    return ModelPlan(
        values["name"],
        Head(values["head"]),
        CropSpec(height, max_width, PixelFormat(pixel_format)),
        tuple(values["buckets"]),
        Normalisation(tuple(mean), tuple(std), black),
        weights=Path(values["weights"]),
        output=values["output"],
    )


def main(arguments: Sequence[str]) -> int:
    """Read what `command` wrote, print the choices as JSON, in order; faults go to stderr, exit code 1."""
    values = json.loads(arguments[0])
    if on_cores := values["cores"]:
        os.sched_setaffinity(0, on_cores)
    try:
        choices = [choose(_plan_of(plan)) for plan in values["plans"]]
    except StartupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(choices))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
