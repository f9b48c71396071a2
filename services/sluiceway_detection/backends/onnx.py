"""ONNX Runtime: for CPUs and platforms where OpenVINO is not at home, and for CUDA with an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from sluiceway_runtime.errors import StartupError

from sluiceway_detection.backends.base import BackendName, BackendSpec, Precision, inputs_of
from sluiceway_detection.models.card import read_card
from sluiceway_detection.models.thresholds import PixelScale
from sluiceway_detection.selection import Output
from sluiceway_detection.types import ImageBgr

__all__ = ["OnnxBackend"]


class OnnxBackend:
    """One session for all shapes."""

    name: BackendName = "onnx"

    def __init__(self, spec: BackendSpec) -> None:
        if spec.precision not in (None, "f32"):
            raise StartupError(f"detection.precision: backend onnx computes in f32, not {spec.precision}")
        self.precision: Precision = "f32"
        options = ort.SessionOptions()
        options.intra_op_num_threads = spec.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # Waiting threads that spin take the core from a neighbour that has work: the collapse this project ends.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(spec.weights, options, providers=_providers(spec.device))
        except StartupError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise StartupError(f"{spec.weights.name} cannot be loaded: {str(error).splitlines()[0]}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise StartupError(f"{spec.weights.name}: has {len(inputs)} inputs; a detection model has one")
        self._input = inputs[0].name
        input_dims = _dims(inputs[0].shape)
        self.card = read_card(
            self._session.get_modelmeta().custom_metadata_map,
            input_dims,
            [_dims(output.shape) for output in self._session.get_outputs()],
            name=spec.weights.name,
            known=spec.known,
            output_names=[output.name for output in self._session.get_outputs()],
        )
        self._blobs = _blobs_of(self.card.pixels)
        self._largest_batch = input_dims[0]
        self.inputs = inputs_of(self.card, spec, any_shape=True)
        for shape in self.inputs.shapes:
            self.infer([np.zeros((*shape, 3), np.uint8)])

    def infer(self, images_bgr: list[ImageBgr]) -> list[Output]:
        """As large a batch as the model was exported for."""
        step = self._largest_batch or len(images_bgr)
        outputs: list[Output] = []
        for start in range(0, len(images_bgr), step):
            part = images_bgr[start : start + step]
            filled = part + part[-1:] * (step - len(part))  # a fixed batch has to be full
            results = self._session.run(None, {self._input: self._blobs(filled)})
            if len(results) == 1:
                outputs.extend(results[0][: len(part)])
            else:
                outputs.extend(tuple(result[row] for result in results) for row in range(len(part)))
        return outputs


def _blobs_of(pixels: PixelScale) -> Callable[[list[ImageBgr]], npt.NDArray[np.float32]]:
    """What makes [N, 3, H, W] of images."""
    # In the order of the channels that come out.
    scale = tuple(1 / value for value in pixels.std)
    parameters = cv2.dnn.Image2BlobParams(scalefactor=scale, mean=pixels.mean, swapRB=pixels.rgb)

    def blobs(images_bgr: list[ImageBgr]) -> npt.NDArray[np.float32]:
        return np.asarray(cv2.dnn.blobFromImagesWithParams(images_bgr, parameters), np.float32)

    return blobs


def _providers(device: str) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise StartupError("detection.device: this ONNX Runtime has no CUDA; install onnxruntime-gpu or use a CPU")
    _, _, number = device.partition(":")
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]


def _dims(shape: list[int | str | None]) -> list[int | None]:
    return [dim if isinstance(dim, int) else None for dim in shape]
