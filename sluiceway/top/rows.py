"""The table: a row for the orchestrator, each stage with its replicas, and each API. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from sluiceway.figures import ApiFigures, ClusterFigures, OrchestratorFigures, ReplicaFigures, StageFigures
from sluiceway.top import words
from sluiceway.top.history import ORCHESTRATOR, History, key_of_replica, key_of_stage

__all__ = ["COLUMNS", "Column", "Order", "Row", "columns_of", "rows_of"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key: by which cells are found.
        title: its head.
        width: in characters.
        rank: the columns of lower ranks have room before it.
        right: whether it is aligned to the right, as figures are.
    """

    key: str
    title: str
    width: int
    rank: int = 0
    right: bool = True


# Between two columns.
GAP = 2
COLUMNS = (
    Column("name", "", 18, rank=0, right=False),
    Column("state", "ready", 9, rank=7, right=False),
    Column("rate", "rate", 7, rank=1),
    Column("spark", "", 12, rank=11, right=False),
    Column("waiting", "waiting", 7, rank=8),
    Column("wait", "oldest", 7, rank=2),
    Column("p50", "p50", 7, rank=5),
    Column("p99", "p99", 7, rank=4),
    Column("busy", "busy", 4, rank=3),
    Column("bar", "", 8, rank=12, right=False),
    Column("batch", "batch", 5, rank=6),
    Column("gpu", "GPU", 4, rank=9),
    Column("restarts", "restarts", 8, rank=10),
    Column("memory", "memory", 8, rank=13),
)
# What is gained by a wider terminal goes to the names first, then to what was before.
WIDEST_NAME, WIDEST_SPARK = 26, 40


class Order(Enum):
    """How stages, and replicas within a stage, are ordered."""

    PIPELINE = "pipeline"
    WAIT = "oldest wait"
    BUSY = "busy"
    RATE = "rate"
    P99 = "p99"

    def next(self) -> Order:
        """The one after it, round and round."""
        orders = list(Order)
        return orders[(orders.index(self) + 1) % len(orders)]


# What is compared, by the name that stages and replicas have it under.
_VALUES = {Order.WAIT: "wait_ms", Order.BUSY: "busy", Order.RATE: "rate", Order.P99: "p99_ms"}
Part = TypeVar("Part", StageFigures, ReplicaFigures)


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        key: the same as long as it is about the same.
        kind: "orchestrator", "stage", "replica" or "api".
        cells: texts by column; what is missing is empty.
        fault: whether it needs to be looked at.
        stage, address: of a replica.
    """

    key: str
    kind: str
    cells: dict[str, str]
    fault: bool = False
    stage: str = ""
    address: str = ""


def columns_of(width: int, *, gpu: bool) -> tuple[Column, ...]:
    """The columns that a terminal of so many characters has room for.

    Args:
        width: of the terminal.
        gpu: whether any stage computes on one.
    """
    left, last = width, -1
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        if column.key == "gpu" and not gpu:
            continue
        if column.width + GAP > left:
            break
        left, last = left - column.width - GAP, column.rank
    shown = [column for column in COLUMNS if column.rank <= last and (gpu or column.key != "gpu")]
    widened = []
    for column in shown:
        most = {"name": WIDEST_NAME, "spark": WIDEST_SPARK}.get(column.key, column.width)
        more = max(0, min(left, most - column.width))
        left -= more
        widened.append(Column(column.key, column.title, column.width + more, column.rank, column.right))
    return tuple(widened)


def rows_of(
    figures: ClusterFigures,
    history: History,
    columns: Sequence[Column],
    *,
    order: Order = Order.PIPELINE,
    wanted: str = "",
) -> list[Row]:
    """Every row that is to be shown.

    Args:
        figures: of the cluster.
        history: what was before.
        columns: that are shown.
        order: of stages, and of replicas within a stage.
        wanted: part of the name of a stage, or of an address; others are left out.
    """
    width = {column.key: column.width for column in columns}
    rows = [] if wanted else [_orchestrator(figures.orchestrator, history, width)]
    for stage in _ordered(figures.stages, order):
        replicas = [
            replica
            for replica in _ordered(stage.replicas, order)
            if wanted.lower() in stage.name.lower() or wanted.lower() in replica.address.lower()
        ]
        if replicas or wanted.lower() in stage.name.lower():
            rows.append(_stage(stage, history, width))
            rows += [_replica(stage, replica, history, width) for replica in replicas]
    rows += [_api(api, width) for api in figures.apis if wanted.lower() in f"api {api.name}".lower()]
    return rows


def _ordered(parts: Sequence[Part], order: Order) -> list[Part]:
    if order not in _VALUES:
        return list(parts)
    # Those of which it is not known come last; among equals the order of the pipeline stays.
    known = {id(part): getattr(part, _VALUES[order]) for part in parts}
    return sorted(parts, key=lambda part: -1.0 if (found := known[id(part)]) is None else found, reverse=True)


def _orchestrator(figures: OrchestratorFigures, history: History, width: dict[str, int]) -> Row:
    front = figures.front
    cells = {
        "name": "orchestrator",
        "state": "ready",
        "rate": words.rate(figures.rate),
        "spark": words.sparkline(history.of(ORCHESTRATOR), width.get("spark", 0)),
        "waiting": words.count(figures.waiting),
        "wait": words.milliseconds(figures.wait_ms),
        "p50": words.milliseconds(figures.p50_ms),
        "p99": words.milliseconds(figures.p99_ms),
        "busy": words.percent(front.loop),
        "bar": words.bar(front.loop, width.get("bar", 0)),
        "memory": words.megabytes(front.memory_bytes),
    }
    return Row(ORCHESTRATOR, "orchestrator", cells)


def _stage(stage: StageFigures, history: History, width: dict[str, int]) -> Row:
    queued = sum(replica.queued for replica in stage.replicas)
    cells = {
        "name": words.shortened(stage.name, width["name"]),
        "state": f"{stage.ready} of {len(stage.replicas)}",
        "rate": words.rate(stage.rate),
        "spark": words.sparkline(history.of(key_of_stage(stage.name)), width.get("spark", 0)),
        "waiting": words.count(stage.backlog + queued),
        "wait": words.milliseconds(stage.wait_ms),
        "p50": words.milliseconds(stage.p50_ms),
        "p99": words.milliseconds(stage.p99_ms),
        "busy": words.percent(stage.busy),
        "bar": words.bar(stage.busy, width.get("bar", 0)),
        "batch": words.number(stage.batch),
        "gpu": words.percent(stage.gpu),
        "restarts": words.count(stage.restarts),
    }
    return Row(key_of_stage(stage.name), "stage", cells, fault=not stage.ready, stage=stage.name)


def _replica(stage: StageFigures, replica: ReplicaFigures, history: History, width: dict[str, int]) -> Row:
    key = key_of_replica(stage.name, replica.address)
    down = len(replica.workers) - replica.workers_ready
    state = _state(replica)
    # Where there is no column for it, it is told in the name's, but only if it is not what it should be.
    mark = "" if "state" in width or replica.ready else f" {state}"
    name = words.shortened(replica.address, width["name"] - 2 - len(mark))
    cells = {
        "name": f"  {name}{mark}",
        "state": state if not down or not replica.ready else f"{replica.workers_ready}/{len(replica.workers)} wrk",
        "rate": words.rate(replica.rate),
        "spark": words.sparkline(history.of(key), width.get("spark", 0)),
        "waiting": words.count(replica.queued),
        "wait": words.milliseconds(replica.wait_ms),
        "p50": words.milliseconds(replica.p50_ms),
        "p99": words.milliseconds(replica.p99_ms),
        "busy": words.percent(replica.busy),
        "bar": words.bar(replica.busy, width.get("bar", 0)),
        "batch": words.number(replica.batch),
        "gpu": words.percent(replica.gpu),
        "restarts": words.count(replica.restarts),
        "memory": words.megabytes(replica.front.memory_bytes) if replica.front is not None else words.UNKNOWN,
    }
    return Row(key, "replica", cells, fault=not replica.ready, stage=stage.name, address=replica.address)


def _state(replica: ReplicaFigures) -> str:
    if replica.ready:
        return "ready"
    return replica.state if replica.state and replica.state != "ready" else "away" if not replica.state else "not ready"


def _api(api: ApiFigures, width: dict[str, int]) -> Row:
    cells = {
        "name": words.shortened(f"api {api.name}", width["name"]),
        "state": "left alone" if api.broken else "",
        "rate": f"{api.in_flight}/{api.limit}",
        "waiting": words.count(api.waiting),
    }
    return Row(f"api {api.name}", "api", cells, fault=api.broken)
