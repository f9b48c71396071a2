"""Where a network comes from: written out here, a program of torch.export, or a graph of ONNX; and the recipe of it.

`open_source` looks at a file once, in the worker. `make` is what the recipe names: it runs in the worker and again in
every builder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from sluiceway_runtime import weights
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.gpu import Recipe, Shape
from sluiceway_runtime.weights.store import file_sha256

from sluiceway_recognition.nets import store
from sluiceway_recognition.nets.own_networks import ExportedNet, OnnxNet
from sluiceway_recognition.nets.reading import Activation, Reading
from sluiceway_recognition.nets.recognisers import UnknownNetwork
from sluiceway_recognition.plan import BRIGHTNESS, ModelPlan, Normalisation, Precision
from sluiceway_recognition.types import Head

__all__ = ["Source", "make", "open_source"]

Kind = Literal["native", "exported", "onnx"]
DTYPES: dict[str, torch.dtype] = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# What the compiled graphs of a model depend on, beside its weights.
CODE = ("sluiceway_recognition.nets", "sluiceway_runtime.onnx_torch")


class Network(Protocol):
    """A network in any of its forms.

    Attributes:
        activation: what it ends in.
        batch: the only number of crops that it takes at once; None for any.
        width: the only width that it takes; None for any that its buckets ask for.
        channels: 3, or 1 for brightness.
        metadata: what its file says of itself.
    """

    activation: Activation
    batch: int | None
    width: int | None
    channels: int
    metadata: dict[str, str]

    def module(self, sizes: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype) -> Any:
        """The module for inputs [N, C, H, W], on the device, computing in the type; not in training mode."""
        ...

    def autocast(self, dtype: torch.dtype) -> torch.dtype | None:
        """The type to compute in by autocast, where the module cannot be brought to it itself."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """A network that can be made.

    Attributes:
        recipe: of the whole reading, for shapes of uint8 [N, H, W, 3] and int32 [N].
        output_size: classes of a text model or classifier, or length of an embedding.
        metadata: what the file says of itself.
        batch: the only batch that it takes; None for any.
        channels: 3, or 1 for brightness.
    """

    recipe: Recipe
    output_size: int
    metadata: dict[str, str]
    batch: int | None
    channels: int = 3


class _NativeNet:
    """One of the networks that are written out here; see `Network`."""

    activation: Activation = "none"
    batch: int | None = None
    width: int | None = None
    channels = 3

    def __init__(self, path: Path) -> None:
        if path.suffix == ".onnx":
            # A conversion that could be kept is read in its place.
            _, self.net, self.metadata = store.convert(path, _conversion(path))
        else:
            _, self.net, self.metadata = store.load(path)
        self._placed: Any = None

    def module(
        self,
        sizes: tuple[int, int, int, int],  # noqa: ARG002 - of the interface
        device: torch.device,
        dtype: torch.dtype,
    ) -> Any:
        """The one network for all sizes."""
        if self._placed is None:
            if device.type == "cuda":
                # Only here: it imports triton, which has no use elsewhere.
                from sluiceway_recognition.nets.depthwise import replace_large_depthwise  # noqa: PLC0415

                net = replace_large_depthwise(self.net).to(device, dtype, memory_format=torch.channels_last)
            else:
                net = self.net.to(device, dtype)
            self._placed = net
        return self._placed

    def autocast(self, dtype: torch.dtype) -> torch.dtype | None:  # noqa: ARG002 - of the interface
        """None: its weights are brought to the type."""
        return None


def open_source(plan: ModelPlan, precision: Precision) -> Source:
    """Find out what a weights file holds, and how to make it.

    Args:
        plan: has weights.
        precision: to compute in.

    Raises:
        StartupError: unreadable, or not a network of this kind.
    """
    assert plan.weights is not None
    path = plan.weights
    kind = _kind(plan, path)
    network = _open(kind, path, plan.output)
    # Crops may be longer than what is computed at once: those are read in pieces.
    if network.width is not None and set(plan.buckets) != {network.width}:
        raise StartupError(
            f"{path}: the model wants crops of width {network.width}; set `max_width` to that, "
            "and `buckets` to that alone"
        )
    size, steps_first = _output_size(network, plan, plan.buckets[0])
    recipe = Recipe(
        f"{__name__}:make",
        arguments={
            "kind": kind,
            "path": str(path),
            "output": plan.output,
            "head": plan.head.value,
            "mean": list(plan.normalisation.mean),
            "std": list(plan.normalisation.std),
            "precision": precision,
            "black": plan.normalisation.black,
            "brightness": list(BRIGHTNESS[plan.crop_spec.format]),
            "steps_first": steps_first,
        },
        identity={"weights": plan.weights_sha256},
        code=CODE,
    )
    return Source(recipe, size, network.metadata, network.batch, network.channels)


def make(
    device: torch.device,
    *,
    kind: Kind,
    path: str,
    output: str | None,
    head: str,
    mean: Sequence[float],
    std: Sequence[float],
    precision: Precision,
    black: bool,
    brightness: Sequence[float],
    steps_first: bool,
) -> Callable[[Shape], Any]:
    """The factory of the recipe; see `sluiceway_runtime.gpu.Recipe`."""
    network = _open(kind, Path(path), output)
    dtype = DTYPES[precision]
    autocast = None if dtype == torch.float32 else network.autocast(dtype)
    normalisation = Normalisation((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), black)

    def for_shape(shape: Shape) -> Any:
        batch, height, width, _ = shape.inputs[0].shape
        return Reading(
            network.module((batch, network.channels, height, width), device, dtype),
            head=Head(head),
            normalisation=normalisation,
            activation=network.activation,
            dtype=torch.float32 if autocast is not None else dtype,
            autocast=autocast,
            brightness=brightness if network.channels == 1 else None,
            steps_first=steps_first,
        ).to(device)

    return for_shape


def _kind(plan: ModelPlan, path: Path) -> Kind:
    if path.suffix == ".safetensors":
        return "native"
    if path.suffix == ".pt2":
        return "exported"
    if path.suffix != ".onnx":
        raise StartupError(f"{path}: torch reads ONNX, .pt2 (torch.export) and .safetensors files")
    if plan.head is not Head.TEXT:
        return "onnx"
    try:
        store.convert(path, _conversion(path))
    except UnknownNetwork:
        return "onnx"
    return "native"


def _conversion(path: Path) -> Path:
    return weights.cache_folder() / "torch" / f"{file_sha256(path)}.safetensors"


def _open(kind: Kind, path: Path, output: str | None) -> Network:
    if kind == "native":
        return _NativeNet(path)
    return ExportedNet(path, output) if kind == "exported" else OnnxNet(path, output)


def _output_size(network: Network, plan: ModelPlan, width: int) -> tuple[int, bool]:
    """Compute a blank crop and look at what comes out: its size, and whether steps come before crops ([T, N, C])."""
    if isinstance(network, _NativeNet):
        if plan.head is not Head.TEXT:
            raise StartupError(f"{plan.weights}: the file holds a reader of text, not a model of kind {plan.head}")
        return network.net.classes, False
    sizes = (network.batch or 1, network.channels, plan.crop_spec.height, width)
    cpu = torch.device("cpu")
    try:
        with torch.inference_mode():
            output = network.module(sizes, cpu, torch.float32)(torch.zeros(sizes))
    except StartupError:
        raise
    except Exception as error:  # whatever a user's graph runs into
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StartupError(f"{plan.weights}: the model does not take crops of {sizes[2]} x {width}: {first}") from error
    shape = tuple(output.shape)
    text = plan.head is Head.TEXT
    steps_first = text and len(shape) == 3 and shape[0] != sizes[0] and shape[1] == sizes[0]
    if (len(shape) != 3 if text else len(shape) < 2) or (shape[0] != sizes[0] and not steps_first):
        raise StartupError(
            f"{plan.weights}: a model of kind {plan.head} must have an output of rank {3 if text else 2}, not {shape}"
        )
    return (int(shape[2]) if text else int(output.numel() // sizes[0])), steps_first
