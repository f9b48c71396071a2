"""What a model says about itself, which family it is of, and whether this stage can serve it."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sluiceway_runtime.errors import StartupError

from sluiceway_detection.db import MapReading
from sluiceway_detection.inputs.shapes import STRIDE, InputShape
from sluiceway_detection.models.thresholds import NONE_KNOWN, PP_OCR_PIXELS, YOLO_PIXELS, PixelScale, Thresholds
from sluiceway_detection.yolo.heads import PLAIN, TASKS, Head, head_of, transformer_of

__all__ = ["ModelCard", "read_card"]

# Of the input of a DB model. A4 at 300 dpi is then shown at a quarter of its size, where print of 8 pt is found as well
# as at a third, for little more than half of the computing; what is smaller is looked at again, larger.
LONGEST_PX = 960
# What PP-OCR takes for models that come without an inference.yml.
MAP_CONFIDENCE = 0.6
_MOST_CLASSES = 100_000  # ours: numbers may have gaps, and a mad one must not fill the memory with what is between


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The facts that pre- and post-processing depend on.

    Attributes:
        classes: names; the position is the class id.
        stride: input sides are multiples of it.
        end_to_end: the output is [rows, 6], already suppressed.
        native_shape: height and width it was exported for.
        fixed_shape: it takes no other shape.
        confidence: threshold that the model was calibrated for; None where nothing says it.
        iou: likewise, for non-maximum suppression.
        pixels: what the network takes.
        map_reading: of a DB model, whose output is a map; None for others.
        head: of a YOLO or DETR model: what its output holds beside boxes and classes.
        stretches: images fill its input, whatever their aspect ratio.
    """

    classes: tuple[str, ...]
    stride: int
    end_to_end: bool
    native_shape: InputShape
    fixed_shape: bool
    confidence: float | None = None
    iou: float | None = None
    pixels: PixelScale = YOLO_PIXELS
    map_reading: MapReading | None = None
    head: Head = PLAIN
    stretches: bool = False


def read_card(
    metadata: Mapping[str, str],
    input_dims: Sequence[int | None],
    output_dims: Sequence[Sequence[int | None]],
    *,
    name: str,
    known: Thresholds = NONE_KNOWN,
    output_names: Sequence[str] = (),
) -> ModelCard:
    """Judge a model by its metadata and by the dimensions of its input and outputs.

    Args:
        metadata: the key-value pairs of the ONNX file; an ultralytics export writes names, task, stride, imgsz.
        input_dims: batch, channels, height, width; None where any value is taken.
        output_dims: of every output.
        name: for messages.
        known: what others say of it, which wins over the file.
        output_names: of every output, where they are known.

    Raises:
        StartupError: a task that is not one of detection, or outputs that are neither those of a YOLO or DETR model nor
            a map.
    """
    task = metadata.get("task", "detect")
    if task == "classify":
        raise StartupError(
            f"{name}: a classifier finds no regions; a recognition stage serves it: [[recognition.models]] with "
            'kind = "classify" and resize_rule = "cover"'
        )
    if task not in TASKS:
        raise StartupError(
            f"{name}: task {task!r} is not served; the detection stage serves {', '.join(TASKS)}. "
            "Other tasks can be served by a detector class of your own (detection.detector)"
        )
    if len(input_dims) != 4 or input_dims[1] not in (3, None):
        raise StartupError(f"{name}: the input has dimensions {_show(input_dims)}; expected batch, 3, height, width")
    if len(output_dims) == 1 and len(output_dims[0]) == 4 and output_dims[0][1] in (1, None):
        return _map_card(input_dims, known)
    classes = _class_names(_literal(metadata, "names", name), name) or known.classes
    fixed = input_dims[2] is not None and input_dims[3] is not None
    transformer = transformer_of(metadata, output_dims, output_names, len(classes), name=name)
    if transformer is not None:
        head, count = transformer
        return ModelCard(
            classes=classes or tuple(f"class{index}" for index in range(count)),
            stride=STRIDE,
            end_to_end=False,
            native_shape=_native(metadata, input_dims, name),
            fixed_shape=fixed,
            confidence=known.confidence or _threshold(metadata, "confidence", name),
            pixels=known.pixels or YOLO_PIXELS,
            head=head,
            stretches=True,
        )
    if len(output_dims) > (2 if task == "segment" else 1) or len(output_dims[0]) != 3:
        shown = ", ".join(_show(dims) for dims in output_dims)
        raise StartupError(
            f"{name}: the outputs have dimensions {shown}; a YOLO detection head has one of three, a DB model one map "
            "of batch, 1, height, width"
        )
    _, rows, columns = output_dims[0]
    end_to_end = metadata.get("end2end") == "True" or (task == "detect" and columns == 6 and rows != 6)
    if end_to_end and task == "detect" and columns not in (6, None):
        raise StartupError(f"{name}: an NMS-free head gives rows of 6 numbers, this one gives {columns}")
    keypoints = _literal(metadata, "kpt_shape", name)
    head = head_of(task, output_dims, len(classes), keypoints, rows=end_to_end, name=name)
    if not end_to_end and task == "detect" and rows is not None:
        classes = classes or tuple(f"class{index}" for index in range(rows - 4))
        if rows != 4 + len(classes) or rows < 5:
            raise StartupError(
                f"{name}: the output has {rows} numbers for each place; {len(classes)} classes need {4 + len(classes)}"
            )
    if not classes:
        raise StartupError(f"{name}: the file names no classes; export it with ultralytics, which writes them")
    stride = _literal(metadata, "stride", name)
    return ModelCard(
        classes=classes,
        stride=stride if isinstance(stride, int) and stride > 0 else STRIDE,
        end_to_end=end_to_end,
        native_shape=_native(metadata, input_dims, name),
        fixed_shape=fixed,
        confidence=known.confidence or _threshold(metadata, "confidence", name),
        iou=known.iou or _threshold(metadata, "iou", name),
        pixels=known.pixels or YOLO_PIXELS,
        head=head,
    )


def _native(metadata: Mapping[str, str], input_dims: Sequence[int | None], name: str) -> InputShape:
    """Height and width that it was exported for."""
    height, width = input_dims[2], input_dims[3]
    size = _literal(metadata, "imgsz", name)
    if (height is None or width is None) and isinstance(size, list | tuple) and len(size) == 2:
        if not all(isinstance(side, int | float) and 1 <= side < math.inf for side in size):
            raise StartupError(f"{name}: metadata 'imgsz' must be height and width in pixels, not {size!r}")
        return int(size[0]), int(size[1])
    return height or 640, width or 640


def _map_card(input_dims: Sequence[int | None], known: Thresholds) -> ModelCard:
    """Of a DB model. The file itself says nothing."""
    reading = MapReading()
    fixed = input_dims[2] is not None and input_dims[3] is not None
    return ModelCard(
        classes=("text",),
        stride=STRIDE,
        end_to_end=False,
        native_shape=(input_dims[2] or LONGEST_PX, input_dims[3] or LONGEST_PX),
        fixed_shape=fixed,
        confidence=known.confidence or MAP_CONFIDENCE,
        pixels=known.pixels or PP_OCR_PIXELS,
        map_reading=MapReading(known.map_threshold or reading.threshold, known.unclip or reading.unclip),
    )


def _threshold(metadata: Mapping[str, str], key: str, name: str) -> float | None:
    value = _literal(metadata, key, name)
    if value is None:
        return None
    if not isinstance(value, float | int) or not 0 < value <= 1:
        raise StartupError(f"{name}: metadata {key!r} must be a number in (0, 1], not {value!r}")
    return float(value)


def _literal(metadata: Mapping[str, str], key: str, name: str) -> object:
    """Metadata is written with Python's repr; only literals are read back."""
    text = metadata.get(key)
    if text is None:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise StartupError(f"{name}: metadata {key!r} cannot be read: {text[:80]!r}") from error


def _class_names(names: object, name: str) -> tuple[str, ...]:
    if isinstance(names, list | tuple):
        return tuple(str(name) for name in names)
    if isinstance(names, dict) and names:
        for key in names:
            if not str(key).isdecimal() or int(key) >= _MOST_CLASSES:
                raise StartupError(f"{name}: metadata 'names' must give each class by its number, not by {key!r}")
        # Ids may have gaps, and repr sorts them as it likes.
        known = {int(key): str(value) for key, value in names.items()}
        return tuple(known.get(index, f"class{index}") for index in range(max(known) + 1))
    return ()


def _show(dims: Sequence[int | None]) -> str:
    return "x".join("?" if dim is None else str(dim) for dim in dims)
