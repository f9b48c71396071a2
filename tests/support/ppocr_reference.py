"""What ONNX Runtime reads with the same weights. Nothing of it comes from the services."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import yaml
from sluiceway_runtime import weights

__all__ = ["BUCKETS", "Reference", "reference_of"]

# The widths that crops are padded to, written out a second time so that a change of the product is noticed.
BUCKETS = (64, 96, 128, 160, 192, 256, 320, 400, 512, 640, 800, 1024, 1280, 1600, 1920)


class Reference:
    """A PP-OCR recogniser run directly: normalise, pad with zeros, ONNX Runtime, best path."""

    def __init__(self, model: Path, config: Path | None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        if config is None:
            characters = self.session.get_modelmeta().custom_metadata_map["character"].split("\n")
        else:
            characters = yaml.safe_load(config.read_text(encoding="utf-8"))["PostProcess"]["character_dict"]
        self.classes = ["", *characters, " "]

    def probabilities(self, crop: np.ndarray) -> np.ndarray:
        width = crop.shape[1]
        padded = np.zeros((1, 3, 48, next(bucket for bucket in BUCKETS if bucket >= width)), dtype=np.float32)
        padded[0, :, :, :width] = crop.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
        return self.session.run(None, {self.session.get_inputs()[0].name: padded})[0][0]

    def __call__(self, crop: np.ndarray) -> tuple[str, float]:
        probabilities = self.probabilities(crop)
        assert probabilities.shape[1] == len(self.classes)
        text, confidences, previous = "", [], 0
        for step, best in enumerate(probabilities.argmax(axis=1).tolist()):
            if best not in (0, previous):
                text += self.classes[best]
                confidences.append(float(probabilities[step, best]))
            previous = best
        return text, sum(confidences) / len(confidences) if confidences else 0.0


def reference_of(name: str) -> Reference:
    """By name of the registry."""
    found = weights.resolve(name, kind="recognition")
    return Reference(found.path, found.files.get("config"))
