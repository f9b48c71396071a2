"""Public test doubles: stages without models, and an orchestrator between them."""

from sluiceway_orchestrator.testing.cluster import Cluster, SourceEvents
from sluiceway_orchestrator.testing.stages import (
    FakeDetection,
    FakeRecognition,
    FakeServer,
    document,
    picture,
    picture_number,
)

__all__ = [
    "Cluster",
    "FakeDetection",
    "FakeRecognition",
    "FakeServer",
    "SourceEvents",
    "document",
    "picture",
    "picture_number",
]
