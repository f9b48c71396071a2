"""Calls of APIs as steps of a pipeline: before anything else, for each region, or once for the source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sluiceway_runtime.account import Account
from sluiceway_runtime.errors import InvalidOption, SluicewayError

from sluiceway_orchestrator.fetch.caller import Region
from sluiceway_orchestrator.fetch.fetcher import CallContext, Fetcher
from sluiceway_orchestrator.job import ApiCall, Job, Source
from sluiceway_orchestrator.pipelines.template import fill
from sluiceway_orchestrator.pipelines.tree import RegionNode, RegionTree
from sluiceway_orchestrator.plan import Pipeline, Step

__all__ = ["StepCaller"]


class StepCaller:
    """Makes the calls of one source.

    Attributes:
        values: what was answered before detection, by the name of the call.
    """

    def __init__(self, job: Job, source: Source, fetcher: Fetcher, tree: RegionTree, account: Account) -> None:
        self._job = job
        self._source = source
        self._fetcher = fetcher
        self._tree = tree
        self._account = account
        self.values: Mapping[str, Mapping[str, Any]] = {}

    @property
    def context(self) -> CallContext:
        """For whom calls are made, with all that is known of the source by now."""
        job = self._job
        return CallContext(job.job_id, self._source.source_id, job.request_id, job.deadline, self.values)

    def require_params(self, pipeline: Pipeline) -> None:
        """Raise InvalidOption if the source does not give a parameter that a call of its pipeline needs."""
        for step in pipeline.steps:
            missing = [name for name in step.source_params if name not in self._source.params]
            if missing:
                raise InvalidOption(f"params: the step {step.name} needs {', '.join(missing)}")

    def first(self, pipeline: Pipeline) -> tuple[ApiCall, ...]:
        """The pipeline's own calls before anything else."""
        return tuple(self._first(step) for step in pipeline.first_calls)

    def _first(self, step: Step) -> ApiCall:
        given = {name: self._source.params[name] for name in step.source_params}
        return ApiCall(step.api, self._filled(step, {}) | given, step.name)

    async def about_region(self, step: Step, region_id: int) -> Mapping[str, Any] | SluicewayError:
        """Call with one region and what was said of it."""
        node = self._tree.nodes[region_id]
        region = _region(node)
        facts = {
            "id": str(node.id),
            "class": node.class_name,
            "confidence": f"{node.confidence:.4f}",
            "text": region.text,
            "label": region.label,
            "values": node.values,
        }
        return await self._call(ApiCall(step.api, self._filled(step, facts), step.name), region=region)

    async def about_source(self, step: Step) -> Mapping[str, Any] | SluicewayError:
        """Call with everything that is known of the source."""
        regions = tuple(_region(node) for node in self._tree.nodes.values())
        facts = {"values": {"source": self.values, "regions": list(_plain(self._tree.nodes.values()))}}
        return await self._call(ApiCall(step.api, self._filled(step, facts), step.name), regions=regions)

    async def _call(
        self, call: ApiCall, *, region: Region | None = None, regions: tuple[Region, ...] = ()
    ) -> Mapping[str, Any] | SluicewayError:
        try:
            answer = await self._fetcher.call(call, self.context, self._account, region=region, regions=regions)
        except SluicewayError as error:
            return error
        return answer.values

    def _filled(self, step: Step, facts: Mapping[str, Any]) -> dict[str, str]:
        known = {
            "source_id": self._source.source_id,
            "job_id": self._job.job_id,
            "request_id": self._job.request_id,
            "values": self.values,
            **facts,
        }
        return {name: fill(template, known, self._source.params) for name, template in step.params.items()}


def _region(node: RegionNode) -> Region:
    return Region(
        id=node.id,
        parent_id=node.parent_id,
        step=node.step,
        page=node.page,
        class_name=node.class_name,
        confidence=node.confidence,
        box_xyxy_px=node.box_xyxy_px,
        values=node.values,
    )


def _plain(nodes: Iterable[RegionNode]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        yield {
            "id": node.id,
            "parent": node.parent_id,
            "page": node.page,
            "step": node.step,
            "class": node.class_name,
            "box": list(node.box_xyxy_px),
            "values": node.values,
        }
