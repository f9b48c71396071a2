"""Which batches are computed: the sizes that have graphs, and how a number of crops is made up of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sluiceway_recognition.inputs.buckets import DEFAULT_BATCHES, DEFAULT_COMPILED

__all__ = ["BatchSizes", "GraphSettings", "compile_order", "graph_sizes"]

# Words are this wide and narrower; wider crops are rare.
COMMON_WIDTH = 320


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """How a GPU's graphs are made. Picklable.

    Attributes:
        batches: sizes that have graphs, ascending.
        max_px: most pixels in a batch, padding included.
        compiled: how many graphs of a model are compiled, the most useful first; the rest are as torch computes them.
        depth: batches of a model on their way at once.
        workers_on_device: that share one device.
    """

    batches: tuple[int, ...] = DEFAULT_BATCHES
    max_px: int = 128 * 48 * 640
    compiled: int = DEFAULT_COMPILED
    depth: int = 3
    workers_on_device: int = 1


def graph_sizes(settings: GraphSettings, widths: Sequence[int], height: int) -> list[tuple[int, int]]:
    """Every (batch, width) that gets a graph. Where the largest batch would have too many pixels, it is cut to fit."""
    sizes = []
    for width in widths:
        most = max(1, settings.max_px // (height * width))
        sizes += [(batch, width) for batch in sorted({min(batch, most) for batch in settings.batches})]
    return sizes


def compile_order(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The graphs in the order in which compiling them pays.

    Full batches of words first, as they carry the load; then the smallest of them, which somebody waits for; then full
    batches of wide lines, and the sizes between.
    """
    full: dict[int, int] = {}
    for batch, width in sizes:
        full[width] = max(batch, full.get(width, 0))
    smallest = min(batch for batch, _ in sizes)

    def rank(size: tuple[int, int]) -> tuple[int, int]:
        batch, width = size
        common = width <= COMMON_WIDTH or width == min(full)
        if batch == full[width]:
            return (0 if common else 2), width
        # The widest of the common widths stands for the rest, whose crops take less time anyway.
        return (1 if batch == smallest and common else 3), -width

    return sorted(sizes, key=rank)


class BatchSizes:
    """Makes up any number of crops of batches that have graphs, in the least time.

    Args:
        costs_ms: for each width, the time of each batch that there is.
    """

    def __init__(self, costs_ms: Mapping[int, Mapping[int, float]]) -> None:
        self._costs_ms = {width: dict(costs) for width, costs in costs_ms.items()}
        self._first: dict[int, list[int]] = {}

    def first(self, width: int, count: int) -> int:
        """The batch to compute first, of those that together hold `count` crops at the least cost.

        It may be larger than `count`: a part of it is then padding.
        """
        largest = max(self._costs_ms[width])
        if count >= 2 * largest:
            return largest
        table = self._first.get(width)
        if table is None:
            table = self._first[width] = self._table(self._costs_ms[width], 2 * largest)
        return table[count]

    def drop(self, width: int, batch: int) -> bool:
        """Use a batch no more, nor a larger one; False if nothing would be left."""
        left = {size: cost for size, cost in self._costs_ms[width].items() if size < batch}
        if not left:
            return False
        self._costs_ms[width] = left
        self._first.pop(width, None)
        return True

    @staticmethod
    def _table(costs_ms: Mapping[int, float], most: int) -> list[int]:
        """For each number of crops the batch to begin with: the shortest way, number by number."""
        least, first = [0.0], [0]
        for count in range(1, most):
            # Large batches first where it is all the same: fewer steps for the host.
            cost, batch = min((costs_ms[size] + least[max(count - size, 0)], -size) for size in costs_ms)
            least.append(cost)
            first.append(-batch)
        return first
