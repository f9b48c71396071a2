"""Make docs/metrics.md: `python deploy/metrics.py`. Every family of metrics, from the code that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from sluiceway_orchestrator.metrics.catalogue import ORCHESTRATOR
from sluiceway_runtime.metrics.catalogue import EVERY_SERVER, STAGES
from sluiceway_runtime.metrics.instruments import Family

TARGET = Path(__file__).parents[1] / "docs" / "metrics.md"
HEAD = """\
# Every metric

Made by `deploy/metrics.py` from the code that shows them; a test holds it against what servers show.

`GET /metrics` of a server's operations port (9051 orchestrator, 9052 detection, 9053 recognition), in the format of
Prometheus, from the moment that the server begins to start. Names are OpenTelemetry's where it has one, as Prometheus
writes them. Of a histogram `NAME_bucket`, `NAME_sum` and `NAME_count` are shown; its `_count` is how many there were.
What can be known beforehand is shown as 0 from the start, so that the first of its kind is seen as a rise.

[operations.md](operations.md) says what to look at and what to do.
"""
SECTIONS: tuple[tuple[str, Sequence[Family]], ...] = (
    ("Every server", EVERY_SERVER),
    ("Orchestrator", ORCHESTRATOR),
    ("Stages", STAGES),
)
OWN = """\
## Process and Python

What prometheus-client shows itself, of the server's own process: its workers have `sluiceway_worker_memory_bytes`.

| metric | kind | labels | |
|---|---|---|---|
"""


def own() -> list[Family]:
    """What prometheus-client's collectors show."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return [
        Family(
            family.name,
            "counter" if family.type == "counter" else "gauge",
            family.documentation.rstrip(".") + ".",
            tuple(family.samples[0].labels),
        )
        for family in registry.collect()
        if family.samples
    ]


def rows(families: Sequence[Family]) -> Iterator[str]:
    """A line of the table for each."""
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"| `{family.shown}` | {family.kind} | {labels} | {family.text} |"


def text() -> str:
    """The whole document."""
    parts = [HEAD]
    for title, families in SECTIONS:
        lines = [f"## {title}", "", "| metric | kind | labels | |", "|---|---|---|---|"]
        parts.append("\n".join([*lines, *rows(families)]) + "\n")
    parts.append(OWN + "\n".join(rows(own())) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
