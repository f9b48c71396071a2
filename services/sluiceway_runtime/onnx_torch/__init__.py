"""ONNX graphs as torch modules with every shape fixed. Needs torch and onnx; only workers import it."""

from sluiceway_runtime.onnx_torch.graph import load, share_weights
from sluiceway_runtime.onnx_torch.precision import in_precision

__all__ = ["in_precision", "load", "share_weights"]
