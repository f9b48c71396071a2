"""Asks every orchestrator of an address for the story of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from sluiceway.client.addresses import Place, is_local, places_of
from sluiceway.client.stories.types import Explanation, ServerStory
from sluiceway.errors import SluicewayError, Unavailable

__all__ = ["ask_every_server"]


class Asked(Protocol):
    """What is used of a connection."""

    async def explain(self, request_id: str, timeout_s: float | None) -> tuple[ServerStory, ...]:
        """See `Connection`."""
        ...

    async def close(self) -> None:
        """See `Connection`."""
        ...


# Connects to one server, by its address and the name that its certificate is for.
Connect = Callable[[str, str | None], Asked]


async def ask_every_server(address: str, request_id: str, connect: Connect, timeout_s: float) -> Explanation:
    """Ask every server that an address stands for, all at once.

    Raises:
        SluicewayError: none of them answers.
    """
    try:
        places = await places_of(address)
    except OSError as error:
        raise Unavailable(f"{address} is not known: {error.strerror or error}") from error
    answers = await asyncio.gather(*(_asked(connect, place, request_id, timeout_s) for place in places))
    failed = [answer for answer in answers if isinstance(answer, SluicewayError)]
    if len(failed) == len(answers):
        raise failed[0]
    stories: list[ServerStory] = []
    for place, answer in zip(places, answers, strict=True):
        if not isinstance(answer, SluicewayError):
            stories += answer
        elif not (is_local(place.address) and place.name is not None):
            # `localhost` stands for addresses of both kinds, and a server listens on one.
            stories.append(ServerStory("orchestrator", address=place.address, error=answer))
    return Explanation(request_id, _once(stories))


async def _asked(
    connect: Connect, place: Place, request_id: str, timeout_s: float
) -> tuple[ServerStory, ...] | SluicewayError:
    connection = connect(place.address, place.name)
    try:
        return await connection.explain(request_id, timeout_s)
    except SluicewayError as error:
        return error
    finally:
        await connection.close()


def _once(stories: Sequence[ServerStory]) -> tuple[ServerStory, ...]:
    """Each process once: it may have addresses of both kinds, and replicas are asked by every orchestrator."""
    known: dict[str, ServerStory] = {}
    for story in stories:
        known.setdefault(story.instance or f"{story.server} at {story.address}", story)
    return tuple(known.values())
