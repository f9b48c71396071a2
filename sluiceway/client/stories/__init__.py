"""Stories of requests: what the servers of a cluster remember of one, and where its time went."""

from sluiceway.client.stories.path import CriticalPath, Segment, critical_path
from sluiceway.client.stories.types import Batch, Call, Explanation, ServerStory, SourceStory, Span, SpanKind

__all__ = [
    "Batch",
    "Call",
    "CriticalPath",
    "Explanation",
    "Segment",
    "ServerStory",
    "SourceStory",
    "Span",
    "SpanKind",
    "critical_path",
]
