"""The steps of one source: each begins as soon as what it needs is there.

Read from the top: a step on the page detects, `_found` takes in what was answered and begins with all that works on
those regions, `_read` hands out values as they come. What arrives together travels together: work is for each answer,
never for each region.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from sluiceway_runtime.account import Phase
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.documents.kind import is_document
from sluiceway_runtime.errors import Internal, SluicewayError
from sluiceway_runtime.server.convert import error_from_proto
from sluiceway_runtime.together import Nursery, nursery, together

from sluiceway_orchestrator.convert import regions as convert
from sluiceway_orchestrator.events import Page, StageTimings, Subject, ValuesRead
from sluiceway_orchestrator.fetch.fetcher import Fetched
from sluiceway_orchestrator.geometry import IDENTITY, Matrix, chain
from sluiceway_orchestrator.pipelines.document_pages import SEND_COPIES, DocumentPages, said_by_page, tell_texts
from sluiceway_orchestrator.pipelines.origin import REGIONS, About, Origin, Outer
from sluiceway_orchestrator.pipelines.source_state import SourceState
from sluiceway_orchestrator.pipelines.tree import WHOLE, RegionNode
from sluiceway_orchestrator.plan import Step, StepKind
from sluiceway_orchestrator.stages.detection import Found, Outgrown
from sluiceway_orchestrator.stages.recognition import Crops
from sluiceway_orchestrator.wire import Buffers, CropSpan, bytes_field, span_buffers

__all__ = ["Steps"]

# A source whose turn comes when answers have grown by so much since it reserved room for its own reserves anew: many
# reserve at once, before the first answer of their kind is known.
OUTGROWN = 1.5
_IMAGE_FIELD, _CROPS_FIELD, _ENCODED_FIELD = 1, 15, 4


class Steps:
    """Runs the steps of one attempt at a source."""

    def __init__(self, state: SourceState, fetched: Fetched) -> None:
        self._state = state
        self._fetched = fetched

    async def run(self) -> None:
        """Run every step to its end.

        Raises:
            GroupGone: a version that the source is bound to is not there any more.
            SluicewayError: a step failed, and the source with it.
        """
        state = self._state
        for step in state.pipeline.roots:
            state.notes[step.index].fed_s = state.story.mark_s
        # The calls first: they are open before anything can end that others wait for.
        works = self._calls_again()
        works += [
            self._detect_page(step) if step.kind is StepKind.DETECT else self._read_page(step)
            for step in state.pipeline.roots
        ]
        if not state.pipeline.last_calls:
            await together(works)
            return
        async with nursery() as group:
            state.calls = group
            await together(works)

    async def _detect_page(self, step: Step) -> None:
        if self._state.tree.is_answered(step, WHOLE):
            # It failed in the attempt before, which the client has heard.
            self._end(step)
            return
        state, image = self._state, self._fetched.image
        if is_document(image):
            del image
            await self._detect_document(step)
            return
        fields = (state.detect_fields[step.name], state.binding.crop_fields[step.index])
        request = Buffers((bytes_field(_IMAGE_FIELD, len(image)), image, *fields))
        estimate = state.parts.estimates(state.pipeline, step)
        # What is about to be sent, and what is about to come: a stage is not asked for what there is no room for.
        held = 0
        try:
            found: Found | None = None
            while found is None:
                expected = estimate.expected_bytes
                wanted = SEND_COPIES * len(image) + expected
                if not state.account.try_reserve(wanted, Phase.WORK):
                    await self._wait_for_room(step, wanted)
                held = wanted
                try:
                    found = await self._detect(step, request, 1, partial(estimate.is_within, OUTGROWN * expected))
                except Outgrown:
                    # Nothing is held while it waits again, so those whose answers are here have room to go on.
                    state.account.remove(held, Phase.WORK)
                    held = 0
                except SluicewayError as error:
                    await state.failed(step, (0,), error, Subject.PAGE)
                    self._end(step)
                    return
            del image, request
            estimate.learn(len(found.message))
            # What has arrived is counted as it is, room or not: it is what makes room again.
            state.account.add(len(found.message), Phase.WORK)
            state.account.remove(held, Phase.WORK)
            held = len(found.message)
            if len(state.pipeline.roots) == 1:
                # Before its regions are read, which may take long.
                self._fetched.release()
            await self._found(step, found, Origin(Page(0, found.width, found.height)))
        finally:
            state.account.remove(held, Phase.WORK)

    async def _detect_document(self, step: Step) -> None:
        """Detect in every page of a document; each is gone on with as soon as it is there."""
        state = self._state

        async def page_found(found: Found, page: int) -> None:
            state.progress.begin(step)
            await self._found(step, found, Origin(Page(page, found.width, found.height)))

        await DocumentPages(state, step, self._fetched.image, page_found).run()
        self._end(step)

    async def _read_page(self, step: Step) -> None:
        if self._state.tree.is_answered(step, WHOLE):
            self._end(step)
            return
        state, image = self._state, self._fetched.image
        encoded = (bytes_field(_ENCODED_FIELD, len(image)), image)
        size = sum(map(len, encoded))
        held = SEND_COPIES * size
        await self._wait_for_room(step, held)
        try:
            await self._read(step, Crops(image=(bytes_field(_CROPS_FIELD, size), *encoded)), (0,), About(Subject.PAGE))
        finally:
            state.account.remove(held, Phase.WORK)
        self._end(step)

    async def _wait_for_room(self, step: Step, size_bytes: int) -> None:
        state, notes = self._state, self._state.notes[step.index]
        begun_s = notes.fed_s
        await state.account.reserve(size_bytes, Phase.WORK)
        notes.fed_s = monotonic()
        state.story.span("room", begun_s, notes.fed_s, step.name)

    async def _detect(
        self, step: Step, request: Buffers, cost: int, has_room: Callable[[], bool] = lambda: True
    ) -> Found:
        state, notes = self._state, self._state.notes[step.index]
        notes.begin()
        detector = state.parts.detectors[step.stage]
        begin = partial(state.story.attempt, step.name, step.stage, notes.fed_s)
        group = state.binding.groups[step.stage]
        found = await detector.detect(request, cost, state.ticket, group, has_room, begin=begin)
        notes.answered(found.timings, found.model)
        state.notices += found.notices
        return found

    async def _found(self, step: Step, found: Found, origin: Origin) -> None:
        """Tell of the regions of one answer, and run all that works on them."""
        state, regions = self._state, found.regions
        crops_of = [region.parent_id for region in regions.regions] if origin.parents is not None else ()
        if origin.to_page is not None:
            convert.to_page(regions, origin.to_page)
        parents = [origin.parents[crop] for crop in crops_of] if origin.parents is not None else None
        boxes, turned = convert.boxes_of(regions)
        placed = state.tree.place(step, boxes, parents, turned, origin.page.index)
        convert.place(regions, placed.ids, origin.parents)
        if state.pipeline.tells_callers:
            for region, box in zip(regions.regions, boxes, strict=True):
                state.tree.nodes.setdefault(region.id, RegionNode.of(region, step.name, box, origin.page.index))
        if any(span.crop_id >= len(boxes) for spans in found.crops.values() for span in spans):
            raise Internal("a stage sent crops of regions that it did not find")
        children = state.pipeline.children[step.index]
        about = About(page=origin.page.index)
        works: list[Coroutine[Any, Any, None]] = []
        recognizing: dict[int, None] = {}
        promised: list[tuple[Step, list[int]]] = []
        for child in children:
            state.progress.begin(child)
            if child.kind is StepKind.CALL:
                wanted = [region.id for region in regions.regions if child.wants(region.class_name)]
                works += [self._call_each(child, wanted)] if wanted else []
                continue
            if found.texts and child.kind is StepKind.RECOGNIZE:
                said = said_by_page(state.tree, child, found, placed.ids)
                promised.append((child, [*said]))
                recognizing.update(dict.fromkeys(said))
                works += [tell_texts(state, child, said, origin.page.index)] if said else []
                continue
            spans = self._unanswered(child, found, placed.ids)
            most = self._most_crops(child)
            chunks = (spans[at : at + most] for at in range(0, len(spans), most))
            if child.kind is StepKind.RECOGNIZE:
                told = [placed.ids[span.crop_id] for span in spans]
                promised.append((child, told))
                recognizing.update(dict.fromkeys(told))
                works += [self._read(child, Crops(found.message, chunk), placed.ids, about) for chunk in chunks]
            else:
                outer = Outer(found.message, placed.ids, crops_of, origin)
                works += [self._detect_inside(child, outer, chunk) for chunk in chunks]
        try:
            await state.tell_regions(step, origin.page, regions, tuple(recognizing), placed)
            for child, promises in promised:
                state.tree.promise(child, promises)
            self._end(step)
        except BaseException:
            for work in works:
                work.close()
            raise
        fed_s = state.story.handled(step.name, found.answered_s)
        for child in children:
            state.notes[child.index].fed_s = fed_s
        await together(works)
        for child in children:
            self._end(child)

    def _most_crops(self, step: Step) -> int:
        """In one call; a stage that detects says itself how many it takes, and may be configured to take few."""
        most = self._state.parts.max_crops
        taken = self._state.binding.groups[step.stage].description.max_crops if step.kind is StepKind.DETECT else 0
        return min(most, taken) if taken > 0 else most

    def _unanswered(self, step: Step, found: Found, ids: Sequence[int]) -> tuple[CropSpan, ...]:
        """Crops for a step, but for those of regions that the client has its values of from an attempt before."""
        spans = found.crops.get(step.name, ())
        tree = self._state.tree
        return tuple(span for span in spans if not tree.is_answered(step, ids[span.crop_id])) if tree.again else spans

    async def _detect_inside(self, step: Step, outer: Outer, spans: tuple[CropSpan, ...]) -> None:
        """Detect in crops of regions."""
        state, origin = self._state, outer.origin
        parents = {span.crop_id: outer.ids[span.crop_id] for span in spans}
        to_page: dict[int, Matrix] = {}
        for span in spans:
            if span.to_image is None:
                raise Internal("a stage does not say where its crops lie, so nothing that is found in them has a place")
            before = origin.to_page[outer.crops_of[span.crop_id]] if origin.to_page is not None else IDENTITY
            to_page[span.crop_id] = chain(before, span.to_image)
        fields = (state.detect_fields[step.name], state.binding.crop_fields[step.index])
        request = Buffers((*span_buffers(outer.message, spans), *fields))
        state.progress.begin(step)
        try:
            found = await self._detect(step, request, len(spans))
        except SluicewayError as error:
            await state.failed(step, list(parents.values()), error, Subject.REGION, origin.page.index)
            self._end(step)
            return
        # Let through whether there is room or not: it is far on its way, and frees what it was cut from.
        state.account.add(len(found.message), Phase.WORK)
        try:
            for crop_id, failure in found.failures.items():
                if crop_id in parents:
                    fault = error_from_proto(failure)
                    await state.failed(step, [parents[crop_id]], fault, Subject.REGION, origin.page.index)
            await self._found(step, found, Origin(origin.page, parents, to_page))
        finally:
            state.account.remove(len(found.message), Phase.WORK)

    async def _read(self, step: Step, crops: Crops, ids: Sequence[int], about: About = REGIONS) -> None:
        """Read crops; each answer is told as it comes, and calls that work on it begin at once."""
        if not self._state.pipeline.children[step.index]:
            await self._read_all(step, crops, ids, about, None)
            return
        async with nursery() as group:
            await self._read_all(step, crops, ids, about, group)

    async def _read_all(
        self,
        step: Step,
        crops: Crops,
        ids: Sequence[int],
        about: About,
        group: Nursery | None,
    ) -> None:
        state, notes = self._state, self._state.notes[step.index]
        notes.begin()
        head = state.job.recognize_options[step.name] + state.binding.heads[step.index]
        reader = state.parts.readers[step.stage]
        begin = partial(state.story.attempt, step.name, step.stage, notes.fed_s)
        answers = reader.recognize(crops, head, state.ticket, state.binding.groups[step.stage], begin=begin)
        as_they_are = ids == range(len(ids))
        # Closed here and not by the garbage collector, so that a cancelled source ends its call to the stage at once.
        async with aclosing(answers):
            async for read in answers:
                notes.answered(read.timings, read.model)
                notes.failed += len(read.failed)
                state.parts.values_read(len(read.ids), len(read.failed))
                if read.failed and step.on_error == "fail":
                    state.failed_step = step.name
                    raise error_from_proto(next(item.error for item in read.values.values if item.HasField("error")))
                if not as_they_are:
                    convert.number_values(read.values, ids)
                told = [ids[key] for key in read.ids]
                model = read.model.name if read.model is not None else ""
                event = ValuesRead(step.name, model, read.values, len(told), read.size_bytes, *about)
                await state.tell_values(step, event, told)
                if group is not None:
                    failed = {ids[key] for key in read.failed}
                    self._call_with(step, [key for key in told if key not in failed], group)

    # Calls of APIs.

    def _calls_again(self) -> list[Coroutine[Any, Any, None]]:
        """Calls with what was read in the attempt before: that is not read again, and they may have had no answer."""
        tree, pipeline = self._state.tree, self._state.pipeline
        works: list[Coroutine[Any, Any, None]] = []
        for step in pipeline.steps if tree.again else ():
            if step.kind is not StepKind.RECOGNIZE:
                continue
            read = [
                node
                for node in tree.nodes.values()
                if tree.is_answered(step, node.id) and "error" not in node.values.get(step.name, {})
            ]
            for call in pipeline.children[step.index]:
                wanted = [node.id for node in read if call.wants(node.class_name)]
                works += [self._call_each(call, wanted)] if wanted else []
        return works

    def _call_with(self, step: Step, ids: Sequence[int], group: Nursery) -> None:
        """Begin with the calls that work on regions that were just read."""
        nodes = self._state.tree.nodes
        for call in self._state.pipeline.children[step.index]:
            wanted = [key for key in ids if call.wants(nodes[key].class_name)]
            if wanted:
                group.create_task(self._call_each(call, wanted))

    async def _call_each(self, step: Step, ids: Sequence[int]) -> None:
        """Call an API with each of some regions, all at once as far as the API allows."""
        state = self._state
        state.progress.begin(step)
        await together([self._call_one(step, key) for key in ids if not state.tree.is_answered(step, key)])
        self._end(step)

    async def _call_one(self, step: Step, region_id: int) -> None:
        self._state.notes[step.index].begin()
        answer = await self._state.caller.about_region(step, region_id)
        await self._called(step, region_id, answer, Subject.REGION)

    async def _call_source(self, step: Step) -> None:
        if self._state.tree.is_answered(step, WHOLE):
            self._end(step)
            return
        self._state.notes[step.index].begin()
        answer = await self._state.caller.about_source(step)
        await self._called(step, 0, answer, Subject.SOURCE)
        self._end(step)

    async def _called(
        self, step: Step, region_id: int, answer: Mapping[str, Any] | SluicewayError, subject: Subject
    ) -> None:
        state = self._state
        state.notes[step.index].answered(StageTimings(), None)
        page = state.tree.page_of(region_id) if subject is Subject.REGION else 0
        if isinstance(answer, SluicewayError):
            await state.failed(step, (region_id,), answer, subject, page)
            return
        values = convert.data_value(region_id, answer)
        event = ValuesRead(step.name, "", values, 1, values.ByteSize(), subject, page)
        await state.tell_values(step, event, (region_id,))

    def _end(self, step: Step) -> None:
        """A part of a step is done: calls that waited for its end begin."""
        for call in self._state.progress.end(step):
            assert self._state.calls is not None
            self._state.calls.create_task(self._call_source(call))
