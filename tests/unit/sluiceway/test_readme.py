"""What the README says about the configuration and the output is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sluiceway_cluster import plan_cluster

from sluiceway.client import Box, Page, Region, Result, StageTimings, Timings

ROOT = Path(__file__).parents[3]


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    config = tmp_path / "sluiceway.toml"
    config.write_text(block("toml"))
    plan = plan_cluster(config, {"SLUICEWAY_RECOGNITION__DEVICE": "cpu"}, free_ports=True)
    assert plan.weights == ("text-nano", "ppocrv6-tiny")


def test_the_json_has_the_keys_that_are_written() -> None:
    shown = json.loads(block("json"))
    region = Region(0, Box(0, 0, 1, 1), "textline", 0, 0.9, Box(0, 0, 1, 1).corners)
    timings = Timings(0, {"text": StageTimings(), "words": StageTimings()}, 1)
    written = Result("a", (Page(1, 1),), (region,), timings).to_dict()
    assert list(shown) == list(written)
    assert list(shown["regions"][0]) == list(written["regions"][0])
    assert set(shown["timings_ms"]) <= set(written["timings_ms"])


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text()))
def test_links_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()
