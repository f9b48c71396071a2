"""What the documents say about the configuration and the output is so, and their links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sluiceway_cluster import plan_cluster
from sluiceway_orchestrator.config.pipelines import StepConfig

from sluiceway.client import Box, Page, Region, Result, StageTimings, Timings
from sluiceway.client.results import Block, Line

ROOT = Path(__file__).parents[3]
CPU = {"SLUICEWAY_RECOGNITION__DEVICE": "cpu"}
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md", *(ROOT / "docs").rglob("*.md")]
LINKS = [
    pytest.param(document.parent / path, id=f"{document.relative_to(ROOT)}: {path}")
    for document in DOCUMENTS
    for path in re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)", document.read_text())
]


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    config = tmp_path / "sluiceway.toml"
    config.write_text(block("toml"))
    plan = plan_cluster(config, CPU | {"SHOP_TOKEN": "x"}, free_ports=True)
    assert plan.weights == ("ppocrv6-tiny-det", "ppocrv6-tiny")


@pytest.mark.parametrize(
    ("document", "number", "pipeline", "steps"),
    [
        ("README.md", 1, "layout", ["parts", "text", "words"]),
        ("docs/pipelines.md", 0, "parking", ["vehicles", "plates", "number", "owner", "book"]),
        ("examples/README.md", 0, "read", ["found", "words", "kind", "look"]),
    ],
)
def test_the_pipelines_are_valid(document: str, number: int, pipeline: str, steps: list[str], tmp_path: Path) -> None:
    text = re.findall(r"```toml\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)[number]
    # The documents speak of models that a reader has, and this machine has not.
    for name in re.findall(r'"(\w+\.onnx)"', text):
        (tmp_path / name).touch()
        text = text.replace(f'"{name}"', json.dumps(str(tmp_path / name)))
    config = tmp_path / "sluiceway.toml"
    config.write_text(text)
    found = {item.name: item for item in plan_cluster(config, CPU, free_ports=True).pipelines}
    assert [step.name for step in found[pipeline].steps] == steps


def test_the_page_on_pipelines_explains_every_key_of_a_step() -> None:
    page = (ROOT / "docs" / "pipelines.md").read_text()
    left_out = [key for key in StepConfig.model_fields if not re.search(rf"`{key}`|\b{key} = ", page)]
    assert not left_out


def test_the_json_has_the_keys_that_are_written() -> None:
    shown = json.loads(block("json"))
    region = Region(0, Box(0, 0, 1, 1), "textline", 0, 0.9, Box(0, 0, 1, 1).corners)
    timings = Timings(0, {"text": StageTimings(), "words": StageTimings()}, 1)
    written = Result("a", (Page(1, 1),), (region,), timings, lines=(Line((0,)),), blocks=(Block((0,)),)).to_dict()
    assert list(shown) == list(written)
    assert [list(shown[key][0]) for key in ("lines", "blocks")] == [
        list(written[key][0]) for key in ("lines", "blocks")
    ]
    assert list(shown["regions"][0]) == list(written["regions"][0])
    assert set(shown["timings_ms"]) <= set(written["timings_ms"])


@pytest.mark.parametrize("path", LINKS)
def test_links_lead_somewhere(path: Path) -> None:
    assert path.exists()
