"""The Open Inference Protocol beside a stage's own service, for whatever speaks to Triton or KServe.

A stage implements `InferenceStage`; `add_inference` does the rest.
"""

from sluiceway_runtime.inference.models import Models
from sluiceway_runtime.inference.servicer import SERVICE, add_inference
from sluiceway_runtime.inference.stage import InferenceStage, Inferred, Parameter
from sluiceway_runtime.inference.tensors import ModelCard, Tensor, TensorSpec

__all__ = [
    "SERVICE",
    "InferenceStage",
    "Inferred",
    "ModelCard",
    "Models",
    "Parameter",
    "Tensor",
    "TensorSpec",
    "add_inference",
]
