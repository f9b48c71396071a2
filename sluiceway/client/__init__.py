"""The Python client: give it images, get typed results.

from sluiceway import Client

with Client("localhost:50051") as client:
    for region in client.process("photo.jpg").regions:
        print(region.text, region.box)
"""

from sluiceway.client.aio import DEFAULT_ADDRESS, EXPLAIN_TIMEOUT_S, PATIENCE_S, AsyncClient
from sluiceway.client.blocking import Client
from sluiceway.client.description import Api, Description, Endpoint, ModelInfo, Pipeline, Stage, StageGroup, Step
from sluiceway.client.drawing import draw
from sluiceway.client.events import Event, JobDone, Regions, SourceDone, SourceFailed, SourceReady, Subject, Values
from sluiceway.client.options import Options, Priority, StepOptions, Tls
from sluiceway.client.patience import RetryPolicy
from sluiceway.client.regions import Box, Character, Keypoint, Label, Reading, Region, Word
from sluiceway.client.results import (
    Block,
    Line,
    Model,
    Notice,
    Page,
    Result,
    StageTimings,
    StepReport,
    Timings,
    to_pandas,
)
from sluiceway.client.runs import AsyncResults, Results
from sluiceway.client.sources import ApiCall, Source, SourceLike
from sluiceway.client.stories import CriticalPath, Explanation, critical_path

__all__ = [
    "DEFAULT_ADDRESS",
    "EXPLAIN_TIMEOUT_S",
    "PATIENCE_S",
    "Client",
    "AsyncClient",
    "Options",
    "StepOptions",
    "Priority",
    "RetryPolicy",
    "Tls",
    "ApiCall",
    "Source",
    "SourceLike",
    "Result",
    "Results",
    "AsyncResults",
    "Page",
    "Region",
    "Box",
    "Reading",
    "Character",
    "Word",
    "Keypoint",
    "Label",
    "Line",
    "Block",
    "Notice",
    "StepReport",
    "Timings",
    "StageTimings",
    "Model",
    "Event",
    "SourceReady",
    "Regions",
    "Values",
    "Subject",
    "SourceDone",
    "SourceFailed",
    "JobDone",
    "Description",
    "Pipeline",
    "Step",
    "Stage",
    "StageGroup",
    "Endpoint",
    "ModelInfo",
    "Api",
    "Explanation",
    "CriticalPath",
    "critical_path",
    "draw",
    "to_pandas",
]
