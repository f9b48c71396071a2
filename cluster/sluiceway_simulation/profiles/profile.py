"""A profile: how long the stages of a pipeline take on some machine, and what the rest of the cluster costs there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["ProfileFault", "PipelineProfile", "StageProfile", "shipped"]

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
        efforts: for each of those images, what detection takes for it and recognition for a region of it, as multiples
            of their averages; empty where that was not measured.
        spread: standard deviation of the logarithm of a batch's time.
        error: of predictions from this profile against real runs, where that was measured: the largest, as a part of
            the throughput and of the 99th percentile.
        source: where the figures come from, for people; empty for those that `tune` measured.
    """

    machine: str
    cores: int
    pipeline: str
    stages: Mapping[str, StageProfile]
    orchestrator_ms: float
    client_ms: float
    regions: tuple[int, ...]
    efforts: tuple[tuple[float, float], ...] = ()
    spread: float = 0.1
    error: tuple[float, float] | None = None
    source: str = ""

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


def shipped() -> dict[str, Path]:
    """Profiles of known machines that come with this package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "shipped").glob("*.json"))}


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
    efforts = tuple((float(first), float(second)) for first, second in data.pop("efforts", ()))
    if efforts and len(efforts) != len(regions):
        raise ValueError(f"{len(efforts)} efforts of {len(regions)} images")
    return PipelineProfile(
        **data,
        stages=stages,
        regions=regions,
        efforts=efforts,
        error=None if error is None else (float(error[0]), float(error[1])),
    )
