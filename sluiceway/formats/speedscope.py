"""The critical paths of a story in the format of speedscope (https://www.speedscope.app/file-format-schema.json)."""

from __future__ import annotations

import json
from typing import Any

from sluiceway.client.stories.path import CriticalPath, critical_path
from sluiceway.client.stories.types import Explanation
from sluiceway.client.stories.words import describe_segment

__all__ = ["to_speedscope"]

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def to_speedscope(explanation: Explanation) -> str:
    """Write a profile for each source of each job: below the server what its time was spent on."""
    frames: dict[str, int] = {}
    profiles = []
    for server, job in explanation.jobs:
        for source in job.sources:
            path = critical_path(explanation, job, source.source, server.server)
            name = f"{job.job_id or explanation.request_id}, source {source.source}"
            profiles.append(_profile(name, path, frames))
    return json.dumps(
        {
            "$schema": SCHEMA,
            "exporter": "sluiceway explain",
            "name": explanation.request_id,
            "activeProfileIndex": 0,
            "shared": {"frames": [{"name": name} for name in frames]},
            "profiles": profiles,
        },
        ensure_ascii=False,
    )


def _profile(name: str, path: CriticalPath, frames: dict[str, int]) -> dict[str, Any]:
    events: list[dict[str, Any]] = []
    at_ms = 0.0
    for segment in path.segments:
        where = segment.server or "network"
        words = describe_segment(segment.what) + (f" ({segment.step})" if segment.step else "")
        stack = [frames.setdefault(frame, len(frames)) for frame in (where, f"{where}: {words}")]
        ends_ms = at_ms + segment.duration_ms
        events += [{"type": "O", "frame": frame, "at": round(at_ms, 6)} for frame in stack]
        events += [{"type": "C", "frame": frame, "at": round(ends_ms, 6)} for frame in reversed(stack)]
        at_ms = ends_ms
    return {
        "type": "evented",
        "name": name,
        "unit": "milliseconds",
        "startValue": 0,
        "endValue": round(at_ms, 6),
        "events": events,
    }
