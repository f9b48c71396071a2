"""What computes: the same model on OpenVINO or torch, behind one small interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import StartupError

from sluiceway.installation import install_command
from sluiceway_recognition.backends.batches import GraphSettings
from sluiceway_recognition.plan import ModelPlan

__all__ = ["Backend", "library_of", "load_backend"]


class Backend(Protocol):
    """A loaded network with its normalisation before and its reduction behind it.

    Attributes:
        name: of the library.
        precision: arithmetic in use.
        device: where it computes.
        output_size: classes of a text model or classifier, or length of an embedding.
        metadata: what the model file says of itself, by key.
    """

    name: Literal["openvino", "torch"]
    precision: str
    device: str
    output_size: int
    metadata: Mapping[str, str]

    def warm(self, widths: Sequence[int]) -> None:
        """Compile for these widths and compute each once."""

    def alone(self, precision: str, crops: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[Any], ...]:
        """What some crops of one width give in a precision, each by itself; nothing of it is kept. See `launch`."""
        ...

    def launch(self, crops: Sequence[NDArray[np.uint8]], width: int) -> Callable[[], tuple[NDArray[Any], ...]]:
        """Start to compute crops that share a bucket.

        Args:
            crops: uint8 [H, w_i, 3] with 1 <= w_i <= width; not needed any more when this returns.
            width: they are padded to this, with zeros after normalising.

        Returns:
            A function that waits for the end and returns arrays of its own, with a row for each crop: text: int32
            [N, T] most probable classes and float32 [N, T] their probabilities; classify: float32 [N, C]
            probabilities; embed: float32 [N, D].
        """
        ...


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
