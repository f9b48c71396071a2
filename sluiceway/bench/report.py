"""A whole report: what was asked, on what, and the figures."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from sluiceway.bench.search import Knee
from sluiceway.bench.summary import Summary
from sluiceway.client.description import Description, ModelInfo

__all__ = ["Report", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """What was measured.

    Attributes:
        address: of the server.
        pipeline: its name.
        sources: what was sent, as it was named.
        server: what the server said of itself.
    """

    address: str
    pipeline: str
    sources: Sequence[str]
    server: Description

    @property
    def stages(self) -> list[str]:
        """One line for each stage of the pipeline: replicas, workers, models."""
        lines = []
        for name in self.server.stages_of(self.pipeline):
            stage = next((item for item in self.server.stages if item.name == name), None)
            if stage is None:
                continue
            ready = sum(endpoint.ready for endpoint in stage.endpoints)
            models = ", ".join(_model(item) for item in stage.models)
            lines.append(f"{name}: {ready} x {stage.workers} workers, {models}")
        return lines


def _model(info: ModelInfo) -> str:
    # A stage of one's own may tell neither.
    how = " on ".join(part for part in (info.precision, info.device) if part)
    return f"{info.model.name} ({how})" if how else info.model.name


@dataclass(frozen=True, slots=True)
class Report:
    """What `sluiceway bench` found.

    Attributes:
        target: what was measured.
        load: what was sent, in words.
        begun: when, as ISO 8601 with its zone.
        summary: figures of the run; with a knee, of the trial whose rate was nearest to it. None where there is none.
        knee: None unless it was looked for.
    """

    target: Target
    load: str
    begun: str
    summary: Summary | None
    knee: Knee | None = None

    @property
    def passed(self) -> bool:
        """Whether what was asked for was found: an answer, and the goal kept, or a knee."""
        if self.knee is not None:
            return self.knee.rate_per_s is not None
        return self.summary is not None and len(self.summary.latencies) > 0 and self.summary.kept is not False

    def facts(self) -> dict[str, str]:
        """What a reader needs to judge the figures, by name."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        sent = ", ".join(self.target.sources[:4]) + (", …" if len(self.target.sources) > 4 else "")
        return {
            "server": f"{self.target.address}, version {self.target.server.server_version}",
            "pipeline": self.target.pipeline,
            "stages": "; ".join(self.target.stages) or "not told",
            "sent": f"{len(self.target.sources)} sources: {sent}",
            "load": self.load,
            "client": f"{platform.machine()} with {cores} cores, sluiceway {metadata.version('sluiceway')}, "
            f"grpcio {metadata.version('grpcio')}, Python {platform.python_version()}",
            "begun": self.begun,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the output of `sluiceway bench --json`."""
        return {
            "facts": self.facts(),
            "knee": self.knee.to_dict() if self.knee else None,
            "summary": self.summary.to_dict() if self.summary else None,
            "passed": self.passed,
        }
