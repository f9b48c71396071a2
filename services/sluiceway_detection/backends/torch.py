"""PyTorch on a CPU: for checkpoints that the operator allows by name, and for ONNX where nothing else reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sluiceway_runtime.errors import StartupError

from sluiceway_detection.backends.base import (
    BackendName,
    BackendSpec,
    Precision,
    inputs_of,
    require_fine_boxes,
    require_trust,
)
from sluiceway_detection.backends.places import DTYPES, checkpoint_card, load_onnx, read_model_card, scaled
from sluiceway_detection.export import load_checkpoint
from sluiceway_detection.inputs.shapes import InputShape
from sluiceway_detection.models.card import ModelCard
from sluiceway_detection.selection import Output
from sluiceway_detection.types import ImageBgr
from sluiceway_detection.yolo.heads import PLAIN

__all__ = ["TorchBackend"]


class TorchBackend:
    """A checkpoint's own module in f32, or one for each shape of an ONNX graph in f32 or bf16.

    Images are computed one after the other.
    """

    name: BackendName = "torch"

    def __init__(self, spec: BackendSpec) -> None:
        require_trust(spec.weights, allowed=spec.allow_checkpoint)
        self.precision: Precision = spec.precision or "f32"
        if self.precision not in ("f32", "bf16"):
            raise StartupError(f"detection.precision: backend torch has no {self.precision} on {spec.device}")
        require_fine_boxes(spec.weights, self.precision)
        self._dtype = DTYPES[self.precision]
        modules = self._open(spec)
        # After loading: ultralytics sets the number of threads by itself, over ours.
        torch.set_num_threads(spec.threads)
        self._modules = {shape: module.to(memory_format=torch.channels_last) for shape, module in modules.items()}
        for shape in self.inputs.shapes:
            self.infer([np.zeros((*shape, 3), np.uint8)])
        if torch.get_num_threads() != spec.threads:
            raise StartupError(f"torch runs {torch.get_num_threads()} threads where {spec.threads} were asked for")

    def infer(self, images_bgr: list[ImageBgr]) -> list[Output]:
        """One image after the other: on a CPU a batch gains nothing and holds back its first image."""
        return [self._infer(image) for image in images_bgr]

    def _open(self, spec: BackendSpec) -> dict[InputShape, Any]:
        if spec.weights.suffix == ".pt":
            module = load_checkpoint(spec.weights)
            self.card: ModelCard = checkpoint_card(module)
            self.inputs = inputs_of(self.card, spec)
            return dict.fromkeys(self.inputs.shapes, module)
        from sluiceway_runtime.onnx_torch import in_precision  # noqa: PLC0415 - checkpoints need no onnx

        self.card = read_model_card(spec.weights, allow_checkpoint=False, known=spec.known)
        self.inputs = inputs_of(self.card, spec)
        return {shape: in_precision(load_onnx(spec.weights, 1, shape), self._dtype) for shape in self.inputs.shapes}

    def _infer(self, image_bgr: ImageBgr) -> Output:
        with torch.inference_mode():
            batch = scaled(torch.from_numpy(image_bgr)[None], self.card.pixels, self._dtype)
            output = self._modules[image_bgr.shape[0], image_bgr.shape[1]](batch)
            if isinstance(output, tuple | list):
                if self.card.head != PLAIN:
                    return tuple(np.asarray(each[0].float().numpy()) for each in output)
                output = output[0]  # of a checkpoint: (decoded, raw feature maps)
            return np.asarray(output[0].float().numpy())
