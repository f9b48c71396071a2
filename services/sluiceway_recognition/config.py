"""The `[recognition]` section of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from sluiceway_runtime.config import HttpPortConfig, Port, StageConfig
from sluiceway_runtime.images.limits import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS, ImageLimits

from sluiceway_recognition.inputs.buckets import DEFAULT_BATCHES, DEFAULT_BUCKETS, DEFAULT_COMPILED, DEFAULT_MAX_WIDTH
from sluiceway_recognition.types import MAX_HEIGHT_PX, MAX_NAME_CHARACTERS, MAX_WIDTH_PX, Head, PixelFormat, ResizeRule

__all__ = ["DEFAULT_MODEL", "ModelConfig", "RecognitionConfig", "RecognitionHttpConfig"]

DEFAULT_MODEL = "ppocrv6-tiny"
# What models that are there by name read, the cheapest first. Others PP-OCR has in files that no package holds.
READ_BY: Mapping[str, frozenset[str]] = {
    DEFAULT_MODEL: frozenset({"english", "chinese"}),
    "ppocrv6-small": frozenset({"english", "chinese", "latin"}),
}
# As PaddleOCR turns them. Boxes around a single narrow letter are below it.
TURN_RATIO = 1.5
# Eyes, tip of the nose and corners of the mouth, as networks that recognise faces are trained (crops of 112 x 112).
FACE_POINTS = tuple(
    (round(x / 112, 5), round(y / 112, 5))
    for x, y in ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
)
# One number for all channels, or one for each.
PerChannel = float | tuple[float, float, float]
Bucket = Annotated[int, Field(ge=1, le=MAX_WIDTH_PX)]


class ModelConfig(BaseModel):
    """One `[[recognition.models]]` table. A plain string there is a name of the registry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=MAX_NAME_CHARACTERS, description="What crops ask for.")
    kind: Head = Field(Head.TEXT, description="text, classify or embed.")
    weights: str | None = Field(None, description="Name in the registry, or path of a file; by default the name.")
    version: str = Field("", description="Of the user's own weights; shown in every answer.")
    recognizer: str | None = Field(None, description="User code instead of weights: module:Class, or an entry point.")
    options: dict[str, Any] = Field({}, description="Keyword arguments of the user's class.")
    backend: Literal["openvino", "torch"] | None = Field(None, description="By default torch on a GPU, else OpenVINO.")
    precision: Literal["f32", "bf16", "f16"] | None = Field(None, description="By default what is fast here.")
    height: int = Field(48, ge=1, le=MAX_HEIGHT_PX, description="Rows of a crop.")
    max_width: int = Field(
        DEFAULT_MAX_WIDTH, ge=1, le=MAX_WIDTH_PX, description="Most columns at once; longer lines are read in pieces."
    )
    format: Literal[PixelFormat.BGR, PixelFormat.RGB] = Field(PixelFormat.BGR, description="The model's channel order.")
    resize_rule: ResizeRule | None = Field(None, description="By default fit_height for text, else stretch.")
    turn_ratio: float | None = Field(
        None, description="Regions so many times as high as wide are turned by 90 degrees; by default 1.5 for text."
    )
    align: Literal["keypoints"] | None = Field(
        None, description="keypoints: crops are cut so that the keypoints of their regions lie at align_points."
    )
    align_points: tuple[tuple[float, float], ...] | None = Field(
        None,
        min_length=2,
        max_length=100,
        description="x and y of each, in parts of the crop's width and height; by default those of a face.",
    )
    buckets: tuple[Bucket, ...] | None = Field(None, description="Widths that crops are padded to, ascending.")
    mean: PerChannel = Field(127.5, description="Subtracted from pixels of 0 to 255.")
    std: PerChannel = Field(127.5, description="Pixels are then divided by this.")
    padding: Literal["mean", "black"] = Field("mean", description="What is right of a crop that is not so wide.")
    characters: Path | None = Field(None, description="inference.yml, or one character a line; for text.")
    alphabet: str | None = Field(None, min_length=1, description="The characters themselves, instead of a file.")
    blank: Literal["first", "last"] = Field("first", description="Where among the classes the blank is; for text.")
    decoder: Literal["ctc", "steps"] = Field(
        "ctc", description="steps: one character a step, until the blank, as models with attention write."
    )
    labels: tuple[str, ...] = Field((), description="Class names, for classify.")
    upright: Literal["ppocr-cls", "none"] | None = Field(
        None, description="Finds text that stands on its head; by default ppocr-cls where the weights bring it."
    )
    output: str | None = Field(None, description="Which output to read, of a model with several.")
    dynamic_shapes: bool = Field(False, description="One graph for all widths: less memory, 6 to 15% slower.")
    classes: tuple[str, ...] = Field((), description="Detection classes that this model wants; empty means all.")

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.recognizer is not None and self.weights is not None:
            raise ValueError("give either weights or recognizer, not both")
        if self.upright == "ppocr-cls" and (self.kind is not Head.TEXT or self.recognizer is not None):
            raise ValueError("upright is for networks that read text")
        if self.options and self.recognizer is None:
            raise ValueError("options are for a recognizer")
        if self.align_points is not None and self.align is None:
            raise ValueError('align_points are for align = "keypoints"')
        if self.alphabet is not None and self.characters is not None:
            raise ValueError("give either characters or alphabet, not both")
        own = self.alphabet is not None or self.blank != "first" or self.decoder != "ctc"
        if own and (self.kind is not Head.TEXT or self.recognizer is not None):
            raise ValueError("alphabet, blank and decoder are for networks that read text")
        stds = self.std if isinstance(self.std, tuple) else (self.std,)
        if any(value <= 0 for value in stds):
            raise ValueError("std must be greater than 0")
        if self.turn_ratio is not None and self.turn_ratio != 0 and not 1 <= self.turn_ratio < inf:
            raise ValueError("turn_ratio must be 0 or at least 1")
        if self.buckets is not None:
            if not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
                raise ValueError("buckets must ascend")
            if self.buckets[-1] < self.max_width:
                raise ValueError(f"the last bucket, {self.buckets[-1]}, must hold max_width, {self.max_width}")
        return self

    @property
    def rule(self) -> ResizeRule:
        """The resize rule in force."""
        if self.resize_rule is not None:
            return self.resize_rule
        return ResizeRule.FIT_HEIGHT if self.kind is Head.TEXT else ResizeRule.STRETCH

    @property
    def points(self) -> tuple[float, ...]:
        """Where keypoints are to lie, see `CropSpec.align_points`."""
        if self.align is None:
            return ()
        return tuple(value for point in self.align_points or FACE_POINTS for value in point)

    @property
    def turns_from(self) -> float:
        """The ratio of height to width in force, from which regions are turned."""
        if self.turn_ratio is not None:
            return self.turn_ratio
        return TURN_RATIO if self.kind is Head.TEXT else 0.0

    @property
    def widths(self) -> tuple[int, ...]:
        """The buckets in force, none wider than is needed."""
        if self.rule is not ResizeRule.FIT_HEIGHT:
            return (self.max_width,)
        if self.buckets is not None:
            return self.buckets
        return (*(width for width in DEFAULT_BUCKETS if width < self.max_width), self.max_width)


def _from_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class RecognitionHttpConfig(HttpPortConfig):
    """What `[recognition.http]` may say."""

    port: Port = Field(8053, description="Port; 0 lets the system choose.")


class RecognitionConfig(StageConfig):
    """The recognition server."""

    port: Port = Field(50053, description="gRPC port.")
    operations_port: Port = Field(9053, description="HTTP port of /livez, /readyz and /metrics.")
    http: RecognitionHttpConfig = Field(
        default_factory=RecognitionHttpConfig, description="HTTP port of the Open Inference Protocol."
    )
    models: tuple[Annotated[ModelConfig, BeforeValidator(_from_name)], ...] = Field(
        (ModelConfig(name=DEFAULT_MODEL),), min_length=1, description="What is served; the first is the default."
    )
    languages: tuple[str, ...] = Field(
        (), description="What is to be read, in place of `models`: english, chinese, latin (with accents)."
    )
    max_batch: int = Field(0, ge=0, le=4096, description="Most crops in a batch; 0 takes 32 on a CPU, 128 on a GPU.")
    max_batch_px: int = Field(
        128 * 48 * 640, ge=1, description="Most pixels in a batch, padding included; a larger crop runs by itself."
    )
    graph_batches: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        DEFAULT_BATCHES, min_length=1, description="Batch sizes that a GPU has graphs for; max_batch is one by itself."
    )
    compiled_graphs: int = Field(
        DEFAULT_COMPILED, ge=0, description="Graphs of each model that are compiled for a GPU; the rest run uncompiled."
    )
    max_crops: int = Field(4096, ge=1, description="Most crops in a request.")
    # A crop may be a whole page, so these are what a detection server takes.
    max_crop_px: int = Field(DEFAULT_MAX_PIXELS, ge=1, description="Most pixels of one crop as it comes in.")
    max_crop_bytes: int = Field(DEFAULT_MAX_BYTES, ge=1, description="Largest encoded crop.")

    @model_validator(mode="before")
    @classmethod
    def _by_language(cls, values: Any) -> Any:
        languages = values.get("languages") if isinstance(values, Mapping) else None
        if not languages or not isinstance(languages, list | tuple):
            return values
        if values.get("models"):
            raise ValueError("give either languages or models, not both")
        wanted = {str(language).lower() for language in languages}
        model = next((name for name, read in READ_BY.items() if wanted <= read), None)
        if model is None:
            unread = ", ".join(sorted(wanted - frozenset().union(*READ_BY.values())))
            raise ValueError(
                f"languages: no model that is there by name reads {unread}; name the ONNX file of one that does, and "
                "its characters, in [[recognition.models]]"
            )
        return {**values, "models": [model]}

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [model.name for model in self.models]
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles:
            raise ValueError(f"models must have distinct names; several are called {', '.join(doubles)}")
        return self

    @property
    def file_limits(self) -> ImageLimits:
        """Which encoded crops are accepted."""
        return ImageLimits(self.max_crop_bytes, self.max_crop_px, ("max_crop_bytes", "max_crop_px"))
