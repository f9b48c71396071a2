"""What is known of a model beside its file: thresholds that it was calibrated for, and the pixels that it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from sluiceway_runtime.errors import StartupError

__all__ = ["NONE_KNOWN", "IMAGENET_PIXELS", "PP_OCR_PIXELS", "YOLO_PIXELS", "PixelScale", "Thresholds", "thresholds_of"]

# Where PP-OCR writes them; beside the model.
CONFIG_NAME = "inference.yml"


class PixelScale(NamedTuple):
    """How pixels of 0 to 255 become what a network takes: (pixel - mean) / std, for each channel in order.

    Attributes:
        mean: subtracted.
        std: divided by.
        rgb: whether red comes first; else blue.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rgb: bool


YOLO_PIXELS = PixelScale((0.0, 0.0, 0.0), (255.0, 255.0, 255.0), rgb=True)
# Means and deviations of ImageNet. PP-OCR lists them for red first and applies them to blue first: the models are
# trained so.
PP_OCR_PIXELS = PixelScale((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), rgb=False)

IMAGENET_PIXELS = PixelScale((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), rgb=True)


class Thresholds(NamedTuple):
    """What a model was calibrated for; None where nothing says it.

    Attributes:
        confidence: a region must be above it.
        iou: overlap above which the weaker of two regions goes.
        map_threshold: of a DB model: a pixel of its map is text above it.
        unclip: likewise: how far regions grow, see `MapReading`.
        pixels: what the network takes.
        classes: names, where the file has none.
    """

    confidence: float | None = None
    iou: float | None = None
    map_threshold: float | None = None
    unclip: float | None = None
    pixels: PixelScale | None = None
    classes: tuple[str, ...] = ()

    @classmethod
    def from_plain(cls, values: Sequence[Any]) -> Thresholds:
        """From what became of it as JSON."""
        confidence, iou, map_threshold, unclip, pixels, classes = values
        scale = None if pixels is None else PixelScale(tuple(pixels[0]), tuple(pixels[1]), pixels[2])
        return cls(confidence, iou, map_threshold, unclip, scale, tuple(classes))


NONE_KNOWN = Thresholds()


def thresholds_of(weights: Path, metadata: Mapping[str, Any]) -> Thresholds:
    """What the registry says of a model, else the `inference.yml` beside it.

    Args:
        weights: the model file.
        metadata: the registry's own facts of it; `thresholds` is a table of numbers named as in `Thresholds`.

    Raises:
        StartupError: there is an `inference.yml`, and it cannot be read.
    """
    if table := metadata.get("thresholds"):
        return Thresholds(**table)
    config = weights.parent / CONFIG_NAME
    return _read(config) if weights.suffix == ".onnx" and config.is_file() else NONE_KNOWN


def _read(config: Path) -> Thresholds:
    """A PP-OCR `inference.yml` of a detector; NONE_KNOWN of another model's."""
    try:
        tables = yaml.safe_load(config.read_bytes())
        after = tables["PostProcess"]
        if after["name"] != "DBPostProcess":
            return NONE_KNOWN
        return Thresholds(
            confidence=_number(after["box_thresh"]),
            map_threshold=_number(after["thresh"]),
            unclip=_number(after["unclip_ratio"]),
            pixels=_pixels(tables["PreProcess"]["transform_ops"]),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise StartupError(f"{config} is not an inference.yml of PP-OCR: {type(error).__name__}: {error}") from error


def _pixels(steps: list[dict[str, Any]]) -> PixelScale | None:
    """Of the step that normalises, if there is one; means and deviations are of pixels from 0 to 1 there."""
    parts = {name: values or {} for step in steps for name, values in step.items()}
    if "NormalizeImage" not in parts:
        return None
    blue, green, red = (_number(value) * 255 for value in parts["NormalizeImage"]["mean"])
    deviations = [_number(value) * 255 for value in parts["NormalizeImage"]["std"]]
    colours = parts.get("DecodeImage", {}).get("img_mode", "BGR")
    return PixelScale((blue, green, red), (deviations[0], deviations[1], deviations[2]), rgb=colours == "RGB")


def _number(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{value!r} is no positive number")
    return number
