"""One trace a job, through real servers to an OTLP collector of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from ledger_models import draw
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from server_processes import Fleet, Member
from sluiceway_orchestrator.testing import Cluster, picture
from sluiceway_runtime.recorder import BatchLog
from sluiceway_runtime.tracing import Tracer, open_tracer
from sluiceway_runtime.tracing.calls import begin_call, end_call
from trace_collector import Collector, Seen
from waiting import wait_until

from sluiceway import AsyncClient

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def open_traces(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Tracer]:
    """Open traces of a server of this process, which go to the collector."""

    def opened(server: str) -> Tracer:
        for name, value in collector.variables.items():
            monkeypatch.setenv(name, value)
        tracer = open_tracer(collector.variables, server)
        assert tracer is not None
        return tracer

    return opened


def spans_once(collector: Collector, done: Callable[[list[Seen]], bool]) -> list[Seen]:
    wait_until(lambda: done(list(collector.spans)), what="the spans are there", state=lambda: collector.spans)
    return list(collector.spans)


def above(spans: list[Seen], span: Seen) -> list[str]:
    """Names of the spans above one, up to the first that is not here."""
    by_id = {item.span_id: item for item in spans}
    names = []
    while (span := by_id.get(span.parent_id)) is not None:  # type: ignore[assignment]
        names.append(f"{span.service}: {span.name}")
    return names


def members(fleet: Fleet, variables: dict[str, str]) -> Member:
    _, _, orchestrator = fleet.cluster(environment=variables)
    return orchestrator


@pytest.mark.timeout(240)
async def test_one_trace_goes_through_every_server(tmp_path: Path, collector: Collector) -> None:
    with Fleet(tmp_path) as fleet:
        orchestrator = members(fleet, collector.variables)
        async with AsyncClient(orchestrator.address, metadata={"traceparent": f"00-{TRACE}-{SPAN}-01"}) as client:
            await client.process(draw(1, 2), request_id="traced")
            explanation = await client.explain("traced")

        def complete(spans: list[Seen]) -> bool:
            names = {(span.service, span.name) for span in spans}
            return {
                ("sluiceway-orchestrator", "sluiceway.pipeline.v1.PipelineService/Process"),
                ("sluiceway-detection", "batch"),
                ("sluiceway-recognition", "batch"),
                ("sluiceway-recognition", "sluiceway.recognition.v1.RecognitionService/RecognizeWhole"),
            } <= names

        spans = spans_once(collector, complete)
        assert {span.trace_id for span in spans} == {TRACE}
        batch = next(span for span in spans if span.service == "sluiceway-recognition" and span.name == "batch")
        assert above(spans, batch) == [
            "sluiceway-recognition: sluiceway.recognition.v1.RecognitionService/RecognizeWhole",
            "sluiceway-orchestrator: call recognition",
            "sluiceway-orchestrator: job",
            "sluiceway-orchestrator: sluiceway.pipeline.v1.PipelineService/Process",
        ]
        process = next(span for span in spans if span.name.endswith("/Process"))
        assert process.parent_id == SPAN
        assert process.attributes["sluiceway.request_id"] == "traced"
        job = next(span for span in spans if span.name == "job")
        ((_, told),) = explanation.jobs
        assert (job.ended_ns - job.begun_ns) / 1e6 == pytest.approx(told.duration_ms, abs=0.1)
        assert not any(span.error for span in spans)
        # Questions are no part of it.
        assert not any("Explain" in span.name or "Describe" in span.name for span in spans)


@pytest.mark.timeout(240)
async def test_what_is_not_sampled_is_not_sent_and_stays_so_in_every_server(
    tmp_path: Path, collector: Collector
) -> None:
    with Fleet(tmp_path) as fleet:
        orchestrator = members(fleet, collector.variables | {"OTEL_TRACES_SAMPLER": "parentbased_always_on"})
        unsampled = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
        async with AsyncClient(orchestrator.address, metadata=unsampled) as client:
            await client.process(draw(1, 2))
        # Without a context of the client's, a trace of its own begins.
        async with AsyncClient(orchestrator.address) as client:
            await client.process(draw(2, 2))
        spans = spans_once(
            collector, lambda spans: sum(span.name.endswith(("/RecognizeWhole", "/Process")) for span in spans) == 2
        )
        assert TRACE not in {span.trace_id for span in spans}
        assert len({span.trace_id for span in spans}) == 1


async def test_batches_are_linked_to_the_requests_that_shared_them(
    collector: Collector, open_traces: Callable[[str], Tracer]
) -> None:
    tracer = open_traces("detection")

    class Owner:
        def __init__(self, call: int) -> None:
            self.call = call

    class Item:
        trail = None
        accepted_s = 1.0

        def __init__(self, call: int) -> None:
            self.request_id, self.owner = f"r{call}", Owner(call)

    class Batch:
        id, worker, sent_s, begun_s = 7, 0, 2.0, 2.0
        items = (Item(1), Item(2), Item(3))

    log = BatchLog()
    first = begin_call(tracer, log, 1, "/s.D/Detect", {})
    second = begin_call(tracer, log, 2, "/s.D/Detect", {})
    third = begin_call(tracer, log, 3, "/s.D/Detect", {"traceparent": f"00-{TRACE}-{SPAN}-00"})
    assert not third.at.sampled
    log.over(Batch(), 3.0, 900.0, "")
    for number, traced in enumerate((first, second, third), 1):
        end_call(tracer, log, traced, (number, "/s.D/Detect", f"r{number}", 1.0, 1.0, 4.0, "OK"))
    spans = spans_once(collector, lambda spans: sum(span.name == "batch" for span in spans) == 2)
    tracer.close()
    one, two = [span for span in spans if span.name == "batch"]
    assert one.links == [(f"{second.at.trace_id:032x}", f"{second.at.span_id:016x}")]
    assert two.links == [(f"{first.at.trace_id:032x}", f"{first.at.span_id:016x}")]
    assert one.attributes["sluiceway.batch.items"] == 3


async def test_the_context_goes_to_apis_and_comes_in_over_http(
    collector: Collector, open_traces: Callable[[str], Tracer]
) -> None:
    heard: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append(request.headers.get("traceparent", ""))
        return web.json_response({"known": True})

    app = web.Application()
    app.add_routes([web.get("/ask", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api = f"http://127.0.0.1:{runner.addresses[0][1]}/ask"
    tracer = open_traces("orchestrator")
    try:
        facts = {"url": api, "image": "none", "values": {"known": "/known"}, "allow_cidrs": ["127.0.0.0/8"]}
        steps = [{"name": "text", "stage": "detection"}, {"name": "facts", "api": "facts", "after": ["text"]}]
        cluster = Cluster(
            apis={"facts": facts},
            pipelines={"ask": {"steps": steps}},
            default_pipeline="ask",
            http={"enabled": True, "port": 0},
            tracer=tracer,
        )
        async with cluster, ClientSession() as session:
            url = f"http://127.0.0.1:{cluster.service.http.port}/v1/process"
            headers = {
                "Content-Type": "image/jpeg",
                "Accept": "application/json",
                "traceparent": f"00-{TRACE}-{SPAN}-01",
            }
            async with session.post(url, data=picture(1), headers=headers) as response:
                assert response.status == 200, await response.text()
        spans = spans_once(collector, lambda spans: any(span.name == "POST /v1/process" for span in spans))
    finally:
        tracer.close()
        await runner.cleanup()
    asked = next(span for span in spans if span.name == "api facts")
    assert heard == [f"00-{TRACE}-{asked.span_id}-01"]
    assert above(spans, asked) == ["sluiceway-orchestrator: job", "sluiceway-orchestrator: POST /v1/process"]
    assert {span.trace_id for span in spans} == {TRACE}


async def test_jobs_of_a_stream_have_traces_of_their_own(
    collector: Collector, open_traces: Callable[[str], Tracer]
) -> None:
    tracer = open_traces("orchestrator")
    async with Cluster(tracer=tracer) as cluster:
        metadata = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        async with AsyncClient(f"127.0.0.1:{cluster.server.port}", metadata=metadata) as client:
            assert [result.ok async for result in client.process_many([picture(1), picture(2)])] == [True, True]
    tracer.close()
    spans = list(collector.spans)
    jobs = [span for span in spans if span.name == "job"]
    stream = next(span for span in spans if span.name.endswith("/ProcessStream"))
    assert stream.trace_id == TRACE
    assert len({job.trace_id for job in jobs} | {TRACE}) == 3
    assert [job.links for job in jobs] == [[(TRACE, stream.span_id)]] * 2


async def test_a_program_with_opentelemetry_has_calls_of_the_library_in_its_traces(
    collector: Collector, open_traces: Callable[[str], Tracer], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = open_traces("orchestrator")
    own = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(own))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    parent = SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=False, trace_flags=TraceFlags(1))
    async with Cluster(tracer=tracer) as cluster, AsyncClient(f"127.0.0.1:{cluster.server.port}") as client:
        with use_span(NonRecordingSpan(parent)):
            await client.process(picture(1))
            async for _ in client.events(picture(2)):
                pass
    tracer.close()
    calls = own.get_finished_spans()
    assert [span.name for span in calls] == ["sluiceway process", "sluiceway events"]
    served = [span for span in collector.spans if span.name.endswith("/Process")]
    assert {span.parent_id for span in served} == {f"{span.context.span_id:016x}" for span in calls}
    assert {span.trace_id for span in served} == {TRACE}
