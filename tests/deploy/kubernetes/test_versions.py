"""Several versions of a stage in a real cluster, with other models: nothing is lost, and answers name their version."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from kubernetes_release import Ledger, Release

Report = Callable[[str], None]
Until = Callable[..., float]

# As the default configuration and the images of the next version have them.
DETECTORS, READERS = ("ppocrv6-tiny-det", "text-nano"), ("ppocrv6-tiny", "ppocrv5-mobile")


def models(ledger: Ledger) -> dict[str, int]:
    """How many answers each model had a part in."""
    return {name.split()[0]: count for name, count in ledger.versions.items()}


def check_nothing_is_missing(ledger: Ledger) -> None:
    """No request failed, no text is missing, and each detector found as many regions each time."""
    assert ledger.failures == []
    found = {name.split()[0]: numbers for name, numbers in ledger.regions.items()}
    for detector in DETECTORS:
        assert len(found[detector]) == 1, f"{detector} found {found[detector]} regions in one picture"
    answers = models(ledger)
    # Each answer names one version of each stage.
    assert sum(answers[name] for name in DETECTORS) == ledger.done
    assert sum(answers[name] for name in READERS) == ledger.done


def test_both_models_are_exchanged_under_load(
    release: Release, next_version: str, report: Report, until: Until
) -> None:
    with release.load(clients=4) as ledger:
        until("first results", lambda: ledger.done >= 4, 120)
        begin = time.monotonic()
        # Other regions, other classes, another alphabet: a source stays with the version that it began with.
        release.upgrade(f"image.tag={next_version}", "detection.config.model=text-nano")
        took_s = time.monotonic() - begin
        done = ledger.done
        until("further results", lambda: ledger.done >= done + 8, 120)
    names = ("orchestrator", "detection", "recognition")
    until("the old pods gone", lambda: all(len(release.pods(n)) == len(release.ready(n)) for n in names), 120)
    images = {pod["spec"]["containers"][0]["image"] for name in names for pod in release.pods(name)}
    assert {image.rsplit(":", 1)[1] for image in images} == {next_version}
    report(
        f"kubernetes: both models exchanged in {took_s:.0f} s, {ledger.done} requests, {len(ledger.failures)} failed: "
        f"{models(ledger)}"
    )
    check_nothing_is_missing(ledger)


@pytest.fixture(scope="module")
def canaries(cluster: None, next_version: str, until: Until) -> Iterator[Release]:
    """One pod of three finds regions by another model, and one of two reads them by another."""
    release = Release("bird", ("values.yaml", "canaries.yaml"))
    release.install()
    yield release
    release.helm("uninstall", "--wait")
    until("clean namespace", lambda: release.left() == [], 120, 1)


def test_canaries_of_both_stages_get_their_share(canaries: Release, report: Report, until: Until) -> None:
    with canaries.load(clients=4) as ledger:
        until("enough results", lambda: ledger.done >= 240, 400)
    answers = models(ledger)
    report(f"kubernetes: canaries of both stages, {ledger.done} requests, {len(ledger.failures)} failed: {answers}")
    check_nothing_is_missing(ledger)
    # Each goes to the less busy of two pods that are drawn: equal pods get equal work, up to the luck of the draw.
    assert 0.23 < answers["text-nano"] / ledger.done < 0.43
    assert 0.35 < answers["ppocrv5-mobile"] / ledger.done < 0.65
