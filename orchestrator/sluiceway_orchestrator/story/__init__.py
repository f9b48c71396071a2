"""What the orchestrator notes of a job while it runs, and remembers of it afterwards: where its time went.

A source goes through a chain of spans, each of which begins where the one before it ended. Where work forks, each part
begins when what it works on was there (`since_s`). So the spans on the way to the last event leave no time out.
"""

from sluiceway_orchestrator.story.jobs import JobLog, JobStory, TracedJob
from sluiceway_orchestrator.story.rows import AttemptRow, Fault, JobRow, SourceRow, SpanRow
from sluiceway_orchestrator.story.source import MOST_SPANS, SHORT_S, Attempt, Begin, SourceStory, unrecorded

__all__ = [
    "MOST_SPANS",
    "SHORT_S",
    "Attempt",
    "AttemptRow",
    "Begin",
    "Fault",
    "JobLog",
    "JobRow",
    "JobStory",
    "SourceRow",
    "SourceStory",
    "SpanRow",
    "TracedJob",
    "unrecorded",
]
