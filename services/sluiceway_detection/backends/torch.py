"""PyTorch, for checkpoints that the operator allows by name: fp16 on CUDA, f32 (or bf16) on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sluiceway_runtime.errors import StartupError

from sluiceway_detection.backends.base import BackendName, BackendSpec, Precision, input_shapes, require_trust
from sluiceway_detection.export import load_checkpoint
from sluiceway_detection.model_card import ModelCard
from sluiceway_detection.types import ImageBgr

__all__ = ["TorchBackend"]

_DTYPES: dict[Precision, torch.dtype] = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class TorchBackend:
    """A checkpoint's own module, batched."""

    name: BackendName = "torch"

    def __init__(self, spec: BackendSpec) -> None:
        require_trust(spec.weights, allowed=spec.allow_checkpoint)
        self._device = torch.device(spec.device)
        self.precision: Precision = spec.precision or ("f16" if self._device.type == "cuda" else "f32")
        if self.precision not in _DTYPES or (self.precision == "f16" and self._device.type == "cpu"):
            raise StartupError(f"detection.precision: backend torch has no {self.precision} on {spec.device}")
        module = load_checkpoint(spec.weights)
        # After loading: ultralytics sets the number of threads by itself, over ours.
        torch.set_num_threads(spec.threads)
        self.card = _card(module)
        self.shapes = input_shapes(self.card, spec)
        self._dtype = _DTYPES[self.precision]
        self._module = module.to(self._device, self._dtype, memory_format=torch.channels_last)
        for shape in self.shapes:
            self.infer([np.zeros((*shape, 3), np.uint8)])
        if torch.get_num_threads() != spec.threads:
            raise StartupError(f"torch runs {torch.get_num_threads()} threads where {spec.threads} were asked for")

    def infer(self, images_bgr: list[ImageBgr]) -> list[npt.NDArray[np.floating]]:
        """One batch. Bytes travel to the device as they are and become numbers there."""
        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack(images_bgr)).to(self._device, non_blocking=True)
            batch = pixels.permute(0, 3, 1, 2).flip(1).to(self._dtype).div_(255)
            output = self._module(batch.contiguous(memory_format=torch.channels_last))
            if isinstance(output, tuple | list):  # (decoded, raw feature maps)
                output = output[0]
            return list(output.float().cpu().numpy())


def _card(module: Any) -> ModelCard:
    head = module.model[-1]
    classes = tuple(str(module.names[index]) for index in range(len(module.names)))
    size = int(getattr(module, "args", {}).get("imgsz", 640))
    return ModelCard(classes, int(max(module.stride)), bool(getattr(head, "end2end", False)), (size, size), False)
