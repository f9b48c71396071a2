"""Canaries of both stages in containers, which then take over: other models behind the same names, under load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_stack import ADDRESS, ROOT, Compose

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DETECTORS, READERS = ("ppocrv6-tiny-det", "text-nano"), ("ppocrv6-tiny", "ppocrv5-mobile")
Report = Callable[[str], None]


def canaries(folder: Path) -> Path:
    """For each stage a second service, with another model, that answers to the stage's name as well."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    detection, recognition = services["detection"], services["recognition"]
    detection["environment"]["SLUICEWAY_DETECTION__MODEL"] = DETECTORS[1]
    recognition["image"] = "sluiceway-test/another-reader:1"
    recognition["build"]["args"]["RECOGNITION_MODELS"] = READERS[1]
    # Five servers that start at once on a busy machine.
    patient = {"healthcheck": {"start_period": "600s"}}
    beside = {
        f"{name}-canary": service | patient | {"networks": {"default": {"aliases": [name]}}}
        for name, service in (("detection", detection), ("recognition", recognition))
    }
    file = folder / "canaries.yml"
    file.write_text(yaml.safe_dump({"services": beside}))
    return file


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    compose = Compose(files=[canaries(tmp_path_factory.mktemp("canaries"))])
    compose.down()
    try:
        compose("build")
        compose("up", "--detach", "--wait")
        yield compose
    finally:
        compose.down()


def test_canaries_of_both_stages_lose_nothing_and_take_over(
    stack: Compose, photo: bytes, make_load: Any, until: Callable[..., float], report: Report
) -> None:
    # An answer in which a text is missing counts as a failure.
    with make_load(ADDRESS, photo, clients=4).running() as ledger:
        # Two stages of which each has two halves take turns in step, so that not every pair comes.
        every = {*DETECTORS, *READERS}
        until("answers by every model", lambda: set().union(*ledger.models) == every, 180)
        shares = dict(ledger.models)
        stack("stop", "detection", "recognition")
        after = ledger.models[DETECTORS[1], READERS[1]]
        until("answers of those that took over", lambda: ledger.models[DETECTORS[1], READERS[1]] >= after + 16, 180)
    report(f"compose: canaries of both stages, {len(ledger.failures)} failed: {shares}")
    assert ledger.failures == []
    assert ledger.models.total() == len(ledger.finished_s)
    for detector in DETECTORS:
        assert len(ledger.regions[detector]) == 1, f"{detector} found {ledger.regions[detector]} regions in one picture"
