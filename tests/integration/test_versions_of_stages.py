"""Stages that serve several versions at once: each source has one, whatever comes and goes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fetching import given_by
from sluiceway_orchestrator.fetch import Answer, Call
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, FakeServer, SourceEvents, picture
from sluiceway_runtime.errors import InvalidOption, WrongGroup
from sluiceway_runtime.server.status import code_of, trailers
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source


async def both_are_there(cluster: Cluster, stage: str) -> None:
    await until(lambda: sum(bool(found) for _, found in cluster.service.stages[stage].members) == 2)


def check_complete(source: SourceEvents, number: int, regions: int) -> None:
    """All of it was found and read, each region once (of which the client that keeps account makes sure)."""
    assert source.error is None, source.error
    assert not source.region_errors
    assert source.texts == {f"{number}:{region}": 1 for region in range(regions)}
    assert source.done is not None
    assert sorted(source.done.reading_order) == sorted(source.regions)


async def test_two_readers_of_other_models_behind_one_stage() -> None:
    """A canary: none is asked for the model of the other."""
    readers = [FakeRecognition(models=("reader-v1",)), FakeRecognition(models=("reader-v2",))]
    async with Cluster(readers=readers) as cluster:
        await both_are_there(cluster, "recognition")
        models: Counter[str] = Counter()
        for number in range(40):
            source = (await cluster.process(Source(image=picture(number))))["0"]
            check_complete(source, number, 2)
            assert source.done is not None
            (report,) = [report for report in source.done.steps if report.step == "words"]
            assert source.models == {model.name for model in report.models}
            models.update(source.models)
    assert models == {"reader-v1": 20, "reader-v2": 20}
    for reader in readers:
        assert {model for model, _, _ in reader.seen} == set(reader.models)


async def test_a_step_that_names_a_model_goes_where_it_is() -> None:
    tables = {"p": {"steps": [
        {"name": "text", "stage": "detection"},
        {"name": "words", "stage": "recognition", "of": "text", "model": "reader-v2"},
    ]}}  # fmt: skip
    readers = [FakeRecognition(models=("reader-v1",)), FakeRecognition(models=("reader-v1", "reader-v2"))]
    async with Cluster(readers=readers, pipelines=tables) as cluster:
        await both_are_there(cluster, "recognition")
        for number in range(10):
            check_complete((await cluster.process(Source(image=picture(number)), pipeline="p"))["0"], number, 2)
    assert not readers[0].seen


async def test_two_detectors_with_other_classes_behind_one_stage() -> None:
    detectors = [FakeDetection(), FakeDetection(classes=("line", "figure"))]
    async with Cluster(detectors) as cluster:
        await both_are_there(cluster, "detection")
        classes: Counter[str] = Counter()
        for number in range(40):
            source = (await cluster.process(Source(image=picture(number))))["0"]
            check_complete(source, number, 2)
            assert source.detections is not None
            classes[source.detections.regions[0].class_name] += 1
    assert classes == {"textline": 20, "line": 20}


@pytest.mark.parametrize("told", [0, 5])
async def test_a_reading_version_goes_away_in_mid_job(told: int) -> None:
    """What it had said stands, the rest is read by the other; nothing is told twice, and nothing is missing."""
    gone = asyncio.Event()

    async def stop(_number: int, region: int) -> None:
        if region >= told:
            gone.set()
            await asyncio.Event().wait()

    leaving, staying = FakeRecognition(models=("old",), before=stop), FakeRecognition(models=("new",))
    async with Cluster(readers=[leaving, staying]) as cluster:
        await both_are_there(cluster, "recognition")
        work = [
            asyncio.create_task(cluster.process(Source(image=picture(n, regions=20)), timeout_s=60)) for n in range(4)
        ]
        await gone.wait()
        await until(lambda: leaving.running >= 20)
        await cluster.recognition[0].stop()
        heard = [(await each)["0"] for each in work]
    for number, source in enumerate(heard):
        check_complete(source, number, 20)
        assert len(source.regions) == 20
    assert {"new"} in [source.models for source in heard]
    assert ({"old", "new"} if told else {"new"}) in [source.models for source in heard]


async def test_a_detecting_version_goes_away_in_mid_job() -> None:
    """Before it had answered: who waits for it is detected by the other, each once."""
    leaving = FakeDetection(version="1", before=lambda _: asyncio.Event().wait())  # type: ignore[arg-type,return-value]
    staying = FakeDetection(version="2")
    async with Cluster([leaving, staying]) as cluster:
        await both_are_there(cluster, "detection")
        sources = [Source(source_id=str(number), image=picture(number)) for number in range(8)]
        work = asyncio.create_task(cluster.process(*sources, timeout_s=60))
        await until(lambda: leaving.running == 4)
        await cluster.detection[0].stop()
        heard = await work
    for number in range(8):
        check_complete(heard[str(number)], number, 2)


@pytest.mark.parametrize("stage", ["detection", "recognition"])
async def test_a_canary_that_is_lost_at_once_under_load_costs_no_source(stage: str) -> None:
    """Those that are bound to it begin again; those that wait for its only replica do so, too."""
    never = asyncio.Event()

    async def hang(*_: int) -> None:
        await never.wait()

    canary: Any = FakeDetection(version="2", before=hang)
    detectors, readers = [FakeDetection(version="1"), canary], [FakeRecognition()]
    if stage == "recognition":
        canary = FakeRecognition(models=("new",), before=hang)
        detectors, readers = [FakeDetection()], [FakeRecognition(models=("old",)), canary]
    async with Cluster(detectors, readers) as cluster:
        await both_are_there(cluster, stage)
        work = [
            asyncio.create_task(cluster.process(Source(image=picture(number, regions=10)), timeout_s=60))
            for number in range(64)
        ]
        # The others are done; half of them wait for the canary.
        await until(lambda: sum(each.done() for each in work) == 32 and canary.running > 0)
        await getattr(cluster, stage)[1].stop()
        heard = [(await each)["0"] for each in work]
    for number, source in enumerate(heard):
        check_complete(source, number, 10)


async def test_a_version_that_leaves_its_name_answers_whoever_is_bound_to_it(tmp_path: Path) -> None:
    """Of two versions that follow each other: nothing is detected twice, and new sources have the new one at once."""
    detect = asyncio.Event()

    async def wait(number: int) -> None:
        if number == 0:
            await detect.wait()

    detector, old, new = FakeDetection(before=wait), FakeRecognition(models=("old",)), FakeRecognition(models=("new",))
    leaving, coming = FakeServer(old), FakeServer(new)
    file, addresses = tmp_path / "recognition", [await leaving.start(), await coming.start()]
    file.write_text(addresses[0])
    async with Cluster([detector], recognition=f"file:{file}", resolve_interval_s=0.3) as cluster:
        stage = cluster.service.stages["recognition"]
        await until(lambda: [replica.address for replica in stage.replicas if replica.ready] == addresses[:1])
        bound = asyncio.create_task(cluster.process(Source(image=picture(0)), timeout_s=60))
        await until(lambda: detector.running == 1)
        file.write_text(addresses[1])
        await until(lambda: [replica.address for replica in stage.replicas if replica.ready] == addresses[1:])
        after = (await cluster.process(Source(image=picture(1))))["0"]
        check_complete(after, 1, 2)
        assert after.models == {"new"}
        status: Any = cluster.service.status()
        assert status["stages"]["recognition"]["leaving"] == addresses[:1]
        detect.set()
        before = (await bound)["0"]
        check_complete(before, 0, 2)
        assert before.models == {"old"}
        assert detector.seen == {0: 1, 1: 1}
        # Nobody needs it any more.
        await until(lambda: not stage.leaving)
    for server in (leaving, coming):
        await server.stop()


async def test_a_version_of_a_detector_inside_of_regions_goes_away() -> None:
    """The page was told of already: its regions keep their ids, and are not told again."""
    tables = {"p": {"steps": [
        {"name": "text", "stage": "detection"},
        {"name": "inside", "stage": "inner", "of": "text"},
        {"name": "words", "stage": "recognition", "of": "inside"},
    ]}}  # fmt: skip
    leaving = FakeDetection(version="1", before=lambda _: asyncio.Event().wait())  # type: ignore[arg-type,return-value]
    staying = FakeDetection(version="2")
    async with Cluster(stages={"inner": [leaving, staying]}, pipelines=tables) as cluster:
        await until(lambda: sum(bool(found) for _, found in cluster.service.stages["inner"].members) == 2)
        sources = [Source(source_id=str(number), image=picture(number)) for number in range(4)]
        work = asyncio.create_task(cluster.process(*sources, pipeline="p", timeout_s=60))
        await until(lambda: leaving.crops_seen >= 4)
        await cluster.named["inner"][0].stop()
        heard = await work
    for number in range(4):
        source = heard[str(number)]
        assert source.error is None
        assert sorted(source.regions) == list(range(6))
        assert len(source.found["text"]) == 1
        assert source.texts == {f"{number}:{text * 100 + line}": 1 for text in range(2) for line in range(2)}


async def test_what_another_version_does_not_find_again_is_told_as_an_error_of_its_region() -> None:
    class Fewer(FakeDetection):
        """Finds the last line alone."""

        async def Detect(self, request: Any, context: Any) -> Any:
            answer = await super().Detect(request, context)
            found = [region for region in answer.detections if region.id == 2]
            crops = [crop for crop in answer.crops if crop.id == 2]
            del answer.detections[:], answer.crops[:]
            for region, crop in zip(found, crops, strict=True):
                region.id = crop.id = 0
                answer.detections.append(region)
                answer.crops.append(crop)
            return answer

    stuck = asyncio.Event()

    async def stop(_number: int, _region: int) -> None:
        stuck.set()
        await asyncio.Event().wait()

    detectors = [FakeDetection(version="1"), Fewer(version="2")]
    readers = [FakeRecognition(models=("old",), before=stop), FakeRecognition(models=("new",))]
    async with Cluster(detectors, readers) as cluster:
        await both_are_there(cluster, "recognition")
        await both_are_there(cluster, "detection")
        # The first version of each for the first source.
        work = [
            asyncio.create_task(cluster.process(Source(image=picture(n, regions=3)), timeout_s=60)) for n in range(2)
        ]
        await stuck.wait()
        await cluster.detection[0].stop()
        await cluster.recognition[0].stop()
        heard = [(await each)["0"] for each in work]
    (again,) = [source for source in heard if len(source.regions) == 3]
    assert again.done is not None
    (kept,) = [key for key, value in again.values.items() if value.HasField("text")]
    assert again.values[kept].text.text.endswith(":2")
    assert {error.reason for error in again.region_errors.values()} == {"UNAVAILABLE"}
    assert set(again.region_errors) | {kept[1]} == {0, 1, 2}
    assert sorted(again.done.reading_order) == [0, 1, 2]


async def test_calls_that_a_version_took_with_it_are_made_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read stands, and is not read again; the call that was under way with it has not been answered."""
    called: list[str] = []

    async def stop(_number: int, region: int) -> None:
        if region:
            await asyncio.Event().wait()

    leaving, staying = FakeRecognition(models=("old",), before=stop), FakeRecognition(models=("new",))

    async def answer(call: Call) -> Answer:
        item = call.params["item"]
        called.append(item)
        number, region = map(int, item.split(":"))
        if not region and leaving.seen["old", number, 0] and called.count(item) == 1:
            await asyncio.Event().wait()
        return Answer(None, {"item": item})

    tables = {"p": {"steps": [
        {"name": "text", "stage": "detection"},
        {"name": "words", "stage": "recognition", "of": "text"},
        {"name": "owner", "api": "book", "of": "words", "params": {"item": "{text}"}},
    ]}}  # fmt: skip
    apis = {"book": {"caller": given_by(monkeypatch, answer, ("item",))}}
    async with Cluster(readers=[leaving, staying], pipelines=tables, apis=apis) as cluster:
        await both_are_there(cluster, "recognition")
        # One for each version.
        work = [
            asyncio.create_task(cluster.process(Source(image=picture(n, regions=3)), pipeline="p", timeout_s=60))
            for n in range(2)
        ]
        await until(lambda: any(f"{number}:0" in called for _, number, _ in leaving.seen))
        await cluster.recognition[0].stop()
        heard = [(await each)["0"] for each in work]
    for number, source in enumerate(heard):
        check_complete(source, number, 3)
        told = {region: source.values["owner", region].data["item"] for region in range(3)}
        assert told == {region: f"{number}:{region}" for region in range(3)}
    assert sorted(Counter(called).values()) == [1, 1, 1, 1, 1, 2]


async def test_what_was_said_of_the_page_is_not_said_again() -> None:
    """A step on the page that failed, and may, before the version of another step went away."""

    async def refuse(_number: int) -> None:
        raise InvalidOption("not this one")

    tables = {"p": {"steps": [
        {"name": "text", "stage": "detection"},
        {"name": "parts", "stage": "other", "on_error": "skip"},
        {"name": "words", "stage": "recognition", "of": "text"},
    ]}}  # fmt: skip
    stuck = asyncio.Event()

    async def stop(_number: int, _region: int) -> None:
        stuck.set()
        await asyncio.Event().wait()

    leaving, staying = FakeRecognition(models=("old",), before=stop), FakeRecognition(models=("new",))
    other = FakeDetection(before=refuse)
    async with Cluster(readers=[leaving, staying], stages={"other": [other]}, pipelines=tables) as cluster:
        await both_are_there(cluster, "recognition")
        work = [
            asyncio.create_task(cluster.process(Source(image=picture(n)), pipeline="p", timeout_s=60)) for n in range(2)
        ]
        await stuck.wait()
        await until(lambda: other.seen.total() == 2 and not other.running)
        await cluster.recognition[0].stop()
        heard = [(await each)["0"] for each in work]
    for number, source in enumerate(heard):
        check_complete(source, number, 2)
        assert source.page_values["parts"].error.reason == "INVALID_OPTION"
    assert other.seen == {0: 1, 1: 1}


async def _right_group(context: Any, own: str) -> None:
    wanted = dict(context.invocation_metadata()).get("sluiceway-group")
    if wanted and wanted != own:
        error = WrongGroup("another version is served here")
        await context.abort(code_of(error), error.message, trailers(error))


class TwoDetectors(FakeDetection):
    """One address behind which calls reach one of two versions in turn, or as long as it is told to."""

    turn = 0
    refused = 0
    answers_for = 1

    def _own(self) -> str:
        self.turn += 1
        return "ab"[self.turn // self.answers_for % 2]

    async def Detect(self, request: Any, context: Any) -> Any:
        own = self._own()
        self.refused += 1
        await _right_group(context, own)
        self.refused -= 1
        return await super().Detect(request, context)

    async def Describe(self, request: Any, context: Any) -> Any:
        described = await super().Describe(request, context)
        described.group = self._own()
        described.model.version = described.group
        return described


class TwoReaders(FakeRecognition):
    """Likewise."""

    turn = 0
    refused = 0
    answers_for = 1

    def _own(self) -> str:
        self.turn += 1
        return "ab"[self.turn // self.answers_for % 2]

    async def Recognize(self, request: Any, context: Any) -> AsyncIterator[Any]:
        own = self._own()
        self.refused += 1
        await _right_group(context, own)
        self.refused -= 1
        async for answer in super().Recognize(request, context):
            yield answer

    async def Describe(self, request: Any, context: Any) -> Any:
        described = await super().Describe(request, context)
        described.group = self._own()
        return described


@pytest.mark.parametrize("answers_for", [1, 2, 7])
async def test_an_address_behind_which_two_versions_answer(answers_for: int) -> None:
    detector, reader = TwoDetectors(), TwoReaders()
    detector.answers_for = reader.answers_for = answers_for
    async with Cluster([detector], [reader]) as cluster:
        for start in range(0, 60, 6):
            sources = [Source(source_id=str(n), image=picture(n)) for n in range(start, start + 6)]
            heard = await cluster.process(*sources, timeout_s=60)
            for number in range(start, start + 6):
                check_complete(heard[str(number)], number, 2)
    assert detector.refused
    assert reader.refused
