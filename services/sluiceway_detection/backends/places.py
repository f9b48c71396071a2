"""Models as torch modules from pixels to places or maps, which is what the torch backends compute.

A place is where a model may have found something: a box, the confidence of its best class, and that class. Reducing
the classes on the device makes what travels back independent of their number, of a fixed size, and complete: no place
is left out, so results are those of the whole output. The map of a DB model travels in bytes, a quarter of its size.
"""

# torch is an extra: without it mypy knows no base class. mypy reads the next line.
# mypy: allow-subclassing-any

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.gpu import ArraySpec, Recipe, Shape
from torch import Tensor, nn

from sluiceway_detection.backends.base import BackendSpec, Precision, require_trust
from sluiceway_detection.inputs.shapes import InputShape
from sluiceway_detection.models.card import ModelCard, read_card
from sluiceway_detection.models.thresholds import NONE_KNOWN, YOLO_PIXELS, PixelScale, Thresholds

__all__ = [
    "DTYPES",
    "PlacesNet",
    "checkpoint_card",
    "input_of",
    "load_onnx",
    "make",
    "read_model_card",
    "recipe_of",
    "scaled",
]

DTYPES: dict[Precision, torch.dtype] = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
# What compiled graphs depend on, beside the weights.
CODE = ("sluiceway_detection.backends.places", "sluiceway_runtime.onnx_torch")


class PlacesNet(nn.Module):
    """Images uint8 [N, H, W, 3] BGR to places.

    Args:
        net: float [N, 3, H, W] as its card says to its raw output.
        card: of the model.
        dtype: to compute in.
    """

    def __init__(self, net: nn.Module, *, card: ModelCard, dtype: torch.dtype) -> None:
        super().__init__()
        self.net = net
        self._is_map = card.map_reading is not None
        self._whole = card.end_to_end
        self._head = card.head
        self._pixels = card.pixels
        self._dtype = dtype

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Compute.

        Returns:
            float32: of an NMS-free head its rows as they are, [N, rows, 6 + extra]; of a classic head
            [N, 6 + extra, places]: centre x, centre y, width, height, confidence, class. A confidence is -1 where the
            model gave only NaN. Of a model that segments its prototypes as well; of a DETR model what
            `Head.transformer` says. Of a DB model its map, uint8 [N, 1, H, W] from 0 to 255; what is no number is 0.
        """
        output = self.net(scaled(pixels, self._pixels, self._dtype))
        if self._head.transformer in ("logits", "softmax"):
            return tuple(each.float() for each in output)
        prototypes: tuple[Tensor, ...] = ()
        if isinstance(output, tuple | list):
            if self._head.task == "segment":
                prototypes = (output[1].float(),)
            output = output[0]  # of a checkpoint's module: (decoded, raw feature maps)
        output = output.float()
        if self._is_map:
            return ((torch.nan_to_num(output, nan=0.0).clamp(0, 1) * 255).round().to(torch.uint8),)
        if self._whole or self._head.transformer is not None:
            return (output, *prototypes)
        scores = output[:, 4 : output.shape[1] - self._head.extra]
        scores = torch.nan_to_num(scores, nan=-1.0, posinf=float("inf"), neginf=float("-inf"))
        best, classes = scores.max(dim=1)
        extra = output[:, output.shape[1] - self._head.extra :]
        return (torch.cat((output[:, :4], best[:, None], classes[:, None].float(), extra), dim=1), *prototypes)


def scaled(pixels: Tensor, scale: PixelScale, dtype: torch.dtype) -> Tensor:
    """Images uint8 [N, H, W, 3] BGR as a network takes them, [N, 3, H, W].

    Permuted, not moved: a channels-last tensor, as convolutions like it.
    """
    images = pixels.permute(0, 3, 1, 2)
    if scale.rgb:
        images = images.flip(1)
    images = images.to(dtype)
    if scale == YOLO_PIXELS:
        return images / 255
    # Filled on the device: a copy from the host could not be captured.
    mean, std = (torch.stack([images.new_full((), value) for value in values]) for values in (scale.mean, scale.std))
    return (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


def input_of(batch: int, shape: InputShape) -> Shape:
    """The shape of a batch, as graphs are named."""
    height, width = shape
    return Shape(f"{batch}x{height}x{width}", (ArraySpec("uint8", (batch, height, width, 3)),))


def recipe_of(spec: BackendSpec, precision: Precision) -> Recipe:
    """How a worker and the builders of its graphs make the modules of a model."""
    with spec.weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    arguments = {
        "weights": str(spec.weights),
        "precision": precision,
        "allow_checkpoint": spec.allow_checkpoint,
        "pixels": spec.known.pixels,
        "classes": list(spec.known.classes),
    }
    return Recipe(f"{__name__}:make", arguments, {"weights": digest}, CODE)


def make(
    device: torch.device,
    *,
    weights: str,
    precision: Precision,
    allow_checkpoint: bool,
    pixels: PixelScale | None = None,
    classes: Sequence[str] = (),
) -> Callable[[Shape], PlacesNet]:
    """The factory of the recipe; see `sluiceway_runtime.gpu.Recipe`.

    Raises:
        StartupError: the weights cannot be read, or a checkpoint is not allowed.
    """
    # f32 means f32: convolutions would otherwise round to 19 bits on recent GPUs.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    path, dtype = Path(weights), DTYPES[precision]
    require_trust(path, allowed=allow_checkpoint)
    made = _checkpoint(path, device, dtype) if path.suffix == ".pt" else _onnx(path, device, dtype)
    known = Thresholds.from_plain((None, None, None, None, pixels, classes))
    card = read_model_card(path, allow_checkpoint=allow_checkpoint, known=known)

    def for_shape(shape: Shape) -> PlacesNet:
        net = PlacesNet(made(shape), card=card, dtype=dtype)
        net.eval()
        return net

    return for_shape


def read_model_card(path: Path, *, allow_checkpoint: bool, known: Thresholds = NONE_KNOWN) -> ModelCard:
    """What a file says of itself.

    Raises:
        StartupError: it cannot be read, is no detection model, or is a checkpoint that is not allowed.
    """
    require_trust(path, allowed=allow_checkpoint)
    if path.suffix == ".pt":
        # ultralytics is an extra of its own, and under the AGPL: only a checkpoint brings it in.
        from sluiceway_detection.export import load_checkpoint  # noqa: PLC0415

        return checkpoint_card(load_checkpoint(path))
    model = _read_onnx(path)
    inputs = _inputs(model)
    if len(inputs) != 1:
        raise StartupError(f"{path.name}: has {len(inputs)} inputs; a detection model has one")
    metadata = {item.key: item.value for item in model.metadata_props}
    outputs = [_dims(item) for item in model.graph.output]
    names = [item.name for item in model.graph.output]
    return read_card(metadata, _dims(inputs[0]), outputs, name=path.name, known=known, output_names=names)


def checkpoint_card(module: Any) -> ModelCard:
    """What a loaded checkpoint says of itself."""
    head = module.model[-1]
    classes = tuple(str(module.names[index]) for index in range(len(module.names)))
    size = int(getattr(module, "args", {}).get("imgsz", 640))
    return ModelCard(classes, int(max(module.stride)), bool(getattr(head, "end2end", False)), (size, size), False)


def load_onnx(path: Path, batch: int, shape: InputShape) -> Any:
    """A model's own module in f32, float [batch, 3, H, W] to its raw output.

    Raises:
        StartupError: see `sluiceway_runtime.onnx_torch.load`.
    """
    from sluiceway_runtime.onnx_torch import load  # noqa: PLC0415 - checkpoints need no onnx

    return load(path, {_inputs(_read_onnx(path))[0].name: (batch, 3, *shape)})


def _read_onnx(path: Path) -> Any:
    import onnx  # noqa: PLC0415 - checkpoints need none

    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf and file errors share no base class
        raise StartupError(f"{path.name} cannot be read as ONNX: {str(error).strip().splitlines()[0]}") from error


def _inputs(model: Any) -> list[Any]:
    """Those of the graph; older files list their constants among them."""
    constants = {item.name for item in model.graph.initializer}
    return [item for item in model.graph.input if item.name not in constants]


def _dims(item: Any) -> list[int | None]:
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in item.type.tensor_type.shape.dim]


def _onnx(path: Path, device: torch.device, dtype: torch.dtype) -> Callable[[Shape], nn.Module]:
    from sluiceway_runtime.onnx_torch import in_precision, share_weights  # noqa: PLC0415 - checkpoints need no onnx

    first: list[nn.Module] = []

    def made(shape: Shape) -> nn.Module:
        batch, height, width, _ = shape.inputs[0].shape
        module = in_precision(load_onnx(path, batch, (height, width)), dtype)
        module = module.to(device, memory_format=torch.channels_last)
        # Of all shapes together the weights lie on the device once.
        if first:
            share_weights(module, first[0])
        else:
            first.append(module)
        return module

    return made


def _checkpoint(path: Path, device: torch.device, dtype: torch.dtype) -> Callable[[Shape], nn.Module]:
    from sluiceway_detection.export import load_checkpoint  # noqa: PLC0415 - see `read_model_card`

    module = load_checkpoint(path).to(device, dtype, memory_format=torch.channels_last)

    def made(_shape: Shape) -> nn.Module:
        # The head keeps the grid of the last shape, which a captured graph goes on reading: each shape has a head of
        # its own, and all have the same weights.
        kept = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        return copy.deepcopy(module, kept)

    return made
