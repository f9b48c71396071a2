"""torch, on a GPU or on the CPU: the built-in text recognisers as native modules.

Eager for now: one launch per operation. What a batch is made of does not change what is computed for a crop, but
kernels chosen by batch size may round differently in the last place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sluiceway_runtime import weights
from sluiceway_runtime.errors import StartupError

from sluiceway_recognition.nets import store
from sluiceway_recognition.plan import ModelPlan
from sluiceway_recognition.types import Head

__all__ = ["TorchBackend"]

_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class TorchBackend:
    """A text recogniser in torch; see `Backend`.

    Args:
        plan: text; its weights are ONNX (converted once into the cache) or safetensors made by `nets.store`.
        device: `cpu`, `cuda:0` and so on.
        threads: on a CPU.

    Raises:
        StartupError: weights that are none of the networks known here, or a device that is not there.
    """

    name: Literal["openvino", "torch"] = "torch"

    def __init__(self, plan: ModelPlan, device: str, threads: int) -> None:
        assert plan.weights is not None
        if plan.head is not Head.TEXT:
            raise StartupError(
                f"recognition.models.{plan.name}: torch computes the built-in text recognisers; "
                "bring a classifier or embedding on a GPU as a class of your own (`recognizer`)"
            )
        self.device = device
        self.precision: str = plan.precision or ("f16" if device.startswith("cuda") else "f32")
        self._device = torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        self._dtype = _DTYPES[self.precision]
        self._height = plan.crop_spec.height
        if self._on_gpu and not torch.cuda.is_available():
            raise StartupError(f"device {device}: torch finds no CUDA device it can use")
        if not self._on_gpu:
            torch.set_num_threads(threads)
        if plan.weights.suffix == ".safetensors":
            _, net, metadata = store.load(plan.weights)
        else:
            cached = weights.cache_folder() / "torch" / f"{plan.weights_sha256}.safetensors"
            _, net, metadata = store.convert(plan.weights, cached)
        self.metadata: Mapping[str, str] = metadata
        self.output_size = net.classes
        self._net = net.to(self._device, self._dtype)
        self._mean = self._per_channel(plan.normalisation.mean)
        self._scale = self._per_channel(tuple(1 / value for value in plan.normalisation.std))

    def warm(self, widths: Sequence[int]) -> None:
        """Compute each width once, so that libraries are loaded and memory is taken."""
        for width in widths:
            self.infer([np.zeros((self._height, width, 3), dtype=np.uint8)], width)

    def infer(self, crops: Sequence[NDArray[np.uint8]], width: int) -> list[tuple[NDArray[Any], ...]]:
        """Compute crops that share a bucket; see `Backend.infer`. A batch too large for the GPU's memory is halved."""
        try:
            return self._infer(crops, width)
        except torch.OutOfMemoryError:
            if len(crops) == 1:
                raise
        # Outside the handler above: while an exception lives, it holds on to the tensors of its frames.
        torch.cuda.empty_cache()
        middle = len(crops) // 2
        return [*self.infer(crops[:middle], width), *self.infer(crops[middle:], width)]

    def _infer(self, crops: Sequence[NDArray[np.uint8]], width: int) -> list[tuple[NDArray[Any], ...]]:
        shape = (len(crops), self._height, width, 3)
        host = torch.zeros(shape, dtype=torch.uint8, pin_memory=self._on_gpu)
        pixels = host.numpy()
        for row, crop in enumerate(crops):
            pixels[row, :, : crop.shape[1]] = crop
        widths = torch.tensor([crop.shape[1] for crop in crops], pin_memory=self._on_gpu)
        with torch.inference_mode():
            indices, confidences = self._compute(
                host.to(self._device, non_blocking=True), widths.to(self._device, non_blocking=True)
            )
            results = indices.int().cpu().numpy(), confidences.cpu().numpy()
        return list(zip(*results, strict=True))

    def _compute(self, pixels: torch.Tensor, widths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        columns = torch.arange(pixels.shape[2], device=self._device)
        inside = (columns < widths[:, None])[:, None, None, :].to(torch.float32)
        # In 32 bits up to here, so that the padding is exactly zero and the pixels are rounded once.
        normalised = (pixels.permute(0, 3, 1, 2).to(torch.float32) - self._mean * inside) * self._scale
        logits = self._net(normalised.to(self._dtype)).float()
        # The greatest probability without writing all of them: exp(max) / sum(exp).
        best, indices = logits.max(dim=-1)
        return indices, torch.exp(best - torch.logsumexp(logits, dim=-1))

    def _per_channel(self, values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device).view(1, 3, 1, 1)
