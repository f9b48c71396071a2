"""One source from its fetching to its last event; where a version goes away under it, once more from the image."""

from __future__ import annotations

import asyncio
import json

from sluiceway_runtime.account import Phase
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.errors import Unavailable

from sluiceway_orchestrator.convert.regions import page_turned
from sluiceway_orchestrator.convert.specs import detection_options
from sluiceway_orchestrator.events import SourceDone, SourceReady
from sluiceway_orchestrator.fetch.fetcher import Fetched
from sluiceway_orchestrator.pipelines.progress import Progress
from sluiceway_orchestrator.pipelines.reports import reports
from sluiceway_orchestrator.pipelines.source_state import SourceState
from sluiceway_orchestrator.pipelines.steps import Steps
from sluiceway_orchestrator.pipelines.tree import RegionTree, SourceLayout
from sluiceway_orchestrator.plan import StepKind
from sluiceway_orchestrator.stages.group import GroupGone

__all__ = ["run_source"]

# Regions whose layout is found at once: 3 ms for a thousand.
AT_ONCE = 1500


async def run_source(state: SourceState) -> SourceDone:
    """Run a source to its end; returns its last event, all others are told.

    Raises:
        SluicewayError: the source failed.
    """
    state.place = "fetch"
    state.caller.require_params(state.pipeline)
    try:
        fetched = await _fetch(state)
    finally:
        state.story.note("fetch")
    fetch_ms = fetched.fetch_ms
    gone = False
    try:
        await _begin(state, fetched)
        state.story.note("handle")
        await _attempt(state, fetched)
    except GroupGone:
        # Left before anything else is done: what is being handled keeps the frames of the attempt, and its image.
        gone = True
    finally:
        fetched.release()
    if gone:
        await _begin_again(state)
    layout = await _layout(state.tree)
    state.notices += [page_turned(quarter, page) for page, quarter in layout.quarters.items()]
    return SourceDone(
        reading_order=layout.order,
        lines=layout.lines,
        blocks=layout.blocks,
        line_pages=layout.pages,
        fetch_ms=fetch_ms,
        total_ms=(monotonic() - state.job.accepted_s) * 1000,
        steps=reports(state.pipeline.steps, state.notes),
        notices=state.notices,
    )


async def _layout(tree: RegionTree) -> SourceLayout:
    """Order, lines and blocks; of very many regions beside the event loop, which others wait for."""
    return tree.layout() if len(tree) <= AT_ONCE else await asyncio.to_thread(tree.layout)


async def _begin_again(state: SourceState) -> None:
    """Run a source once more, with the versions that are there now.

    The client may have heard of regions already: these keep their ids, and what was said of them stands.
    """
    state.tree.begin_again()
    state.progress = Progress(state.pipeline)
    # Of the image that is looked at once more.
    state.notices.clear()
    state.story.resume("again")
    try:
        fetched = await _fetch_again(state)
        state.story.note("fetch")
        await _attempt(state, fetched)
    except GroupGone:
        raise Unavailable("the version that answered was replaced, twice", retry_after_s=1.0) from None
    await state.tell_broken_promises()


async def _attempt(state: SourceState, fetched: Fetched) -> None:
    try:
        state.place = "binding"
        try:
            state.binding = await state.parts.binder.bind(state.pipeline, state.job.deadline)
        finally:
            state.story.note("bind")
        state.place = ""
        with state.parts.binder.holding(state.binding):
            await Steps(state, fetched).run()
    finally:
        fetched.release()


async def _fetch(state: SourceState) -> Fetched:
    calls = (*state.source.calls, *state.caller.first(state.pipeline))
    return await state.parts.fetcher.fetch(state.source, calls, state.caller.context, state.account)


async def _fetch_again(state: SourceState) -> Fetched:
    """Bring the image once more. What APIs said stands: they are called again only if the image comes from them."""
    source = state.source
    if source.image is None and source.url is None and source.api_call is None:
        return await _fetch(state)
    return await state.parts.fetcher.fetch(source, (), state.caller.context, state.account)


async def _begin(state: SourceState, fetched: Fetched) -> None:
    """Take in what APIs said, and tell that the source is here."""
    for step in state.pipeline.first_calls:
        if step.on_error == "fail" and step.name in fetched.call_errors:
            state.failed_step = step.name
            raise fetched.call_errors[step.name]
    state.caller.values = fetched.values
    size = len(json.dumps(fetched.values)) if fetched.values else 0
    state.account.add(size, Phase.FETCH)
    if fetched.detection is not None:
        fields = dict(state.detect_fields)
        for step in state.pipeline.roots:
            if step.kind is StepKind.DETECT:
                own = state.job.own_options.get(step.name, frozenset())
                fields[step.name] = detection_options(fields[step.name], fetched.detection.chosen(), own)
        state.detect_fields = fields
    was_fetched = state.source.image is None
    image = fetched.image if state.job.return_images and was_fetched else b""
    await state.tell(
        SourceReady(len(fetched.image), fetched.fetch_ms, fetched.values, fetched.call_errors, image, size)
    )
