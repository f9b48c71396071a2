"""Asks every orchestrator of an address for the story of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sluiceway.client.addresses import Place, is_local, places_of
from sluiceway.client.stories.types import Explanation, ServerStory
from sluiceway.errors import SluicewayError, Unavailable

__all__ = ["ask_every_server"]

# Asks one server, within its time.
Ask = Callable[[Place], Awaitable[tuple[ServerStory, ...]]]


async def ask_every_server(address: str, request_id: str, ask: Ask) -> Explanation:
    """Ask every server that an address stands for, all at once.

    Raises:
        SluicewayError: none of them answers.
    """
    try:
        places = await places_of(address)
    except OSError as error:
        raise Unavailable(f"{address} is not known: {error.strerror or error}") from error
    answers = await asyncio.gather(*(_asked(ask, place) for place in places))
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


async def _asked(ask: Ask, place: Place) -> tuple[ServerStory, ...] | SluicewayError:
    try:
        return await ask(place)
    except SluicewayError as error:
        return error


def _once(stories: Sequence[ServerStory]) -> tuple[ServerStory, ...]:
    """Each process once: it may have addresses of both kinds, and replicas are asked by every orchestrator."""
    known: dict[str, ServerStory] = {}
    for story in stories:
        known.setdefault(story.instance or f"{story.server} at {story.address}", story)
    return tuple(known.values())
