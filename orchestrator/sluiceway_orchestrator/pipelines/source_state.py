"""What is known of one source while it runs, and the telling of it to the client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sluiceway_runtime.account import Account, Phase
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.errors import SluicewayError, Unavailable
from sluiceway_runtime.together import Nursery

from sluiceway_orchestrator.convert import regions as convert
from sluiceway_orchestrator.events import Page, RegionsFound, SourceReady, Subject, ValuesRead
from sluiceway_orchestrator.fetch.fetcher import Fetcher
from sluiceway_orchestrator.job import Job, Source
from sluiceway_orchestrator.outbox import Outbox
from sluiceway_orchestrator.pipelines.binding import Binder, Binding
from sluiceway_orchestrator.pipelines.calls import StepCaller
from sluiceway_orchestrator.pipelines.estimate import Estimate
from sluiceway_orchestrator.pipelines.progress import Progress
from sluiceway_orchestrator.pipelines.reports import StepNotes
from sluiceway_orchestrator.pipelines.tree import Placed, RegionTree, whole_page
from sluiceway_orchestrator.plan import Pipeline, Step, StepKind
from sluiceway_orchestrator.stages.detection import DetectionClient
from sluiceway_orchestrator.stages.recognition import RecognitionClient, failed_values
from sluiceway_orchestrator.stages.stage import Ticket
from sluiceway_orchestrator.story import SHORT_S, SourceStory

__all__ = ["Parts", "SourceState"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What sources work with; the same for all of them.

    Attributes:
        detectors, readers: by stage.
        estimates: of the answers of each detection step of a pipeline.
        max_crops: in one call of a stage.
        values_read: told of values of stages as they come: how many, and how many of them failed.
    """

    fetcher: Fetcher
    binder: Binder
    detectors: Mapping[str, DetectionClient]
    readers: Mapping[str, RecognitionClient]
    estimates: Callable[[Pipeline, Step], Estimate]
    max_crops: int
    values_read: Callable[[int, int], None]


class SourceState:
    """One source. What it holds in bytes is in its account, which whoever made that closes.

    Attributes:
        binding, progress, calls: of the present attempt; `calls` is where calls about the source run.
        place: what is done for the source as a whole; empty while its steps run.
        failed_step: the step that ended it; empty while none has.
        story: of where its time goes.
    """

    def __init__(
        self,
        job: Job,
        source: Source,
        pipeline: Pipeline,
        *,
        parts: Parts,
        outbox: Outbox,
        account: Account,
        story: SourceStory,
    ) -> None:
        self.story = story
        self.job = job
        self.source = source
        self.pipeline = pipeline
        self.parts = parts
        self.account = account
        self.ticket = Ticket(job.client, job.priority, job.deadline, job.accepted_s, job.request_id)
        self.tree = RegionTree()
        self.caller = StepCaller(job, source, parts.fetcher, self.tree, account, story=story)
        self.notes = [StepNotes() for _ in pipeline.steps]
        self.notices: list[Any] = []
        self.detect_fields = job.detect_options
        self.binding: Binding
        self.progress = Progress(pipeline)
        self.calls: Nursery | None = None
        self.place = ""
        self.failed_step = ""
        self._outbox = outbox

    def __repr__(self) -> str:
        return f"<SourceState {self.source.source_id!r} {self.tree} {self.progress}>"

    @property
    def where(self) -> str:
        """Where it is, in a word: of a step its name, of several that run at once all of them."""
        return self.failed_step or self.place or "+".join(step.name for step in self.progress.open_steps) or "end"

    async def tell(self, event: SourceReady | RegionsFound | ValuesRead) -> None:
        """Hand an event to the client; waits where it reads slowly."""
        begun_s = monotonic()
        await self._outbox.put(self.job.job_id, self.source.source_id, event)
        if (now_s := monotonic()) - begun_s >= SHORT_S:
            self.story.span("tell", begun_s, now_s)

    async def tell_regions(
        self, step: Step, page: Page, regions: Any, recognizing: Sequence[int], placed: Placed
    ) -> None:
        """Tell of regions, of those that the client has not heard of."""
        ids = placed.ids
        if placed.fresh is not None:
            if not any(placed.fresh) and self.tree.has_told(step, page.index):
                return
            regions = convert.keep(regions, placed.fresh)
            ids = [region.id for region in regions.regions]
        await self.tell(RegionsFound(step.name, page, regions, recognizing, regions.ByteSize()))
        self.tree.told(step, ids, page.index)

    async def tell_values(self, step: Step, event: ValuesRead, ids: Sequence[int]) -> None:
        """Tell what a step said of these, and remember it for APIs that are called with it."""
        if event.subject is not Subject.REGION:
            await self.tell(event)
            self.tree.answered(step, (whole_page(event.page),))
            return
        if step.kind is StepKind.RECOGNIZE:
            self.tree.read(convert.texts_of(event.values, self.tree.region))
        if self.pipeline.tells_callers:
            self.account.add(event.size_bytes, Phase.WORK)
            for value in event.values.values:
                node = self.tree.nodes.get(value.region_id)
                if node is not None:
                    node.values[step.name] = convert.plain_value(value)
        await self.tell(event)
        self.tree.answered(step, ids)

    async def failed(
        self, step: Step, ids: Sequence[int], error: SluicewayError, subject: Subject, page: int = 0
    ) -> None:
        """A step failed for the page, for some regions of it, or for the source: said of each, or the end of all."""
        if step.on_error == "fail":
            self.failed_step = step.name
            self.notes[step.index].failed += len(ids)
            raise error
        await self.tell_failed(step, ids, error, subject, page)

    async def tell_failed(
        self, step: Step, ids: Sequence[int], error: SluicewayError, subject: Subject, page: int
    ) -> None:
        """Say of each that a step failed."""
        self.notes[step.index].failed += len(ids)
        read = failed_values(ids, error)
        event = ValuesRead(step.name, "", read.values, len(ids), read.size_bytes, subject, page)
        await self.tell_values(step, event, ids)

    async def tell_broken_promises(self) -> None:
        """Regions that another version did not find again are not read by it either: that is said of each."""
        error = Unavailable("the version that was reading it is gone, and the one after it does not find it")
        for index, broken in self.tree.broken_promises().items():
            by_page: dict[int, list[int]] = {}
            for region_id in broken:
                by_page.setdefault(self.tree.page_of(region_id), []).append(region_id)
            for page, ids in by_page.items():
                await self.tell_failed(self.pipeline.steps[index], ids, error, Subject.REGION, page)
