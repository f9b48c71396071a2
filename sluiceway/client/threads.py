"""Work that may never end, kept off the event loop, and out of the way of whoever stops waiting for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread"]

Answer = TypeVar("Answer")


async def in_thread(work: Callable[[], Answer]) -> Answer:
    """Run a function on a thread of its own and return what it returns.

    Unlike `asyncio.to_thread`, nothing waits for it once this is cancelled, not even the end of the program: a mount
    that does not answer, or a pipe that nobody reads, would hold that up for ever.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Answer] = loop.create_future()

    def tell(answer: Answer | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(answer)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        answer: Answer | None = None
        fault: BaseException | None = None
        try:
            answer = work()
        except BaseException as error:  # of any kind: raised again where it is waited for
            fault = error
        try:
            loop.call_soon_threadsafe(tell, answer, fault)
        except RuntimeError:
            # The loop has ended meanwhile.
            return

    threading.Thread(target=run, name="sluiceway-work", daemon=True).start()
    return await future
