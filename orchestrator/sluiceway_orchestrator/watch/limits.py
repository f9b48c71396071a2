"""What limits a cluster now, and what would help: figures in, sentences out. Pure; every rule is a row in its tests.

A part limits if work waits for it, or would as soon as more came. Where several do, the one that most waits for comes
first: those behind it are mostly kept waiting by it, or keep from it what it could do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sluiceway.figures import ApiFigures, FrontFigures, Limit, OrchestratorFigures, ReplicaFigures, StageFigures

__all__ = ["limits_of"]

# Workers that are busy for this share of the time are a limit if work waits for them, or even if none does.
BUSY, FULL = 0.85, 0.95
# A loop that computes for this share of the time answers late; there is only one in a process.
LOOP = 0.85
# A loop that waits for a CPU this share of the time, and with what it computes is taken up for that one. A quota that
# stops a server in this share of its periods.
STARVED, TAKEN_UP, THROTTLED = 0.25, 0.5, 0.1
# A wait that is more than the moment which handing work to a worker takes.
WAIT_MS = 20.0
# Below this a GPU is not what keeps its workers busy.
GPU_IDLE = 0.6
# Of the bytes that may be held, so many that there is hardly room for an image.
HELD = 0.5
# Kinds after which nothing else has to be said of why images wait for their turn: the places are full behind it.
_BEHIND = frozenset({"no_replica", "workers", "throttled", "front", "event_loop", "api_in_flight", "unread", "starved"})


def limits_of(
    orchestrator: OrchestratorFigures, stages: Sequence[StageFigures], apis: Sequence[ApiFigures]
) -> tuple[Limit, ...]:
    """What limits, the worst first; never empty.

    Args:
        orchestrator: the one that answers.
        stages: every stage that a pipeline uses.
        apis: every API.
    """
    found = [*_missing(stages), *_slowed(stages)]
    # A stage that has most work waiting for it first.
    for stage in sorted(stages, key=lambda stage: (stage.wait_ms, stage.backlog), reverse=True):
        found += _stage(stage)
    found += _loop(orchestrator)
    found += _apis(apis)
    found += _unread(orchestrator)
    if not any(limit.kind in _BEHIND for limit in found):
        found += _places(orchestrator)
    found += _room("orchestrator", "orchestrator", orchestrator.front, unread=orchestrator.unread)
    found += _failing(stages)
    if not any(_limits(limit) for limit in found):
        found.insert(0, _nothing(orchestrator, stages))
    return tuple(found)


def _limits(limit: Limit) -> bool:
    """Whether work is kept waiting by it, rather than that somebody should know of it."""
    return limit.kind not in ("replica_away", "workers_failing", "api_broken")


# Stages


def _missing(stages: Sequence[StageFigures]) -> Iterator[Limit]:
    for stage in stages:
        if stage.ready:
            continue
        waits = (
            f", {_count(stage.backlog, 'item')} {_do(stage.backlog, 'waits', 'wait')} for it" if stage.backlog else ""
        )
        starting = sum(replica.state == "starting" for replica in stage.replicas)
        if starting:
            what = f"no replica is ready, {starting} of {len(stage.replicas)} {_is(starting)} starting{waits}"
            yield Limit(stage.name, "no_replica", what, "its log says what it is at", fault=True)
        elif stage.replicas:
            yield Limit(
                stage.name,
                "no_replica",
                f"no replica is ready{waits}",
                f"look at {_named(stage.replicas)}: does a server run there, and what does its log say last?",
                fault=True,
            )
        else:
            yield Limit(
                stage.name,
                "no_replica",
                f"no replica is known{waits}",
                f"does the name in {_key(stage, 'target')} resolve, and does a server run there?",
                fault=True,
            )


def _slowed(stages: Sequence[StageFigures]) -> Iterator[Limit]:
    """Replicas that are kept from computing: by their quota, or by others on their machine."""
    for stage in stages:
        slowed = [
            (front.throttled, replica)
            for replica in stage.replicas
            if (front := replica.front) is not None and (front.throttled or 0.0) >= THROTTLED
        ]
        if slowed:
            share, worst = max(slowed, key=lambda item: item[0] or 0.0)
            cpus = worst.front.cpus if worst.front is not None else 0.0
            yield Limit(
                stage.name,
                "throttled",
                f"{_of(slowed, stage)} stopped by the CPU quota in {_percent(share)} of its periods"
                f" ({_cpus(cpus)}){_waits(stage)}",
                f"raise the CPU limit of its container, or lower {_key(stage, 'workers')} so that they fit in it",
            )


def _stage(stage: StageFigures) -> Iterator[Limit]:
    if not stage.ready:
        return
    working = [
        worker.busy
        for replica in stage.replicas
        for worker in replica.workers
        if worker.state == "ready" and worker.busy is not None
    ]
    busy = sum(working) / len(working) if working else None
    waits = stage.backlog > 0 or stage.wait_ms >= WAIT_MS
    if busy is not None and (busy >= FULL or (busy >= BUSY and waits)):
        yield _workers(stage, busy, len(working))
    elif busy is None and waits and _is_full(stage):
        capacity = sum(replica.capacity for replica in stage.replicas)
        yield Limit(stage.name, "workers", f"all of its {capacity} places are taken{_waits(stage)}", _more(stage))
    for replica in stage.replicas:
        yield from _front(stage, replica)
        if replica.front is not None:
            yield from _room(stage.name, _section(stage), replica.front, at=replica.address)


def _workers(stage: StageFigures, busy: float, working: int) -> Limit:
    # One that is started again does nothing; the others have its work, too.
    all_of_them = f"{working} of {stage.workers} workers busy {_percent(busy)}"
    gpu = f", GPU {_percent(stage.gpu)}" if stage.gpu is not None else ""
    what = f"{all_of_them}{gpu}{_waits(stage)}"
    if stage.gpu is not None and stage.gpu < GPU_IDLE:
        return Limit(
            stage.name,
            "workers",
            what,
            f"the GPU waits for its workers: raise {_key(stage, 'workers')}, or add replicas ({_scale(stage)})",
        )
    return Limit(stage.name, "workers", what, _more(stage))


def _more(stage: StageFigures) -> str:
    return f"add workers or replicas ({_key(stage, 'workers')}, {_scale(stage)})"


def _is_full(stage: StageFigures) -> bool:
    """Of servers that say nothing of their workers: whether they have all that they can hold."""
    capacity = sum(replica.capacity for replica in stage.replicas if replica.ready)
    held = sum(max(replica.running + replica.queued, replica.in_flight) for replica in stage.replicas)
    return 0 < capacity <= held


def _front(stage: StageFigures, replica: ReplicaFigures) -> Iterator[Limit]:
    front = replica.front
    if front is None or front.loop is None:
        return
    if front.loop >= LOOP:
        yield Limit(
            stage.name,
            "front",
            f"the event loop of {replica.address} is full ({_percent(front.loop)}){_waits(stage)}",
            f"add replicas ({_scale(stage)}): each has a loop of its own",
        )
    elif _is_starved(front):
        yield Limit(
            stage.name,
            "starved",
            f"{replica.address} waits for a CPU {_percent(front.starved)} of the time{_waits(stage)}",
            f"its machine has more to do than CPUs: fewer workers ({_key(stage, 'workers')}), or more CPUs",
        )


def _failing(stages: Sequence[StageFigures]) -> Iterator[Limit]:
    for stage in stages:
        away = [replica for replica in stage.replicas if not replica.ready and replica.state in ("", "failed")]
        if stage.ready and away:
            what = f"{len(away)} of {len(stage.replicas)} replicas {_do(len(away))} not answer ({_named(away)})"
            yield Limit(
                stage.name, "replica_away", what, "does a server run there, and what does its log say last?", True
            )
        down = stage.workers - stage.workers_ready
        again = stage.recent_restarts or 0
        if not stage.ready or not (down or again):
            continue
        parts = [f"{down} of {stage.workers} workers {_do(down)} not work"] if down else []
        parts += [f"{_count(again, 'worker')} started again within seconds"] if again else []
        yield Limit(stage.name, "workers_failing", ", ".join(parts), "its log says why each ended", fault=True)


# The orchestrator, and what is around it


def _loop(orchestrator: OrchestratorFigures) -> Iterator[Limit]:
    front = orchestrator.front
    if front.loop is not None and front.loop >= LOOP:
        yield Limit(
            "orchestrator",
            "event_loop",
            f"its event loop is full ({_percent(front.loop)})",
            "add orchestrators (--scale orchestrator=2): each has a loop of its own",
        )
    elif _is_starved(front):
        yield Limit(
            "orchestrator",
            "starved",
            f"it waits for a CPU {_percent(front.starved)} of the time",
            "its machine has more to do than CPUs: fewer workers of the stages beside it, or more CPUs",
        )
    if front.throttled is not None and front.throttled >= THROTTLED:
        yield Limit(
            "orchestrator",
            "throttled",
            f"stopped by the CPU quota in {_percent(front.throttled)} of its periods ({_cpus(front.cpus)})",
            "raise the CPU limit of its container",
        )


def _apis(apis: Sequence[ApiFigures]) -> Iterator[Limit]:
    for api in apis:
        if api.waiting and api.in_flight >= api.limit:
            yield Limit(
                f"api {api.name}",
                "api_in_flight",
                f"{api.in_flight} of {_count(api.limit, 'call')} in flight, {api.waiting} wait for their turn",
                f"raise api.{api.name}.max_in_flight if it can take more, or make it answer sooner",
            )
        elif api.broken:
            yield Limit(
                f"api {api.name}",
                "api_broken",
                "it failed again and again, and is left alone for a while",
                "sources that need it fail meanwhile: is it up, and does it take our calls?",
                fault=True,
            )


def _unread(orchestrator: OrchestratorFigures) -> Iterator[Limit]:
    if number := orchestrator.unread:
        yield Limit(
            "clients",
            "unread",
            f"{_count(number, 'job')} {_is(number)} held up by {'a client' if number == 1 else 'clients'} that "
            f"{_do(number)} not read",
            "a client has to read its events as they come; its place and its bytes are kept until its deadline",
        )


def _places(orchestrator: OrchestratorFigures) -> Iterator[Limit]:
    """Limits that the operator set, where nothing else explains why images wait."""
    own = orchestrator.waiting_own_share
    if orchestrator.jobs_limit and orchestrator.jobs >= orchestrator.jobs_limit:
        yield Limit(
            "orchestrator",
            "jobs",
            f"all of its {orchestrator.jobs_limit} places for jobs are taken; more are refused",
            "raise orchestrator.max_jobs, or add orchestrators (--scale orchestrator=2)",
        )
    if orchestrator.working_limit and orchestrator.waiting > own and orchestrator.working >= orchestrator.working_limit:
        yield Limit(
            "orchestrator",
            "places",
            f"all of its {orchestrator.working_limit} places for images are taken, {orchestrator.waiting} wait",
            "raise orchestrator.max_sources_in_flight, or add orchestrators (--scale orchestrator=2)",
        )
    elif own:
        yield Limit(
            "orchestrator",
            "client_places",
            f"{_count(own, 'image')} {_do(own, 'waits', 'wait')}, "
            f"as {_do(own, 'its client has', 'their clients have')} as many at work as one client may",
            "raise orchestrator.max_sources_per_client, if nobody else needs the places",
        )


def _room(subject: str, section: str, front: FrontFigures, *, at: str = "", unread: int = 0) -> Iterator[Limit]:
    if not front.waiting_for_room or front.held_bytes < HELD * front.held_limit_bytes:
        return
    held = f"{_megabytes(front.held_bytes)} of {_megabytes(front.held_limit_bytes)}"
    yield Limit(
        subject,
        "memory",
        f"{f'in {at} ' if at else ''}no room for more bytes: {held} MB are held, {front.waiting_for_room} wait",
        "clients that do not read hold theirs" if unread else f"raise {section}.memory_bytes, and the memory it has",
    )


def _nothing(orchestrator: OrchestratorFigures, stages: Sequence[StageFigures]) -> Limit:
    rate = orchestrator.rate + orchestrator.failed_rate
    at_work = orchestrator.working or orchestrator.jobs or any(stage.in_flight or stage.backlog for stage in stages)
    if not rate and not at_work:
        return Limit("", "idle", "nothing to do: no image came within the last seconds")
    known = [(stage.busy, stage) for stage in stages if stage.busy is not None]
    busiest = max(known, key=lambda item: item[0] or 0.0, default=None)
    said = f"; the busiest stage, {busiest[1].name}, is busy {_percent(busiest[0])}" if busiest else ""
    return Limit("", "nothing", f"nothing limits: {_rate(orchestrator.rate)} images/s{said}")


def _is_starved(front: FrontFigures) -> bool:
    return front.starved is not None and front.starved >= STARVED and front.starved + (front.loop or 0.0) >= TAKEN_UP


# Words


def _waits(stage: StageFigures) -> str:
    parts = [f", oldest wait {_wait(stage.wait_ms)}"] if stage.wait_ms >= 1 else []
    parts += [f", {stage.backlog} more {_do(stage.backlog, 'waits', 'wait')} outside"] if stage.backlog else []
    return "".join(parts)


def _wait(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def _of(some: Sequence[object], stage: StageFigures) -> str:
    return f"{len(some)} of {_count(len(stage.replicas), 'replica')} {_is(len(some))}"


def _named(replicas: Sequence[ReplicaFigures]) -> str:
    """Where they are; of many the first two."""
    more = len(replicas) - 2
    others = f" and {more} more" if more > 0 else ""
    return (", " if others else " and ").join(replica.address for replica in replicas[:2]) + others


def _section(stage: StageFigures) -> str:
    return stage.name if stage.name == stage.kind else f"stages.{stage.name}"


def _key(stage: StageFigures, key: str) -> str:
    return f"{_section(stage)}.{key}"


def _scale(stage: StageFigures) -> str:
    return f"--scale {stage.name}={max(1, len(stage.replicas)) + 1}"


def _percent(share: float | None) -> str:
    return f"{100 * (share or 0.0):.0f}%"


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 or not rate else f"{rate:.1f}"


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.0f}"


def _cpus(number: float) -> str:
    return f"{number:g} CPU{'' if number == 1 else 's'}"


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _do(number: int, one: str = "does", several: str = "do") -> str:
    return one if number == 1 else several
