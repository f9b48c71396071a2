"""A profile: how long the stages of a pipeline take on some machine, and what the rest of the cluster costs there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["ProfileFault", "PipelineProfile", "StageProfile"]

FORMAT = 1


class ProfileFault(Exception):
    """A file is no profile; the message says what of it is not."""


@dataclass(frozen=True, slots=True)
class StageProfile:
    """One stage.

    Attributes:
        kind: "detection" or "recognition".
        batch_ms: by threads of a worker, points (items of a batch, its mean time), at least one.
        front_ms: CPU time of its front for an image.
        memory_mb: of one worker.
        start_s: until a server is ready.
        device: "cpu" or "cuda".
        max_batch: most items in a batch.
    """

    kind: str
    batch_ms: Mapping[int, tuple[tuple[float, float], ...]]
    front_ms: float
    memory_mb: float
    start_s: float = 5.0
    device: str = "cpu"
    max_batch: int = 1


@dataclass(frozen=True, slots=True)
class PipelineProfile:
    """A pipeline of a detection and a recognition stage on one machine.

    Attributes:
        machine: what it is, for people.
        cores: that the measurement might use.
        pipeline: its name.
        stages: by kind.
        orchestrator_ms: CPU time of the orchestrator for an image.
        client_ms: CPU time of whoever sent the images, which ran on the machine as well.
        regions: of each image that it was measured with.
        spread: standard deviation of the logarithm of a batch's time.
        error: of predictions from this profile against real runs, where that was measured: the largest, as a part of
            the throughput and of the 99th percentile.
    """

    machine: str
    cores: int
    pipeline: str
    stages: Mapping[str, StageProfile]
    orchestrator_ms: float
    client_ms: float
    regions: tuple[int, ...]
    spread: float = 0.1
    error: tuple[float, float] | None = None

    @property
    def fronts_ms(self) -> float:
        """CPU time of everything but workers and client, for an image."""
        return self.orchestrator_ms + sum(stage.front_ms for stage in self.stages.values())

    def write(self, path: Path) -> None:
        """Write it as JSON. Raises OSError."""
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> PipelineProfile:
        """Read what `write` wrote.

        Raises:
            ProfileFault: it is none, or of another format.
        """
        try:
            return _from_json(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ProfileFault(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ProfileFault(f"{path} is no profile: {error!r}") from error


def _from_json(data: dict[str, Any]) -> PipelineProfile:
    if (found := data.pop("format", None)) != FORMAT:
        raise ValueError(f"format {found}, and this release reads {FORMAT}")
    stages = {}
    for kind, stage in data.pop("stages").items():
        points = {
            int(threads): tuple((float(x), float(y)) for x, y in curve) for threads, curve in stage["batch_ms"].items()
        }
        if not points or not all(points.values()):
            raise ValueError(f"stages.{kind}.batch_ms has no points")
        stages[kind] = StageProfile(**{**stage, "batch_ms": points})
    if set(stages) != {"detection", "recognition"}:
        raise ValueError(f"stages are {sorted(stages)}, not detection and recognition")
    error = data.pop("error", None)
    regions = tuple(int(count) for count in data.pop("regions"))
    return PipelineProfile(
        **data, stages=stages, regions=regions, error=None if error is None else (float(error[0]), float(error[1]))
    )
