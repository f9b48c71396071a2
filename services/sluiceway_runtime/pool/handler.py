"""What runs inside a worker: the interface that a stage implements around its model."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.errors import SluicewayError, StartupError
from sluiceway_runtime.pool.payload import Payload

__all__ = ["Finish", "Handler", "OverlappingHandler", "WorkerBroken", "checked", "load_handler"]


class WorkerBroken(BaseException):
    """Raised by a handler whose process can compute nothing any more, as after a fault of a GPU: it ends the worker.

    The pool then treats its batches as those of a crash. No fault of a batch, so it is no `Exception`.
    """


class Handler(Protocol):
    """A model as a worker sees it. One instance lives in each worker; its methods are called from its main thread."""

    def setup(self, placement: Placement) -> Mapping[str, Any]:
        """Import model libraries, load, warm up. The worker is ready when this returns.

        Returns:
            Picklable facts about what was loaded; they reach `Pool.facts`.

        Raises:
            Exception: any. Its message becomes the `StartupError` of the pool.
        """
        ...

    def run(self, batch: Sequence[Payload]) -> Sequence[Payload | SluicewayError]:
        """Compute one batch.

        Args:
            batch: one item or more, all of one group. Their buffers are read-only memoryviews.

        Returns:
            One result per item, in order. A `SluicewayError` in the list fails that item alone.

        Raises:
            Exception: any. The batch is then split and run again until the guilty item is found.
        """
        ...


Finish = Callable[[], Sequence[Payload | SluicewayError]]


class OverlappingHandler(Handler, Protocol):
    """A handler whose batches overlap: while a device computes one, the worker prepares the next."""

    def launch(self, batch: Sequence[Payload]) -> Finish:
        """Start a batch and return what waits for its end.

        Up to `WorkerSpec.overlap` batches may have been launched and not finished; they are finished in the order in
        which they were launched, each once.

        Args:
            batch: as for `run`.

        Returns:
            A callable that waits and then returns what `run` would. Like `launch` itself it may raise, which fails
            this batch alone.
        """
        ...


def load_handler(factory: str, config: Mapping[str, Any]) -> Handler:
    """Make a handler from the name of its factory.

    Args:
        factory: `module:callable`; the callable takes the configuration and returns a `Handler`.
        config: handed to the callable as it is.

    Raises:
        StartupError: the name is malformed, or there is no such module or attribute.
    """
    module_name, colon, attribute = factory.partition(":")
    if not (module_name and colon and attribute):
        raise StartupError(f"{factory!r} does not name a handler; it must look like module:callable")
    try:
        build = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise StartupError(f"the handler {factory} cannot be loaded: {error}") from error
    return cast("Handler", build(config))


def checked(results: Sequence[Payload | SluicewayError], count: int) -> tuple[Payload | SluicewayError, ...]:
    """Hold a handler to its contract.

    Args:
        results: what it returned for a batch.
        count: items of the batch.

    Raises:
        TypeError: the number or the type of the results is wrong.
    """
    results = tuple(results)
    if len(results) != count:
        raise TypeError(f"the handler returned {len(results)} results for {count} items")
    for result in results:
        if not isinstance(result, Payload | SluicewayError):
            raise TypeError(f"the handler returned a {type(result).__name__}, not a Payload or a SluicewayError")
    return results
