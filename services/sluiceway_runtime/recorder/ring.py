"""The latest rows, bounded in number and in weight."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["MOST_REQUESTS", "Ring"]

Row = TypeVar("Row")

# Requests that a server remembers.
MOST_REQUESTS = 10_000


class Ring(Generic[Row]):
    """Rows in the order in which they came; the oldest go as new ones come.

    Args:
        most_rows: that are kept.
        most_weight: of all rows that are kept together; one that is heavier by itself is kept alone.
    """

    def __init__(self, most_rows: int, most_weight: int) -> None:
        self._rows: deque[tuple[int, Row]] = deque()
        self._most_rows = most_rows
        self._most_weight = most_weight
        self._weight = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return (row for _, row in self._rows)

    def __repr__(self) -> str:
        return f"<Ring {len(self._rows)} of {self._most_rows} rows, weight {self._weight} of {self._most_weight}>"

    @property
    def oldest(self) -> Row | None:
        """The row that goes next, None if there is none."""
        return self._rows[0][1] if self._rows else None

    def add(self, row: Row, weight: int = 1) -> None:
        """Add a row.

        Args:
            row: anything.
            weight: how much of it there is, in parts that take about as much memory each.
        """
        rows = self._rows
        rows.append((weight, row))
        self._weight += weight
        while len(rows) > self._most_rows or (self._weight > self._most_weight and len(rows) > 1):
            self._weight -= rows.popleft()[0]
