"""A model of the configuration with everything looked up: what workers are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sluiceway_recognition.types import KIND, CropSpec, Head, PixelFormat

__all__ = ["BRIGHTNESS", "ModelPlan", "Normalisation", "Precision"]

Precision = Literal["f32", "bf16", "f16"]
# Shares of the channels in the brightness of a pixel (ITU-R BT.601), as Pillow and OpenCV have them.
BRIGHTNESS = {PixelFormat.BGR: (0.114, 0.587, 0.299), PixelFormat.RGB: (0.299, 0.587, 0.114)}


@dataclass(frozen=True, slots=True)
class Normalisation:
    """(x - mean) / std for each channel, in the order of the model's channels; x from 0 to 255.

    What is right of a crop is 0 behind it, or with `black` what black pixels become. A model of one channel has the
    first mean and deviation.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    black: bool = False


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model to load. Picklable.

    Attributes:
        name: by which crops ask for it.
        head: what it answers with.
        crop_spec: the crops that it wants; of user code only `classes` counts, the rest is its own to say.
        buckets: widths that crops are padded to, ascending.
        weights: the model file; None for user code.
        version: of the weights.
        weights_sha256: of the weights file; empty for user code.
        characters: a PP-OCR `inference.yml` or a text file; None where the model file has its characters.
        alphabet: the characters themselves, in the place of a file.
        blank: where among the classes of a text model its blank is.
        ends: the blank ends the text; see `ctc.Convention`.
        labels: class names of a classifier.
        normalisation: before the network.
        backend: what computes; None chooses by device.
        precision: None chooses by device and CPU.
        output: of a model with several; None where there is one.
        dynamic_shapes: one graph for all widths.
        upright: classifier of lines that stand on their heads; None: such lines are not looked for.
        own: the weights are the user's own file, of which nobody knows how they bear 16 bits.
        section: of the configuration that it stands in.
        user_class: `module:Class` or the name of an entry point.
        options: keyword arguments of the user's class.
    """

    name: str
    head: Head
    crop_spec: CropSpec
    buckets: tuple[int, ...]
    normalisation: Normalisation
    weights: Path | None = None
    version: str = ""
    weights_sha256: str = ""
    characters: Path | None = None
    alphabet: str | None = None
    blank: Literal["first", "last"] = "first"
    ends: bool = False
    labels: tuple[str, ...] = ()
    backend: Literal["openvino", "torch"] | None = None
    precision: Precision | None = None
    output: str | None = None
    dynamic_shapes: bool = False
    upright: Path | None = None
    own: bool = False
    section: str = KIND
    user_class: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """By which faults name it."""
        return f"{self.section}.models.{self.name}"
