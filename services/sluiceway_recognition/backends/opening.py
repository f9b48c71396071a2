"""Which library computes a model, and the loading of it there. Apart from their interface: imports go one way."""

from __future__ import annotations

from typing import Literal

from sluiceway_runtime.errors import StartupError

from sluiceway.installation import install_command
from sluiceway_recognition.backends.base import Backend
from sluiceway_recognition.backends.batches import GraphSettings
from sluiceway_recognition.plan import ModelPlan

__all__ = ["library_of", "load_backend"]


def library_of(plan: ModelPlan, device: str) -> Literal["openvino", "torch"]:
    """What computes a network: torch on a GPU, OpenVINO on a CPU unless plan or file say torch."""
    assert plan.weights is not None
    written_by_torch = plan.weights.suffix in (".pt2", ".safetensors")
    return "torch" if device != "cpu" or written_by_torch else plan.backend or "openvino"


def load_backend(plan: ModelPlan, device: str, threads: int, graphs: GraphSettings | None = None) -> Backend:
    """Load a network with what computes it; see `library_of`.

    Args:
        plan: has weights.
        device: `cpu`, `cuda:0` and so on.
        threads: compute threads that it may use on a CPU.
        graphs: how the graphs of a GPU are made.

    Raises:
        StartupError: unreadable weights, or a library that is not installed.
    """
    assert plan.weights is not None
    library = library_of(plan, device)
    try:
        # Libraries are imported here, not above: each takes its second and its memory only where it is used.
        if library == "torch":
            from sluiceway_recognition.backends.torch import TorchBackend  # noqa: PLC0415

            return TorchBackend(plan, device, threads, graphs if device != "cpu" else None)
        from sluiceway_recognition.backends.openvino import OpenVinoBackend  # noqa: PLC0415

        return OpenVinoBackend(
            plan.weights,
            head=plan.head,
            height=plan.crop_spec.height,
            normalisation=plan.normalisation,
            pixel_format=plan.crop_spec.format,
            precision=plan.precision,
            threads=threads,
            output=plan.output,
            dynamic=plan.dynamic_shapes,
        )
    except ModuleNotFoundError as error:
        extra = "gpu" if library == "torch" else "recognition"
        raise StartupError(
            f"recognition on {device} needs {error.name}, which is not installed: {install_command(extra)}"
        ) from error
