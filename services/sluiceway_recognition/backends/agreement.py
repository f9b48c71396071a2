"""Whether a model gives in fewer digits what it gives in f32, tried before it serves; for networks of users.

The networks of the registry were measured on hundreds of lines. Of others nobody knows how they bear 16 bits.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import StartupError

from sluiceway_recognition.backends.base import Backend
from sluiceway_recognition.backends.batches import GraphSettings
from sluiceway_recognition.backends.opening import load_backend
from sluiceway_recognition.plan import ModelPlan
from sluiceway_recognition.types import Head

__all__ = ["TRIAL_WIDTH", "agreeing_backend", "outputs_differ", "trial_crops"]

log = logging.getLogger(__name__)

Outputs = tuple[NDArray[Any], ...]

# What was hardly sure in f32 is noise in any arithmetic.
_SURE = 0.5
# Of steps that were sure: so many have to have the same class. And of a probability, how far it may move.
_LEAST_SAME, _LARGEST_SHIFT = 0.95, 0.1
# Cosine of an embedding with itself in f32.
_LEAST_ALIKE = 0.99
# Columns of a line that is tried; what is wider takes longer and says no more.
TRIAL_WIDTH = 320


def agreeing_backend(
    plan: ModelPlan, backend: Backend, device: str, threads: int, graphs: GraphSettings | None = None
) -> Backend:
    """The backend itself where it computes as in f32, else one in f32.

    Args:
        plan: of a network of a user.
        backend: of it, as it was chosen.
        device: where it computes.
        threads: as for `load_backend`.
        graphs: likewise.

    Raises:
        StartupError: the precision was asked for by name, and does not give the model's answers.
    """
    if backend.precision == "f32":
        return backend
    width = next((bucket for bucket in plan.buckets if bucket >= TRIAL_WIDTH), plan.buckets[-1])
    crops = trial_crops(plan.crop_spec.height, width)
    fault = outputs_differ(plan.head, backend.alone("f32", crops), backend.alone(backend.precision, crops))
    if fault is None:
        return backend
    what = f"{backend.precision} does not give this model's answers: {fault}"
    if plan.precision is not None:
        raise StartupError(f"{plan.key}.precision: {what}; use f32")
    log.warning("%s computes in f32: %s", plan.key, what)
    return load_backend(replace(plan, precision="f32"), device, threads, graphs)


def trial_crops(height: int, width: int) -> list[NDArray[np.uint8]]:
    """Text, dark and light, a coloured ramp with a circle, and noise: four of uint8 [height, width, 3]."""
    line = np.full((height, width, 3), 235, np.uint8)
    at, scale = (height // 8, height * 3 // 4), height / 40
    cv2.putText(line, "Lock 14: 7.50 m", at, cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 30), 1, cv2.LINE_AA)
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.linspace(20, 230, width)[None]
    ramp[..., 2] = np.linspace(230, 20, height)[:, None]
    cv2.circle(ramp, (width // 2, height // 2), max(height // 3, 1), (90, 130, 200), -1, cv2.LINE_AA)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return [line, 255 - line, ramp, noise]


def outputs_differ(head: Head, expected: Outputs, found: Outputs) -> str | None:
    """What is wrong with the outputs for some crops, see `Backend.launch`; None if nothing is.

    Args:
        head: of the model.
        expected: in f32.
        found: otherwise.
    """
    if not all(np.isfinite(array).all() for array in found):
        return "it gives numbers that are not finite"
    if head is Head.EMBED:
        a, b = (array.astype(np.float64).reshape(len(array), -1) for array in (expected[0], found[0]))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        least = float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
        return f"an embedding keeps only {least:.3f} of its direction" if least < _LEAST_ALIKE else None
    if head is Head.CLASSIFY:
        shift = float(np.abs(expected[0] - found[0]).max())
        return f"a probability differs by {shift:.2f}" if shift > _LARGEST_SHIFT else None
    sure = expected[1] > _SURE
    if not sure.any():
        return None
    same = float((expected[0][sure] == found[0][sure]).mean())
    if same < _LEAST_SAME:
        return f"only {same:.0%} of the steps keep their class"
    shift = float(np.abs(expected[1][sure] - found[1][sure]).mean())
    return f"the confidence differs by {shift:.2f} in the mean" if shift > _LARGEST_SHIFT else None
