"""A cluster that is started here to be measured: load on it, and what its servers say of that time."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sluiceway_runtime import cores
from sluiceway_runtime.config import read_file
from sluiceway_simulation.profiles.model import Workers

from sluiceway.bench import arrivals, runs
from sluiceway.bench.caller import Caller
from sluiceway.bench.load import Load, Send
from sluiceway.bench.outcome import Answer
from sluiceway.bench.summary import Summary
from sluiceway.client import AsyncClient, Options
from sluiceway.client.connection import Connection
from sluiceway.client.sources import Content
from sluiceway_cluster.division import format_cores
from sluiceway_cluster.plan import ClusterPlan
from sluiceway_cluster.settings import as_toml
from sluiceway_cluster.tuning.clients import Sample, Sampler, sampling

__all__ = ["MeasuredCluster", "Stretch", "machine_cores", "measured", "settings_of", "tuned_toml"]

KINDS = ("detection", "recognition")
READY_S = 60.0
TIMEOUT_S = 30.0
# Of each stretch, before anything counts.
WARM_UP_S = 0.7


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of load and what came of it; times of processors are those of all of it, the warm-up included."""

    summary: Summary
    images: int
    stages: Mapping[str, Sample]
    orchestrator_s: float
    client_s: float

    @property
    def per_s(self) -> float:
        """Images answered in full, a second."""
        return self.summary.answered_per_s.value

    @property
    def p99_ms(self) -> float:
        """Of those."""
        return (self.summary.latencies.percentile_s(99) or float("inf")) * 1000


@dataclass
class MeasuredCluster:
    """A cluster that runs, and the images to send.

    Attributes:
        regions: that it found in each image.
    """

    plan: ClusterPlan
    send: Caller
    sources: int
    sample: Sampler
    regions: tuple[int, ...] = field(default=())

    async def closed(self, in_flight: int, seconds: float, *, only: int | None = None) -> Stretch:
        """Callers that wait for their answers, with all images in turns or with one of them."""

        async def send_it(source: int, timeout_s: float) -> Answer:
            del source
            return await self.send(only or 0, timeout_s)

        window = runs.Window(WARM_UP_S, seconds)
        before, client_s = await self.sample(), time.process_time()
        send: Send = self.send if only is None else send_it
        load = await runs.run_closed(send, in_flight, self.sources, window, timeout_s=TIMEOUT_S, watch=_nobody_watches)
        return self._stretch(load, window.summary(load, None, by_end=True), before, await self.sample(), client_s)

    async def open(self, rate_per_s: float, seconds: float, seed: int = 1) -> Stretch:
        """Images that come by themselves, as those of independent clients do."""
        due = arrivals.poisson(rate_per_s, WARM_UP_S + seconds, self.sources, random.Random(seed))
        return await self.play(due, seconds)

    async def play(self, due: Iterable[arrivals.Arrival], seconds: float) -> Stretch:
        """Images that come at given moments, of which the first are the warm-up."""
        window = runs.Window(WARM_UP_S, seconds)
        before, client_s = await self.sample(), time.process_time()
        load = await runs.run_open(self.send, due, window, timeout_s=TIMEOUT_S, watch=_nobody_watches)
        return self._stretch(load, window.summary(load, None), before, await self.sample(), client_s)

    async def worker_memory_mb(self) -> dict[str, float]:
        """Of one worker of each stage."""
        return {kind: sample.worker_memory_mb() for kind, sample in (await self.sample()).items() if kind in KINDS}

    @staticmethod
    def _stretch(
        load: Load,
        summary: Summary,
        before: Mapping[str, Sample],
        after: Mapping[str, Sample],
        client_s: float,
    ) -> Stretch:
        client_s = time.process_time() - client_s
        did = {name: sample.since(before[name]) for name, sample in after.items()}
        return Stretch(
            summary,
            len(load.outcomes),
            {kind: did[kind] for kind in KINDS},
            did["orchestrator"].front_s,
            client_s,
        )


@asynccontextmanager
async def measured(
    plan: ClusterPlan, sources: Sequence[Content], *, pipeline: str | None
) -> AsyncIterator[MeasuredCluster]:
    """Connect to a cluster that runs here, and see what is in the images.

    Raises:
        SluicewayError: an image cannot be processed.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient(plan.address))
        await client.wait_ready(READY_S, pipeline=pipeline)
        regions = [len((await client.process(source, pipeline=pipeline)).regions) for source in sources]
        connection = Connection(plan.address, tls=None, token=None)
        stack.push_async_callback(connection.close)
        sample = await stack.enter_async_context(sampling(plan.servers))
        send = Caller(connection, sources, Options(), pipeline=pipeline)
        yield MeasuredCluster(plan, send, len(sources), sample, tuple(regions))


def machine_cores() -> tuple[tuple[int, ...], bool]:
    """The cores that may be used, neighbours in order, and whether workers can be pinned to them."""
    facts = cores.read_cpu_facts()
    near = sorted(facts.topology, key=lambda cpu: (cpu.node, cpu.package, cpu.core, cpu.cpu))
    own = tuple(cpu.cpu for cpu in near)
    if facts.quota_cpus is not None and facts.quota_cpus < len(own):
        return own[: max(1, int(facts.quota_cpus))], False
    return own, True


def settings_of(workers: Mapping[str, Workers]) -> tuple[str, ...]:
    """What `--set` would say of a setting on this machine: cores of its own for each stage where there are enough."""
    own, pinned = machine_cores()
    found: list[str] = []
    wanted = sum(its.workers * its.threads for its in workers.values())
    start = 0
    for kind, its in workers.items():
        found += [f"{kind}.workers={its.workers}", f"{kind}.threads_per_worker={its.threads}"]
        if pinned:
            end = start + its.workers * its.threads
            found.append(f"{kind}.cores={format_cores(own if wanted > len(own) else own[start:end])}")
            start = end
    return tuple(found)


def tuned_toml(config: Path | None, variables: Mapping[str, str]) -> str:
    """The configuration in force with a setting in it, as a file."""
    return as_toml(read_file(config), {**os.environ, **variables})


def _nobody_watches(what: str, seconds: float, load: Load) -> None:
    """The steps are shown, not each stretch."""
