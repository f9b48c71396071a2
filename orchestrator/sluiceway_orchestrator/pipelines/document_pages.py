"""The pages of one document through one detection step: in ranges, spread over the replicas, as they are done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from itertools import pairwise
from typing import Any

from sluiceway_runtime.account import Phase
from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.together import nursery, together

from sluiceway_orchestrator.convert.regions import text_values
from sluiceway_orchestrator.events import Subject, ValuesRead
from sluiceway_orchestrator.job import Buffer
from sluiceway_orchestrator.pipelines.source_state import SourceState
from sluiceway_orchestrator.pipelines.tree import RegionTree, whole_page
from sluiceway_orchestrator.plan import Step, StepKind
from sluiceway_orchestrator.stages.detection import Found, FoundPage, PageRange
from sluiceway_orchestrator.stages.replica import Replica
from sluiceway_orchestrator.wire import Buffers, bytes_field

__all__ = ["SEND_COPIES", "DocumentPages", "said_by_page", "tell_texts"]

# Copies of an image while it is sent: the message, and the one that gRPC makes of it.
SEND_COPIES = 2
# Pages for each worker of the replica that is asked first, which tells how many pages there are.
FIRST_PAGES = 2
# Pages of one range that are gone on with at a time; more are not taken from its replica, which then begins no more.
PAGES_AT_ONCE = 4
_DOCUMENT_FIELD = 1


class DocumentPages:
    """Detects in all pages. Each page is told of once, in whatever order, and a page that fails fails alone.

    Args:
        state: of the source.
        step: that detects.
        document: the file.
        found: what to do with the regions of a page, by its number.
    """

    def __init__(
        self, state: SourceState, step: Step, document: Buffer, found: Callable[[Found, int], Awaitable[None]]
    ) -> None:
        self._state = state
        self._step = step
        self._found = found
        fields = (state.detect_fields[step.name], state.binding.crop_fields[step.index])
        self._request = Buffers((bytes_field(_DOCUMENT_FIELD, len(document)), document, *fields))
        self._group = state.binding.groups[step.stage]
        self._detector = state.parts.detectors[step.stage]
        workers = max(1, self._group.description.workers)
        self._first = FIRST_PAGES * workers
        # Half of what it can do at once: the rest is for others, and is used if there are none.
        self._cost = (workers + 1) // 2
        # Pages that the client has heard of, one way or the other.
        self._answered: set[int] = set()
        self._sent: Counter[Replica[Any]] = Counter()
        # A pipeline that reads nothing has no use for text.
        reads = any(child.kind is StepKind.RECOGNIZE for child in state.pipeline.children[step.index])
        self._prefers_text = state.job.prefers_text and reads
        self._counted = asyncio.Event()
        self._page_count = 0
        self._succeeded = 0
        self._failure: SluicewayError | None = None

    async def run(self) -> None:
        """Run until every page is done.

        Raises:
            GroupGone: the version is not there any more.
            SluicewayError: the document cannot be read, or none of its pages.
        """
        if len(self._detector.stage.members_of(self._group)) > 1:
            await together([self._first_range(), self._other_ranges()])
        else:
            # It is sent once.
            await self._range(0, 0)
        if self._failure is not None and not self._succeeded:
            raise self._failure

    async def _first_range(self) -> None:
        try:
            await self._range(0, self._first)
        finally:
            self._counted.set()

    async def _other_ranges(self) -> None:
        """What is left, divided evenly, as soon as the number of pages is known."""
        await self._counted.wait()
        left = self._page_count - self._first
        if left <= 0:
            return
        parts = min(left, max(1, len(self._detector.stage.members_of(self._group))))
        bounds = [self._first + left * part // parts for part in range(parts + 1)]
        await together([self._range(start, end - start) for start, end in pairwise(bounds)])

    async def _range(self, first: int, most: int) -> None:
        state, step = self._state, self._step
        notes = state.notes[step.index]
        estimate = state.parts.estimates(state.pipeline, step)
        # What is about to be sent, and what is about to come of pages that nobody has taken yet.
        held = SEND_COPIES * self._request.size_bytes + PAGES_AT_ONCE * estimate.expected_bytes
        await state.account.reserve(held, Phase.WORK)
        notes.begin()
        room = asyncio.Semaphore(PAGES_AT_ONCE)
        try:
            answers = self._detector.detect_pages(
                self._request,
                PageRange(first, most, self._answered),
                state.ticket,
                self._group,
                cost=self._cost,
                sent=self._sent,
                prefers_text=self._prefers_text,
                begin=partial(state.story.attempt, step.name, step.stage, notes.fed_s),
            )
            async with nursery() as group, aclosing(answers):
                async for answer in answers:
                    self._learn(answer.page_count)
                    await room.acquire()
                    group.create_task(self._page(answer, room))
        finally:
            state.account.remove(held, Phase.WORK)

    def _learn(self, page_count: int) -> None:
        if page_count:
            self._page_count = page_count
            self._counted.set()

    async def _page(self, answer: FoundPage, room: asyncio.Semaphore) -> None:
        state, step = self._state, self._step
        try:
            if isinstance(answer.found, SluicewayError):
                self._failure = self._failure or answer.found
                if not state.tree.is_answered(step, whole_page(answer.number)):
                    await state.tell_failed(step, (0,), answer.found, Subject.PAGE, answer.number)
                return
            found = answer.found
            self._succeeded += 1
            state.notes[step.index].answered(found.timings, found.model)
            state.notices += found.notices
            size = len(found.message)
            state.parts.estimates(state.pipeline, step).learn(size)
            # What has arrived is counted as it is, room or not: it is what makes room again.
            state.account.add(size, Phase.WORK)
            try:
                await self._found(found, answer.number)
            finally:
                state.account.remove(size, Phase.WORK)
        finally:
            room.release()


def said_by_page(tree: RegionTree, step: Step, found: Found, ids: Sequence[int]) -> dict[int, Any]:
    """By region, what a page says itself, of those that a step would read."""
    rows = zip(ids, found.regions.regions, found.texts, strict=True)
    return {
        key: text for key, region, text in rows if step.wants(region.class_name) and not tree.is_answered(step, key)
    }


async def tell_texts(state: SourceState, step: Step, said: Mapping[int, Any], page: int) -> None:
    """Hand out what a page says itself in place of what a step would read."""
    values = text_values(said)
    event = ValuesRead(step.name, "", values, len(said), values.ByteSize(), Subject.REGION, page)
    state.parts.values_read(len(said), 0)
    await state.tell_values(step, event, [*said])
