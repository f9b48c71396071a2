"""The tables `[pipelines.NAME]`: what each may say by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sluiceway_runtime.config import ScaleKey

__all__ = ["DEFAULT_PIPELINE", "PipelineConfig", "StepConfig", "StepOptionsConfig"]

DEFAULT_PIPELINE = "read"


class StepOptionsConfig(BaseModel):
    """What `options` of a step may say; see `DetectionOptions` and `RecognitionOptions` of the contract."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    confidence: float | None = Field(None, gt=0, le=1, description="Least confidence of a region.")
    iou: float | None = Field(None, gt=0, le=1, description="Overlap above which the weaker of two regions goes.")
    classes: tuple[str, ...] | None = Field(None, description="Names of the classes to keep.")
    max_detections: int | None = Field(None, ge=1, le=10_000, description="Most regions of an image.")
    image_size: int | None = Field(None, ge=32, multiple_of=32, description="Longer side of the model's input.")
    scale: ScaleKey | None = Field(None, description="How large the image is shown: auto, fast, or a factor.")
    class_agnostic: bool | None = Field(None, description="Regions of different classes are compared for overlap, too.")
    characters: bool | None = Field(None, description="Also give the confidence of each character.")
    words: bool | None = Field(None, description="Also say where each word of a text lies.")
    top_k: int | None = Field(None, ge=1, le=1000, description="How many classes a classifier names.")


class StepConfig(BaseModel):
    """One step of a pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Names the step in events and reports.")
    stage: str | None = Field(None, description="The stage that does it: detection, recognition, or of `[stages]`.")
    api: str | None = Field(None, description="The API that is called, of `[api]`.")
    of: str | None = Field(None, description="The step whose regions it works on; without it the page, or the source.")
    after: tuple[str, ...] = Field((), description="Calls about the source: the steps that must have ended before.")
    classes: tuple[str, ...] = Field((), description="Classes of `of` that it works on; on the page, that it keeps.")
    except_classes: tuple[str, ...] = Field((), description="Classes that it leaves alone.")
    model: str | None = Field(None, description="Recognition: name of the model; without it the stage's first.")
    options: StepOptionsConfig = Field(default_factory=StepOptionsConfig, description="Options for the stage.")
    params: Mapping[str, str] = Field(
        {}, description="Calls: parameter of the API to a text with {text}, {class}, {label}, {param.NAME}, {values}, …"
    )
    on_error: Literal["fail", "skip"] | None = Field(
        None, description="fail: the source fails. skip: it is told, and the rest goes on. Default: fail on the page."
    )


class PipelineConfig(BaseModel):
    """What `[pipelines.NAME]` may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[tuple[StepConfig, ...], Field(min_length=1, description="The steps.")]
