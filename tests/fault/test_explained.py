"""`explain` accounts for requests through a loaded cluster, and says what was missing where servers are gone."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict
from pathlib import Path
from time import monotonic

import pytest
from ledger_models import Deed, draw
from server_processes import Fleet

from sluiceway import AsyncClient
from sluiceway.client import Explanation, critical_path
from sluiceway.client.stories import SpanKind

pytestmark = pytest.mark.timeout(400)

REQUESTS = 200
IN_FLIGHT = 24
# What may be left unaccounted for of a request.
LEAST_MS, PART = 2.0, 0.02


def accounted_for(explanation: Explanation) -> list[str]:
    """What is wrong with a story; empty if nothing is."""
    faults = []
    if len(explanation.jobs) != 1:
        return [f"{explanation.request_id}: {len(explanation.jobs)} jobs"]
    ((server, job),) = explanation.jobs
    for source in job.sources:
        path = critical_path(explanation, job, source.source, server.server)
        if path.unaccounted_ms > max(LEAST_MS, PART * path.total_ms):
            gaps = [item for item in path.segments if item.what == "unaccounted" and item.duration_ms > 0.1]
            faults.append(f"{explanation.request_id}: {path.unaccounted_ms:.1f} of {path.total_ms:.1f} ms: {gaps}")
    faults += [
        f"{explanation.request_id}: {span.stage} at {span.address} does not tell of call {span.call}"
        for span in job.spans
        if span.kind is SpanKind.CALL and explanation.called(span) is None
    ]
    return faults


async def test_each_of_200_requests_through_a_loaded_cluster_is_accounted_for(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        detection, recognition, first = fleet.cluster(replicas=2)
        targets = {
            "DETECTION": ",".join(member.address for member in detection),
            "RECOGNITION": ",".join(member.address for member in recognition),
        }
        second = fleet.add("orchestrator", targets).start()
        async with AsyncClient(f"{first.address},{second.address}") as client:
            room = asyncio.Semaphore(IN_FLIGHT)

            async def ask(number: int) -> str:
                async with room:
                    # Some take long in a worker, so that others wait behind them.
                    deed = Deed.SLOW if number % 10 == 0 else Deed.READ_SLOW if number % 10 == 5 else Deed.NOTHING
                    result = await client.process(
                        draw(number, 1 + number % 4, deed, 30), request_id=f"request-{number}"
                    )
                    assert result.request_id == f"request-{number}"
                    return result.request_id

            names = await asyncio.gather(*(ask(number) for number in range(REQUESTS)))
            took_s = []
            faults: list[str] = []
            served: Counter[str] = Counter()
            company = 0
            by_server: defaultdict[str, list[str]] = defaultdict(list)
            for name in names:
                started_s = monotonic()
                explanation = await client.explain(name)
                took_s.append(monotonic() - started_s)
                faults += accounted_for(explanation)
                ((server, job),) = explanation.jobs
                served[server.instance] += 1
                addresses = [span.address for span in job.spans if span.kind is SpanKind.CALL]
                served.update(addresses)
                for address in addresses:
                    by_server[address].append(name)
                batches = [span.batch for item in explanation.servers for call in item.calls for span in call.spans]
                company += any(batch is not None and batch.other_request_count for batch in batches)
            assert faults == []
            # A stage that is asked itself tells its own part.
            assert by_server[detection[0].address]
            async with AsyncClient(detection[0].address) as stage:
                parts = [await stage.explain(name) for name in by_server[detection[0].address]]
            assert all(part.found for part in parts)
            assert {server.server for part in parts for server in part.servers} == {"detection"}
            # Two of everything took part, and some were computed together.
            assert len(served) == 6, served
            assert company
            assert sorted(took_s)[REQUESTS // 2] < 0.2, sorted(took_s)[-5:]


async def test_a_replica_that_is_killed_is_in_the_story_of_what_it_broke(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        (first, second), _, orchestrator = fleet.cluster(replicas=2)
        async with AsyncClient(orchestrator.address) as client:
            by_port = {member.address: member for member in (first, second)}
            hanging = asyncio.create_task(
                client.process(draw(1, 2, Deed.SLOW, 3000), request_id="broken", timeout_s=60)
            )
            address = ""
            async with asyncio.timeout(30):
                while not address:
                    # It runs, and its story is told all the same.
                    running = await client.explain("broken")
                    calls = [span for _, job in running.jobs for span in job.spans if span.kind is SpanKind.CALL]
                    address = calls[0].address if calls else ""
            ((_, job),) = running.jobs
            assert job.running
            by_port[address].kill(signal.SIGKILL)
            by_port[address].process.wait()
            result = await hanging
            assert result.ok
            explanation = await client.explain("broken")
            ((_, job),) = explanation.jobs
            tried = [span for span in job.spans if span.kind is SpanKind.CALL and span.stage == "detection"]
            assert [span.address == address for span in tried] == [True, False]
            assert tried[0].error is not None
            assert tried[0].error.reason == "UNAVAILABLE"
            assert tried[1].error is None
            silent = {server.address: server for server in explanation.silent}
            assert silent[address].error is not None
            path = critical_path(explanation, job)
            assert path.unaccounted_ms <= max(LEAST_MS, PART * path.total_ms), path.segments


async def test_a_worker_that_dies_is_in_the_story(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        _, _, orchestrator = fleet.cluster()
        async with AsyncClient(orchestrator.address) as client:
            with pytest.raises(Exception, match=r"quarantined|worker"):
                await client.process(draw(1, 1, Deed.CRASH), request_id="killer")
            explanation = await client.explain("killer")
            ((_, job),) = explanation.jobs
            assert job.sources[0].error is not None
            batches = [
                span.batch
                for server in explanation.servers
                for call in server.calls
                for span in call.spans
                if span.kind is SpanKind.BATCH and span.batch is not None
            ]
            assert len(batches) == 2
            assert all(batch.fault.startswith("it exited") for batch in batches), batches
