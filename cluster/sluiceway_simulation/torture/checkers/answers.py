"""Every job that was taken is answered once, in time, with what its pictures say; nobody pays for another's harm."""

from __future__ import annotations

from collections.abc import Iterator

from sluiceway_orchestrator.testing.cluster import SourceEvents

from sluiceway_simulation.clients import PATIENCE_S, Heard
from sluiceway_simulation.stages.pictures import Harm, Picture
from sluiceway_simulation.torture.faults import ROLLOUTS
from sluiceway_simulation.torture.plan import Trial

__all__ = ["check_answer"]

# A call may end so; others are a fault of ours, as the orchestrator itself is not harmed.
CALLS_MAY_END = frozenset({"", "left", "QUEUE_FULL", "DEADLINE_EXCEEDED"})
# What an innocent source may hear where time or room is short, and where something is broken.
SCARCE = frozenset({"QUEUE_FULL", "DEADLINE_EXCEEDED", "UPSTREAM_FAILED"})
BROKEN = frozenset({"UNAVAILABLE"})
# A suspect is run alone. If something else ends its worker just then, nothing tells it from one that is guilty.
MAY_ACCUSE = frozenset({"worker_dies", "worker_hangs", "workers_are_slow", "no_worker_starts", "clock_jumps"})
# Above its own time and what the server may take to say so.
LATE_S = 0.1


def check_answer(trial: Trial, heard: Heard) -> Iterator[str]:
    """What is wrong with what a client heard of its job."""
    ask = heard.ask
    for fault in heard.faults:
        yield f"{ask.job_id}: {fault}"
    if heard.reason not in CALLS_MAY_END:
        yield f"{ask.job_id} ended with {heard.reason}"
    if heard.reason == "QUEUE_FULL" and heard.sources:
        yield f"{ask.job_id} was refused after it had been told of sources"
    late_s = heard.took_s - ask.timeout_s - PATIENCE_S
    # A job of a stream has its time from when it is read.
    if late_s > LATE_S and not (ask.pause_s or heard.streamed) and "clock_jumps" not in trial.kinds:
        yield f"{ask.job_id} ended {late_s:.3f} s too late"
    if heard.reason:
        return
    names = {str(picture.number) for picture in ask.pictures}
    if set(heard.sources) != names:
        yield f"{ask.job_id}: sources {sorted(names ^ set(heard.sources))} are missing, or nobody's"
    done = sum(source.done is not None for source in heard.sources.values())
    if heard.job_done != (done, len(heard.sources) - done):
        yield f"{ask.job_id}: job_done says {heard.job_done}, and {done} of {len(heard.sources)} are done"
    steps = trial.pipelines[ask.pipeline]
    for picture in ask.pictures:
        source = heard.sources.get(str(picture.number))
        if source is not None and not heard.was_cancelled:
            for wrong in _check_source(trial, picture, source, steps):
                yield f"{ask.job_id}, source {picture.number}: {wrong}"


def _check_source(trial: Trial, picture: Picture, source: SourceEvents, steps: tuple[str, ...]) -> Iterator[str]:
    if not source.finished:
        yield f"it has no single end: {source.order}"
        return
    yield from _check_reasons(trial, picture, source)
    if source.done is None:
        return
    yield from _check_regions(picture, source, steps)
    yield from _check_texts(trial, picture, source)


def _check_reasons(trial: Trial, picture: Picture, source: SourceEvents) -> Iterator[str]:
    if picture.harm or picture.region_harm:
        return
    harmful = any(other.harm or other.region_harm for job in trial.jobs for other in job.ask.pictures)
    allowed = SCARCE | (BROKEN if trial.faults or harmful else frozenset())
    if trial.kinds & MAY_ACCUSE:
        allowed |= {"QUARANTINED"}
    said = [*source.page_values.values(), *source.source_values.values()]
    errors = [source.error, *source.region_errors.values(), *(value.error for value in said if value.HasField("error"))]
    for reason in sorted({error.reason for error in errors if error is not None} - allowed):
        yield f"it is innocent, and heard {reason}"


def _check_regions(picture: Picture, source: SourceEvents, steps: tuple[str, ...]) -> Iterator[str]:
    found = [region for event in source.found.get("text", []) for region in event.regions]
    if not source.page_values and not picture.harm and len(found) != picture.regions:
        yield f"{len(found)} of {picture.regions} regions were told"
    promised = {key for events in source.found.values() for event in events for key in event.recognizing}
    for key in sorted(promised):
        value = source.values.get((steps[0], key))
        if value is None:
            yield f"region {key} has no value of {steps[0]}"
        elif len(steps) > 1 and not value.HasField("error") and (steps[1], key) not in source.values:
            yield f"region {key} has no value of {steps[1]}"
    strangers = {key for _, key in source.values} - set(source.regions)
    if strangers:
        yield f"values of regions {sorted(strangers)}, of which nobody was told"


def _check_texts(trial: Trial, picture: Picture, source: SourceEvents) -> Iterator[str]:
    detectors: set[str] = set()
    readers: set[str] = set()
    for text, times in source.texts.items():
        if times > 1 and text:
            yield f"{text} was read {times} times"
        what, _, versions = text.partition("@")
        number, _, _ = what.partition(":")
        if number != str(picture.number):
            yield f"it was given {text}, of another"
        detector, _, reader = versions.partition("/")
        detectors.add(detector)
        readers.add(reader)
    if set(source.found) == {"text"}:
        for (_, key), value in source.values.items():
            if value.HasField("text") and value.text.text.partition("@")[0] != f"{picture.number}:{key}":
                yield f"region {key} was given {value.text.text}"
    # A version may go away under a source once; it is then detected anew.
    most = 2 if trial.kinds & ROLLOUTS else 1
    if len(detectors) > most or len(readers) > most:
        yield f"it mixes versions: detectors {sorted(detectors)}, readers {sorted(readers)}"
    if picture.region_harm is Harm.NONE and not picture.harm and detectors and "" in detectors | readers:
        yield "a text says of no version"
