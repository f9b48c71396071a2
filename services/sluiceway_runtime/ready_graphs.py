"""How many graphs this process holds ready on a GPU, for metrics. Knows nothing of torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

__all__ = ["count_graph", "graphs"]

_graphs: Counter[str] = Counter(compiled=0, plain=0)


def count_graph(kind: Literal["compiled", "plain"]) -> None:
    """One more is ready."""
    _graphs[kind] += 1


def graphs() -> Mapping[str, int]:
    """Those of all modules, `compiled` and `plain`."""
    return dict(_graphs)
