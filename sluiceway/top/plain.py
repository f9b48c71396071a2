"""One look at a cluster as plain text, for scripts, logs and people without a terminal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from sluiceway.figures import ClusterFigures, Limit
from sluiceway.top.history import History
from sluiceway.top.rows import GAP, Column, columns_of, rows_of

__all__ = ["head_of", "subject_of", "to_json", "to_text"]


def to_json(figures: ClusterFigures) -> str:
    """One object in one line; shares are 0..1, times are in the unit that their name ends with."""
    return json.dumps(dataclasses.asdict(figures), ensure_ascii=False, separators=(",", ":"))


def to_text(figures: ClusterFigures, width: int) -> str:
    """What limits, and the table."""
    gpu = any(stage.gpu is not None for stage in figures.stages)
    # There is no history in one look.
    columns = [column for column in columns_of(width, gpu=gpu) if column.key not in ("spark", "bar")]
    lines = []
    for limit in figures.limits:
        lines.append(f"{subject_of(limit)}{limit.what}")
        if limit.help:
            lines.append(f"  → {limit.help}")
    rows = rows_of(figures, History(), columns)
    return "\n".join(
        (
            *lines,
            "",
            _line({column.key: column.title for column in columns}, columns),
            *(_line(row.cells, columns) for row in rows),
            "",
        )
    )


def subject_of(limit: Limit) -> str:
    """What stands before what it is: a mark for a fault, and which part."""
    mark = "! " if limit.fault else ""
    return f"{mark}{limit.subject}: " if limit.subject else mark


def head_of(figures: ClusterFigures) -> list[str]:
    """The orchestrator's own figures that no column has, the more telling first."""
    own, front = figures.orchestrator, figures.orchestrator.front
    parts = [f"failing {own.failed_rate:.1f}/s"] if own.failed_rate else []
    parts += [f"jobs {own.jobs}", f"at work {own.working} of {own.working_limit}", f"waiting {own.waiting}"]
    if front.held_limit_bytes:
        parts.append(f"held {front.held_bytes / 2**20:.0f} of {front.held_limit_bytes / 2**20:.0f} MB")
    return parts


def _line(cells: dict[str, str], columns: Sequence[Column]) -> str:
    texts = []
    for column in columns:
        text = cells.get(column.key, "")
        texts.append(text.rjust(column.width) if column.right else text.ljust(column.width))
    return (" " * GAP).join(texts).rstrip()
