"""A setting for containers and pods: an override for compose, and values for the Helm chart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

from sluiceway_simulation.planning.autoscaler import Scaling
from sluiceway_simulation.planning.fleet import Fleet
from sluiceway_simulation.profiles.model import Workers
from sluiceway_simulation.profiles.profile import PipelineProfile

__all__ = ["compose_override", "fleet_values", "helm_values"]

# Of a front with its queue, beside the workers; `docs/docker.md` says how it is made up.
FRONT_MB = 512


def compose_override(profile: PipelineProfile, workers: Mapping[str, Workers]) -> str:
    """What docker-compose.yml needs beside it: workers, threads and CPUs of each stage."""
    services: dict[str, Any] = {}
    for kind, its in workers.items():
        upper = kind.upper()
        services[kind] = {
            "environment": {
                f"SLUICEWAY_{upper}__WORKERS": str(its.workers),
                f"SLUICEWAY_{upper}__THREADS_PER_WORKER": str(its.threads),
            },
            "cpus": f"{its.workers * its.threads:.1f}",
            "mem_limit": f"{_memory_mb(profile, kind, its)}m",
        }
    head = "# Made by `sluiceway tune`: docker compose -f docker-compose.yml -f THIS_FILE up\n"
    return head + yaml.safe_dump({"services": services}, sort_keys=False)


def helm_values(profile: PipelineProfile, workers: Mapping[str, Workers]) -> str:
    """Values for the chart: a pod of each stage as it was tuned."""
    values = {kind: {"replicas": 1, **_pod(profile, kind, its)} for kind, its in workers.items()}
    return "# Made by `sluiceway tune`: helm upgrade --install NAME CHART --values THIS_FILE\n" + yaml.safe_dump(
        values, sort_keys=False
    )


def _memory_mb(profile: PipelineProfile, kind: str, its: Workers) -> int:
    """Workers grow a little while they run; in steps of 64."""
    return math.ceil((its.workers * profile.stages[kind].memory_mb * 1.25 + FRONT_MB) / 64) * 64


def fleet_values(profile: PipelineProfile, fleet: Fleet, scaling: Scaling) -> str:
    """Values for the chart: servers of a plan, each stage between one and as many as the peak needs."""
    values: dict[str, Any] = {"orchestrator": {"replicas": fleet.orchestrators}}
    for kind, its in fleet.workers.items():
        values[kind] = {
            **_pod(profile, kind, its),
            "replicas": fleet.replicas[kind],
            "autoscaling": {
                "enabled": True,
                "minReplicas": 1,
                "maxReplicas": fleet.replicas[kind],
                "cpuPercent": round(scaling.target * 100),
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": round(scaling.stabilisation_s)}},
            },
        }
    return "# Made by `sluiceway plan`: helm upgrade --install NAME CHART --values THIS_FILE\n" + yaml.safe_dump(
        values, sort_keys=False
    )


def _pod(profile: PipelineProfile, kind: str, its: Workers) -> dict[str, Any]:
    cpu, memory = str(its.workers * its.threads), f"{_memory_mb(profile, kind, its)}Mi"
    return {
        "workers": its.workers,
        "config": {"threads_per_worker": its.threads},
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}},
    }
