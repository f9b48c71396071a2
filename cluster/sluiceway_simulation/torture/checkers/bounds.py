"""What is bounded stays within its bound, whatever happens; looked at now and then while jobs run."""

from __future__ import annotations

from collections.abc import Iterator

from sluiceway_simulation.cluster import Cluster

__all__ = ["check_bounds"]


def check_bounds(cluster: Cluster) -> Iterator[str]:
    """What is above its bound at this moment."""
    for replicas in cluster.replicas.values():
        for replica in replicas:
            service = replica.service
            if service.pool is None:
                continue
            plan, now = service.plan, service.pool.statistics()
            # What was with workers that died waits again, beyond what is let in.
            most = plan.limits.queue_items + plan.workers * plan.credits * plan.limits.max_batch
            if now.queued > most:
                yield f"{replica}: {now.queued} items wait, {most} may"
            if now.running > plan.workers * plan.credits * plan.limits.max_batch:
                yield f"{replica}: {now.running} items are with {plan.workers} workers"
            if service.pool.idle_for_no_reason:
                yield f"{replica}: {service.pool.idle_for_no_reason} workers are idle while {now.queued} items wait"
            if replica.server.budget.used_bytes > replica.server.budget.total_bytes:
                yield f"{replica}: {replica.server.budget}"
    for orchestrator in cluster.orchestrators:
        jobs, most = orchestrator.service.status()["jobs"], cluster.max_jobs
        if jobs > most:
            yield f"{orchestrator}: {jobs} jobs run, {most} may"
        budget = orchestrator.server.budget
        if budget.waiting and not budget.used_bytes:
            yield f"{orchestrator}: {budget.waiting} wait for bytes, and nobody has any"
