"""The interface of a backend, and the choice of one."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from sluiceway_runtime.errors import StartupError

from sluiceway.installation import install_command
from sluiceway_detection.inputs.shapes import STRIDE, Inputs, InputShape, default_shapes
from sluiceway_detection.models.card import ModelCard
from sluiceway_detection.models.thresholds import NONE_KNOWN, Thresholds
from sluiceway_detection.selection import Output
from sluiceway_detection.types import ImageBgr

__all__ = [
    "Backend",
    "BackendName",
    "BackendSpec",
    "Precision",
    "export_command",
    "inputs_of",
    "require_fine_boxes",
    "require_trust",
    "resolve_backend",
]

BackendName = Literal["openvino", "onnx", "torch"]
Precision = Literal["f32", "bf16", "f16", "int8"]


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """What to open.

    Attributes:
        weights: an ONNX file, or a checkpoint where `allow_checkpoint` is set.
        device: `cpu` or `cuda:N`.
        threads: compute threads.
        precision: None lets the backend take what the hardware is fast in and what passes the check against f32.
        image_size_px: longer side of the default shapes; None takes the model's own.
        shapes: inputs to compile, instead of the default ones.
        allow_checkpoint: the operator has allowed this very checkpoint, whose loading can run code, by name.
        trial: compile one shape alone, and a small one where the model has a choice: enough to compare arithmetics.
        known: what is known of its thresholds beside the file.
    """

    weights: Path
    device: str
    threads: int
    precision: Precision | None = None
    image_size_px: int | None = None
    shapes: tuple[InputShape, ...] = ()
    allow_checkpoint: bool = False
    trial: bool = False
    known: Thresholds = NONE_KNOWN


class Backend(Protocol):
    """A loaded model. Used by one thread."""

    name: BackendName
    precision: Precision
    card: ModelCard
    inputs: Inputs

    def infer(self, images_bgr: list[ImageBgr]) -> list[Output]:
        """Run letterboxed images, uint8 [H, W, 3], all of one of the shapes of `inputs`.

        Returns:
            The network's raw output for each image, without the batch dimension. Valid until the next call.
        """
        ...


def require_trust(weights: Path, *, allowed: bool) -> None:
    """Refuse a checkpoint that the operator has not named, before anything looks into it.

    Raises:
        StartupError: it is one, and not allowed.
    """
    if weights.suffix == ".pt" and not allowed:
        raise StartupError(
            f"{weights.name} is a checkpoint, and loading one can run code that is hidden in it. "
            f'If you trust it, name it: detection.allow_pickle = ["{weights.name}"]'
        )


def export_command(weights: Path) -> str:
    """How to make ONNX of a checkpoint."""
    return f"python -m sluiceway_detection.export {weights.name} {weights.stem}.onnx"


def require_fine_boxes(weights: Path, precision: Precision | None) -> None:
    """Refuse 16 bits for a checkpoint. Its own module decodes boxes in the arithmetic of all the rest.

    In bf16 coordinates of hundreds of pixels lie 2 to 4 pixels apart, in f16 up to 1. Of an ONNX file only the matrix
    products are in 16 bits (`sluiceway_runtime.onnx_torch.in_precision`).

    Raises:
        StartupError: it is one, and 16 bits are wanted.
    """
    if weights.suffix == ".pt" and precision in ("bf16", "f16"):
        raise StartupError(
            f"detection.precision: a checkpoint would round its boxes to whole pixels in {precision}; use f32, or "
            f"convert it once with {export_command(weights)}"
        )


def resolve_backend(wanted: str, weights: Path, device: str) -> BackendName:
    """Turn `auto` into a name.

    Raises:
        StartupError: weights, backend and device do not fit together, or a library is missing.
    """
    checkpoint = weights.suffix == ".pt"
    if wanted == "auto":
        wanted = "openvino" if device == "cpu" and not checkpoint else "torch"
    if checkpoint and wanted != "torch":
        raise StartupError(
            f"detection.backend: {wanted} reads ONNX, and {weights.name} is a PyTorch checkpoint. Convert it once with "
            f"{export_command(weights)}"
        )
    if wanted == "openvino" and device != "cpu":
        raise StartupError("detection.backend: openvino computes on the CPU here; use onnx or torch for CUDA")
    libraries, extra = {
        "openvino": (("openvino",), "detection"),
        "onnx": (("onnxruntime",), "onnx"),
        "torch": (("torch", "ultralytics"), "export") if checkpoint else (("torch", "onnx"), "gpu"),
    }[wanted]
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise StartupError(f"detection.backend: {wanted} needs {library}: {install_command(extra)}")
    return wanted  # type: ignore[return-value]  # one of the three keys above


def inputs_of(card: ModelCard, spec: BackendSpec, *, any_shape: bool = False) -> Inputs:
    """The inputs to serve, the first being that of the default image size.

    Args:
        card: of the model.
        spec: what is to be opened.
        any_shape: whether the backend computes shapes that it did not know before. A DB model, which shows images at
            their own size, is then shown each as it is, unless the operator lists shapes.

    Raises:
        StartupError: a shape that the model cannot take.
    """
    fixed = bool(spec.shapes) or card.fixed_shape or spec.trial
    free = any_shape and card.map_reading is not None and not fixed
    shapes = _usual(card, spec) if free else _listed(card, spec)
    return Inputs(shapes, card.map_reading is None, free, card.stretches)


def _usual(card: ModelCard, spec: BackendSpec) -> tuple[InputShape, ...]:
    """A page that stands, as large as images are shown."""
    longest = spec.image_size_px or max(card.native_shape)
    return ((longest, -(-longest * 3 // 4 // STRIDE) * STRIDE),)


def _listed(card: ModelCard, spec: BackendSpec) -> tuple[InputShape, ...]:
    name = spec.weights.name
    if card.fixed_shape:
        wanted = set(spec.shapes) or ({(spec.image_size_px,) * 2} if spec.image_size_px else {card.native_shape})
        # An image size means its longer side, so a fixed 480x640 model serves image_size 640.
        fits = wanted == {card.native_shape} or (not spec.shapes and spec.image_size_px == max(card.native_shape))
        if not fits:
            height, width = card.native_shape
            raise StartupError(
                f"{name} was exported for {height}x{width} alone; leave detection.image_size and detection.shapes out, "
                "or export it with dynamic shapes (python -m sluiceway_detection.export)"
            )
        return (card.native_shape,)
    size = spec.image_size_px or max(card.native_shape)
    # What fills its input whatever its aspect ratio was trained so in a square.
    shapes = spec.shapes or (((size, size),) if card.stretches else default_shapes(size))
    for height, width in shapes:
        if height % card.stride or width % card.stride:
            raise StartupError(f"detection.shapes: {height}x{width}: {name} needs multiples of {card.stride}")
    if spec.trial:
        height, width = shapes[0]
        return ((_half(height, card.stride), _half(width, card.stride)),)
    return tuple(dict.fromkeys(shapes))


def _half(side_px: int, stride: int) -> int:
    return -(-side_px // 2 // stride) * stride
