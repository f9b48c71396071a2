"""The `[detection]` section of the configuration."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from sluiceway_runtime.config import HttpPortConfig, Port, ScaleKey, StageConfig
from sluiceway_runtime.documents.limits import (
    DEFAULT_DPI,
    DEFAULT_MAX_PAGES,
    DEFAULT_PAGE_TIMEOUT_S,
    DocumentLimits,
)
from sluiceway_runtime.images.limits import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS

from sluiceway_detection.inputs.shapes import STRIDE, InputShape

__all__ = ["DEFAULT_MODEL", "KIND", "MAX_DETECTIONS", "DetectionConfig", "DetectionHttpConfig"]

# Of this stage; the default stage of the kind, and its section, are called like it.
KIND: Final = "detection"
DEFAULT_MODEL = "ppocrv6-tiny-det"
MAX_DETECTIONS = 10_000  # the contract's bound
_MAX_SIDE_PX = 4096
# Crops share an answer with boxes and protobuf's own overhead; an eighth is left for those.
_CROP_SHARE = 7 / 8


def _parse_shape(value: object) -> object:
    """Height x width as text, `480x640`, the way people write it."""
    if isinstance(value, str):
        parts = value.lower().split("x")
        if len(parts) == 2 and all(part.isdecimal() for part in parts):
            return (int(parts[0]), int(parts[1]))
        raise ValueError("must look like 480x640 (height x width)")
    return value


Shape = Annotated[InputShape, BeforeValidator(_parse_shape)]


class DetectionHttpConfig(HttpPortConfig):
    """What `[detection.http]` may say."""

    port: Port = Field(8052, description="Port; 0 lets the system choose.")


class DetectionConfig(StageConfig):
    """The detection server."""

    port: Port = Field(50052, description="gRPC port.")
    operations_port: Port = Field(9052, description="HTTP port of /livez, /readyz and /metrics.")
    http: DetectionHttpConfig = Field(
        default_factory=DetectionHttpConfig, description="HTTP port of the Open Inference Protocol."
    )
    device: str = Field(
        "cpu",
        pattern=r"^(auto|cpu|cuda|cuda:\d+)$",
        description="cpu, cuda, cuda:N, or auto: every GPU with memory to spare, else the CPU.",
    )
    max_batch: int = Field(0, ge=0, le=256, description="Most images in a batch; 0 takes 1 on a CPU, 16 on a GPU.")
    model: str = Field(DEFAULT_MODEL, min_length=1, description="Name in the registry, or path of an ONNX file.")
    version: str = Field("", description="Version of your own weights or detector; shown in every answer.")
    detector: str | None = Field(None, description="User code instead of a model: module:Class, or an entry point.")
    backend: Literal["auto", "openvino", "onnx", "torch"] = Field("auto", description="What computes the model.")
    precision: Literal["auto", "f32", "bf16", "f16", "int8"] = Field(
        "auto", description="Arithmetic; auto takes what is fastest here and agrees with f32."
    )
    decode: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="Where JPEG files are decoded; auto on the GPU that detects with torch, if it can."
    )
    image_size: int | None = Field(
        None,
        ge=STRIDE,
        le=_MAX_SIDE_PX,
        multiple_of=STRIDE,
        description="Longer side of the input; default the model's, 960 for DB models.",
    )
    shapes: tuple[Shape, ...] = Field(
        (),
        max_length=8,
        description='Inputs to compile, such as ["640x640", "480x640"]; the first is the default size.',
    )
    scale: ScaleKey | None = Field(
        None,
        description="How large an image is shown: fast is as one input, auto shows parts larger where letters are "
        "small, a number is a part of its size. Default auto for DB models, fast for others; models of upright boxes "
        "and DB models alone know more than fast.",
    )
    confidence: float | None = Field(
        None, gt=0, le=1, description="Least confidence of a region; default the model's own, else 0.25."
    )
    iou: float | None = Field(
        None, gt=0, le=1, description="Overlap above which the weaker of two goes; default the model's own, else 0.7."
    )
    class_agnostic: bool = Field(False, description="Regions of different classes are compared for overlap, too.")
    classes: tuple[str, ...] = Field((), description="Names of the model's classes, where its file has none.")
    pixels: Literal["unit", "imagenet"] | None = Field(
        None,
        description="What the network takes: 0 to 1, or ImageNet's mean and deviation; default its family's.",
    )
    max_detections: int = Field(1000, ge=1, le=MAX_DETECTIONS, description="Most regions of an image.")
    max_crops: int = Field(
        64, ge=1, le=4096, description="Most crops in a request; no more than `queue_items` are taken."
    )
    max_image_bytes: int = Field(DEFAULT_MAX_BYTES, ge=1, description="Largest image file.")
    max_image_pixels: int = Field(DEFAULT_MAX_PIXELS, ge=1, description="Largest width x height.")
    max_document_pages: int = Field(DEFAULT_MAX_PAGES, ge=1, le=100_000, description="Most pages of a PDF or TIFF.")
    document_dpi: int = Field(
        DEFAULT_DPI, ge=36, le=1200, description="Pixels an inch of rendered PDF pages, where they are not too many."
    )
    page_timeout_s: float = Field(DEFAULT_PAGE_TIMEOUT_S, gt=0, description="For rendering one page of a PDF.")
    allow_pickle: tuple[str, ...] = Field(
        (), description="Names of .pt files that may be loaded, though loading one can run code."
    )

    @field_validator("shapes")
    @classmethod
    def _sides(cls, shapes: tuple[InputShape, ...]) -> tuple[InputShape, ...]:
        for height, width in shapes:
            if any(side % STRIDE or not STRIDE <= side <= _MAX_SIDE_PX for side in (height, width)):
                raise ValueError(f"{height}x{width}: sides must be multiples of {STRIDE}, at most {_MAX_SIDE_PX}")
        return shapes

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.shapes and self.image_size is not None and self.image_size != max(self.shapes[0]):
            raise ValueError("give either image_size or shapes; the first shape sets the default image size")
        if self.max_image_bytes > self.max_message_bytes:
            raise ValueError(f"max_image_bytes must fit into max_message_bytes ({self.max_message_bytes})")
        return self

    @property
    def max_crop_bytes(self) -> int:
        """Most crop pixels in one answer."""
        return int(self.max_message_bytes * _CROP_SHARE)

    @property
    def documents(self) -> DocumentLimits:
        """Limits of files that have pages."""
        return DocumentLimits(self.max_document_pages, self.document_dpi, self.page_timeout_s)
