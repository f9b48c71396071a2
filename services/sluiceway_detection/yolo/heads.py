"""What the output of a YOLO or DETR model holds for each place where it may have found something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sluiceway_runtime.errors import StartupError

__all__ = ["PLAIN", "TASKS", "Head", "Task", "head_of", "transformer_of"]

Dims = Sequence[int | None]
Task = Literal["detect", "obb", "segment", "pose"]
TASKS: tuple[Task, ...] = ("detect", "obb", "segment", "pose")
# A mask is made of as many prototypes as there are numbers, in an output of its own.
_MOST_KEYPOINTS = 1000


@dataclass(frozen=True, slots=True)
class Head:
    """How an output is to be read.

    Attributes:
        task: what there is beside a box: nothing, the angle by which it is turned, the coefficients of a mask, or
            keypoints.
        extra: numbers of a place behind its classes, which say that.
        keypoints: how many, and numbers of each: x, y, and perhaps a confidence.
        transformer: of a DETR model: "rows" are [rows, 6], "scores" [queries, 4 + classes], "logits" two outputs, for
            each class independent, or in "softmax" with a last class that is none. Boxes are centre and size in parts
            of the input. None for YOLO.
        boxes_output: position of the boxes among two outputs of a DETR model.
    """

    task: Task = "detect"
    extra: int = 0
    keypoints: tuple[int, int] = (0, 0)
    transformer: Literal["rows", "scores", "logits", "softmax"] | None = None
    boxes_output: int = 0


PLAIN = Head()


def head_of(task: str, outputs: Sequence[Dims], classes: int, keypoints: object, *, rows: bool, name: str) -> Head:
    """The head of a YOLO model.

    Args:
        task: as its file says it, one that is served.
        outputs: dimensions of each.
        classes: how many; 0 where nothing says it.
        keypoints: what its file says of them.
        rows: whether it is free of NMS, with the numbers of a place in a row.
        name: for messages.

    Raises:
        StartupError: the outputs are not those of such a model.
    """
    if task == "detect":
        return PLAIN
    if not classes:
        raise StartupError(f"{name}: the file names no classes, which a model for {task!r} needs")
    numbers = outputs[0][2] if rows else outputs[0][1]
    before = 6 if rows else 4 + classes
    if task == "obb":
        extra, count = 1, (0, 0)
    elif task == "pose":
        count = _keypoints(keypoints, name)
        extra = count[0] * count[1]
    else:
        prototypes = outputs[1] if len(outputs) == 2 and len(outputs[1]) == 4 else None
        if prototypes is None or prototypes[1] is None:
            raise StartupError(f"{name}: a model that segments has a second output of masks, and this one has none")
        extra, count = prototypes[1], (0, 0)
    if numbers is not None and numbers != before + extra:
        raise StartupError(
            f"{name}: the output has {numbers} numbers for each place; a model for {task!r} with {classes} classes "
            f"has {before + extra}"
        )
    known: Task = next(each for each in TASKS if each == task)
    return Head(known, extra, count)


def transformer_of(
    metadata: Mapping[str, str], outputs: Sequence[Dims], names: Sequence[str], classes: int, *, name: str
) -> tuple[Head, int] | None:
    """The head of a DETR model, and how many classes it tells apart; None of another model.

    Args:
        metadata: of the file.
        outputs: dimensions of each.
        names: of the outputs, where they are known.
        classes: how many are named; 0 where nothing says it.
        name: for messages.

    Raises:
        StartupError: the names are not those of its classes.
    """
    if metadata.get("head", "").startswith("RTDETR"):
        numbers = outputs[0][2] if len(outputs) == 1 and len(outputs[0]) == 3 else None
        if numbers is None or not classes:
            raise StartupError(f"{name}: not the outputs of an RT-DETR model as ultralytics exports it")
        # As it exports them now; of two classes both forms have six numbers.
        if numbers == 6:
            return Head(transformer="rows"), classes
        if numbers != 4 + classes:
            raise StartupError(f"{name}: {numbers} numbers for each query are not those of {classes} classes")
        return Head(transformer="scores"), classes
    if len(outputs) != 2 or any(len(dims) != 3 for dims in outputs):
        return None
    boxes = next((at for at, called in enumerate(names) if "box" in called), None)
    if boxes is None:
        boxes = next((at for at, dims in enumerate(outputs) if dims[2] == 4), None)
    logits = None if boxes is None or outputs[boxes][2] not in (4, None) else outputs[1 - boxes][2]
    if boxes is None or logits is None:
        return None
    if classes not in (0, logits, logits - 1):
        raise StartupError(f"{name}: {classes} names for a model that tells {logits} classes apart")
    softmax = classes == logits - 1 and classes > 0
    return Head(transformer="softmax" if softmax else "logits", boxes_output=boxes), classes or logits


def _keypoints(value: object, name: str) -> tuple[int, int]:
    if isinstance(value, list | tuple) and len(value) == 2:
        count, numbers = value
        if isinstance(count, int) and 1 <= count <= _MOST_KEYPOINTS and numbers in (2, 3):
            return count, numbers
    raise StartupError(f"{name}: metadata 'kpt_shape' must be how many keypoints, and 2 or 3, not {value!r}")
