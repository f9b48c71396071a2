"""The Python client: give it images, get typed results.

from sluiceway import Client

with Client("localhost:50051") as client:
    for region in client.process("photo.jpg").regions:
        print(region.text, region.box)
"""

from sluiceway.client.aio import DEFAULT_ADDRESS, AsyncClient
from sluiceway.client.blocking import Client
from sluiceway.client.description import Api, Description, Endpoint, ModelInfo, Stage
from sluiceway.client.drawing import draw
from sluiceway.client.events import Detected, Event, ImageReady, JobDone, Recognized, SourceDone, SourceFailed
from sluiceway.client.options import Options, Priority, RetryPolicy, Tls
from sluiceway.client.results import (
    Box,
    Character,
    Label,
    Model,
    Reading,
    Region,
    Result,
    StageTimings,
    Timings,
    to_pandas,
)
from sluiceway.client.sources import ApiCall, SourceLike

__all__ = [
    "DEFAULT_ADDRESS",
    "Client",
    "AsyncClient",
    "Options",
    "Priority",
    "RetryPolicy",
    "Tls",
    "ApiCall",
    "SourceLike",
    "Result",
    "Region",
    "Box",
    "Reading",
    "Character",
    "Label",
    "Timings",
    "StageTimings",
    "Model",
    "Event",
    "ImageReady",
    "Detected",
    "Recognized",
    "SourceDone",
    "SourceFailed",
    "JobDone",
    "Description",
    "Stage",
    "Endpoint",
    "ModelInfo",
    "Api",
    "draw",
    "to_pandas",
]
