"""Results of many sources as they come, and the way to give up one of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Self

from sluiceway.client.results import Result

__all__ = ["AsyncResults", "Results"]


class AsyncResults(AsyncIterator[Result]):
    """What `AsyncClient.process_many` returns: iterate over it, once.

    Resource handling: nothing begins before the first result is asked for. Leaving the loop early ends what is on its
    way when this is closed; `contextlib.aclosing` does that at once.
    """

    def __init__(self, results: AsyncGenerator[Result], cancel: Callable[[int], None]) -> None:
        self._results = results
        self._cancel = cancel

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        return await anext(self._results)

    def cancel(self, index: int) -> None:
        """Give up one source; the others go on.

        Args:
            index: its position in the iterable, from 0; it may be one that was not drawn yet.

        Its result comes in its turn, with `sluiceway.errors.Cancelled` as `error`, and the server stops working on it,
        regions that wait included. If it has ended by then, its result stays what it is.
        """
        self._cancel(index)

    async def aclose(self) -> None:
        """End what is on its way."""
        await self._results.aclose()


class Results(Iterator[Result]):
    """What `Client.process_many` returns: iterate over it, once. See `AsyncResults`.

    Resource handling: as there, with `contextlib.closing`. `cancel` may be called from any thread, also while another
    one waits for the next result.
    """

    def __init__(self, results: Generator[Result], cancel: Callable[[int], None]) -> None:
        self._results = results
        self._cancel = cancel

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Result:
        return next(self._results)

    def cancel(self, index: int) -> None:
        """Give up one source; see `AsyncResults.cancel`."""
        self._cancel(index)

    def close(self) -> None:
        """End what is on its way."""
        self._results.close()
