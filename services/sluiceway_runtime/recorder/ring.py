"""The latest rows, bounded in number and in bytes."""

from __future__ import annotations

import marshal
from collections import deque
from collections.abc import Iterator
from typing import Any

__all__ = ["MOST_REQUESTS", "Ring"]

# Requests that a server remembers.
MOST_REQUESTS = 10_000
# Of marshal: floats in eight bytes, and no look at what is the same object.
_VERSION = 2


class Ring:
    """Rows in the order in which they came; the oldest go as new ones come.

    Each is one piece of memory. As tuples they would be two dozen, strewn over the places where what a request needs is
    made and freed: with ten thousand of them in between, all that every request touches lies apart, and takes longer.

    Args:
        most_rows: that are kept.
        most_bytes: of all rows that are kept together; one that is larger by itself is kept alone.
    """

    def __init__(self, most_rows: int, most_bytes: int) -> None:
        self._rows: deque[bytes] = deque()
        self._most_rows = most_rows
        self._most_bytes = most_bytes
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<Ring {len(self._rows)} of {self._most_rows} rows, {self.size_bytes} of {self._most_bytes} bytes>"

    def add(self, row: tuple[Any, ...]) -> None:
        """Add a row: texts, numbers, None, and tuples of them."""
        rows = self._rows
        packed = marshal.dumps(row, _VERSION)
        rows.append(packed)
        self.size_bytes += len(packed)
        while len(rows) > self._most_rows or (self.size_bytes > self._most_bytes and len(rows) > 1):
            self.size_bytes -= len(rows.popleft())

    def holding(self, text: str) -> Iterator[tuple[Any, ...]]:
        """Rows that hold a text somewhere, in the order in which they came."""
        wanted = text.encode("utf-8", "surrogatepass")
        return (marshal.loads(row) for row in self._rows if wanted in row)  # noqa: S302 - nobody else wrote it

    @property
    def oldest(self) -> tuple[Any, ...] | None:
        """The row that goes next, None if there is none."""
        return marshal.loads(self._rows[0]) if self._rows else None  # noqa: S302 - nobody else wrote it
