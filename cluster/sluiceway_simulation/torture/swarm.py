"""Drawing trials (swarm testing: Groce et al., 2012): each seed leaves much out, so that what is left happens often."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from sluiceway_runtime.pool import PoolLimits, Timing
from sluiceway_runtime.priority import Priority

from sluiceway_simulation.clients import Ask
from sluiceway_simulation.cluster import ClusterPlan
from sluiceway_simulation.network.wire import Wire
from sluiceway_simulation.stages.pictures import Harm, Picture
from sluiceway_simulation.stages.profile import Curve, Profile
from sluiceway_simulation.stages.service import StagePlan
from sluiceway_simulation.torture.faults import KINDS
from sluiceway_simulation.torture.plan import Fault, Job, Trial

__all__ = ["draw"]

READ: Mapping[str, tuple[str, ...]] = {"read": ("words",)}
CALLER = "sluiceway_simulation.callers:SimulatedApi"
# When the first job comes: stages have started by then, mostly.
FIRST_S = 2.5
# With less memory than this an orchestrator takes small messages only.
ROOMY_BYTES = 512 * 2**20


def draw(seed: int) -> Trial:
    """The trial of a seed."""
    chance = random.Random(f"{seed}/swarm")
    nested = chance.random() < 0.25
    calls = chance.random() < 0.25
    stages: dict[str, tuple[str, StagePlan]] = {
        "detection": ("detection", _detection(chance)),
        "recognition": ("recognition", _recognition(chance)),
    }
    pipelines = {**READ}
    tables: dict[str, Any] = {}
    steps: list[dict[str, Any]] = [{"name": "text", "stage": "detection"}]
    if nested:
        stages["plates"] = ("detection", _detection(chance))
        steps.append({"name": "plates", "stage": "plates", "of": "text"})
        steps.append({"name": "words", "stage": "recognition", "of": "plates"})
    else:
        steps.append({"name": "words", "stage": "recognition", "of": "text"})
    apis = {}
    if calls:
        apis["registry"] = {
            "caller": CALLER,
            "config": {"seed": seed, "mean_s": chance.choice([0.005, 0.05]), "failing": chance.choice([0.0, 0.1])},
            "max_in_flight": chance.choice([2, 64]),
            "timeout_s": 2.0,
            "breaker_failures": 1000,
        }
        steps.append({"name": "owner", "api": "registry", "of": "words"})
    if nested or calls:
        tables = {"pipelines": {"deep": {"steps": steps}}}
        pipelines["deep"] = ("words", "owner") if calls else ("words",)
    cluster = ClusterPlan(
        stages=stages,
        replicas={name: chance.choice([1, 2, 2, 3, 4]) for name in stages},
        orchestrators=1,
        orchestrator=_options(chance),
        tables=tables,
        apis=apis,
        wire=Wire(chance.choice([0.0001, 0.0005, 0.005]), chance.choice([0.0, 0.0002, 0.005])),
    )
    lasts_s = chance.choice([2.0, 4.0, 8.0])
    is_small = cluster.orchestrator["memory_bytes"] < ROOMY_BYTES
    jobs = _jobs(
        chance, tuple(pipelines), lasts_s, chance.choice([500, 20_000] if is_small else [500, 20_000, 200_000])
    )
    faults = _faults(chance, tuple(stages), lasts_s)
    return Trial(seed, cluster, jobs, faults, pipelines, streams=chance.random() < 0.3)


def _timing(chance: random.Random) -> Timing:
    return Timing(restart_delay_s=chance.choice([0.05, 0.2]), restart_delay_max_s=2.0, stop_grace_s=1.0)


def _detection(chance: random.Random) -> StagePlan:
    limits = PoolLimits(
        max_batch=chance.choice([1, 1, 4]),
        queue_items=chance.choice([2, 8, 64, 256]),
        batch_timeout_s=chance.choice([1.0, 3.0]),
        start_timeout_s=5.0,
    )
    batch_ms = chance.choice([5.0, 20.0, 60.0])
    profile = Profile(Curve(((1, batch_ms), (4, batch_ms * 3))), spread=chance.choice([0.0, 0.2, 0.8]), start_s=0.5)
    return StagePlan(profile, chance.choice([1, 2, 4]), limits=limits, timing=_timing(chance))


def _recognition(chance: random.Random) -> StagePlan:
    on_gpu = chance.random() < 0.4
    limits = PoolLimits(
        max_batch=chance.choice([32, 128] if on_gpu else [1, 4, 16]),
        max_batch_cost=chance.choice([None, 20_000]),
        side_by_side=None if on_gpu else chance.choice([None, 1]),
        mixes=on_gpu,
        queue_items=chance.choice([8, 64, 256]),
        batch_timeout_s=chance.choice([1.0, 3.0]),
        start_timeout_s=5.0,
    )
    curve = Curve(((1, 1.0), (32, 4.0))) if on_gpu else Curve(((1, 1.0), (16, 16.0)))
    profile = Profile(curve, Curve(((64, 1.0), (320, 3.0))), chance.choice([0.0, 0.2, 0.8]), start_s=0.5)
    credits_each = chance.choice([1, 2, 3]) if on_gpu else 1
    return StagePlan(
        profile,
        chance.choice([1, 2]),
        credits_each,
        chance.randint(1, credits_each),
        limits,
        _timing(chance),
        "torch" if on_gpu else "openvino",
    )


def _options(chance: random.Random) -> dict[str, Any]:
    """Keys of `[orchestrator]`; mostly the defaults, as a cluster with every option odd finds little."""
    options: dict[str, Any] = {"memory_bytes": ROOMY_BYTES, "drain_grace_s": 5.0}
    odd: list[tuple[str, list[Any]]] = [
        ("max_jobs", [8, 64]),
        ("max_sources_in_flight", [4, 32]),
        ("max_sources_per_client", [1, 8]),
        ("events_ahead", [1, 4]),
        ("coalesce_ms", [0, 50]),
        ("max_crops_per_call", [1, 8]),
        ("initial_window", [1]),
        ("resolve_interval_s", [0.5]),
        ("memory_bytes", [2 * 2**20, 16 * 2**20]),
        ("retry_ratio", [0.0]),
    ]
    for name, values in odd:
        if chance.random() < 0.25:
            options[name] = chance.choice(values)
    if options["memory_bytes"] < ROOMY_BYTES:
        options |= {"max_message_bytes": 2**20, "max_image_bytes": 2**19}
    return options


def _jobs(chance: random.Random, pipelines: tuple[str, ...], lasts_s: float, size_bytes: int) -> tuple[Job, ...]:
    count = chance.choice([20, 30, 40, 60])
    clients = [f"client {number}" for number in range(chance.choice([1, 3, 8]))]
    largest = chance.choice([1, 3, 3, 8])
    regions = chance.choice([3, 10, 40])
    deadlines = chance.choice([[10.0], [0.1, 1.0, 10.0], [2.0], [30.0]])
    priorities = chance.choice([[Priority.NORMAL], list(Priority)])
    harm = chance.choice([0.0, 0.0, 0.02, 0.1])
    leaving = chance.choice([0.0, 0.0, 0.1, 0.5])
    slow = chance.choice([0.0, 0.0, 0.1])
    bursts = chance.random() < 0.3
    moments = [round(chance.random() * lasts_s * (0.1 if bursts else 1.0), 6) for _ in range(count)]
    jobs: list[Job] = []
    number = 0
    for index, moment in enumerate(sorted(moments)):
        pictures = []
        for _ in range(chance.randint(1, largest)):
            number += 1
            hurts = chance.random() < harm
            pictures.append(
                Picture(
                    number,
                    chance.randint(0, regions),
                    chance.randint(20, 300),
                    chance.choice(list(Harm)) if hurts else Harm.NONE,
                    chance.choice(list(Harm)) if hurts else Harm.NONE,
                )
            )
        ask = Ask(
            job_id=f"job {index}",
            pictures=tuple(pictures),
            priority=chance.choice(priorities),
            timeout_s=chance.choice(deadlines),
            pipeline=chance.choice(pipelines),
            source_bytes=size_bytes,
            pause_s=0.05 if chance.random() < slow else 0.0,
            leave_after_s=round(chance.random(), 6) if chance.random() < leaving else None,
            with_size=chance.random() < 0.8,
        )
        jobs.append(Job(FIRST_S + moment, chance.choice(clients), ask))
    return tuple(jobs)


def _faults(chance: random.Random, stages: tuple[str, ...], lasts_s: float) -> tuple[Fault, ...]:
    # Some seeds have none: what goes wrong in those is no fault's.
    kinds = chance.sample(sorted(KINDS), chance.choice([0, 2, 3, 4, 6]))
    faults = []
    for kind in kinds:
        for _ in range(chance.choice([1, 1, 2, 4])):
            at_s = FIRST_S + chance.random() * lasts_s
            faults.append(
                Fault(
                    round(at_s, 6),
                    kind,
                    chance.choice(stages),
                    chance.randrange(1000),
                    round(chance.expovariate(1 / chance.choice([0.2, 2.0])), 6),
                    round(chance.random(), 6),
                )
            )
    return tuple(sorted(faults, key=lambda fault: fault.at_s))
