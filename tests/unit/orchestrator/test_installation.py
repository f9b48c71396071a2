"""What an installation consists of: stages, their places, and pipelines over them."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.installation import Layout, layout_of
from sluiceway_runtime.errors import ConfigurationError

TEXT = {"name": "text", "stage": "detection"}
PLATES = {"kind": "detection", "target": "dns:///plates:50052"}


class Api:
    params = ("plate",)
    brings_values = True


def layout(tables: dict[str, Any], environment: dict[str, str] | None = None, **options: Any) -> Layout:
    return layout_of(OrchestratorConfig.model_validate(options), tables, environment or {}, {"registry": Api()})


def test_without_any_tables_there_are_the_default_stages_and_their_pipeline() -> None:
    found = layout({}, detection="dns:///d:1", recognition="dns:///r:2")
    assert {name: (place.kind, place.target) for name, place in found.stages.items()} == {
        "detection": ("detection", "dns:///d:1"),
        "recognition": ("recognition", "dns:///r:2"),
    }
    assert list(found.pipelines) == ["read"]
    assert found.used_stages == ("detection", "recognition")


def test_only_stages_that_a_pipeline_uses_are_connected_to() -> None:
    tables = {
        "stages": {"plates": PLATES, "idle": {"kind": "recognition"}},
        "pipelines": {"parking": {"steps": [TEXT, {"name": "plate", "stage": "plates", "of": "text"}]}},
    }
    found = layout(tables)
    assert found.stages["plates"].target == "dns:///plates:50052"
    assert set(found.used_stages) == {"detection", "recognition", "plates"}
    # A stage that no pipeline uses may be nowhere.
    assert found.stages["idle"].target == ""


def test_all_faults_are_told_at_once() -> None:
    tables = {
        "stages": {"plates": {"kind": "detection"}},
        "pipelines": {"parking": {"steps": [{"name": "plate", "stage": "plates"}]}},
    }
    with pytest.raises(ConfigurationError) as caught:
        layout(tables, default_pipeline="no")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "stages.plates.target", "orchestrator.default_pipeline",
    ]  # fmt: skip
    assert "there are parking" in str(caught.value)
    tables["pipelines"] = {"parking": {"steps": [TEXT | {"colour": 1}]}}
    with pytest.raises(ConfigurationError, match=r"pipelines\.parking\.steps\.text\.colour: unknown key"):
        layout(tables)


def test_what_made_apis_say_of_themselves_is_what_steps_are_held_to() -> None:
    def of(**step: Any) -> dict[str, Any]:
        return {"pipelines": {"p": {"steps": [TEXT, {"name": "owner", "api": "registry", "of": "text"} | step]}}}

    with pytest.raises(ConfigurationError, match="cannot be called without plate"):
        layout(of())
    assert layout(of(params={"plate": "{text}"})).pipelines["p"].tells_callers


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ({"*": "default", "image": "none"}, 'except_classes = ["image"]'),
        ({"plate": "ppocr"}, 'classes = ["plate"], model = "ppocr"'),
        ({"*": "none", "a": ["m", "n"]}, 'classes = ["a"], model = "n"'),
    ],
)
def test_routes_of_before_are_told_as_the_steps_that_replace_them(routes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="routes are steps of a pipeline now") as caught:
        OrchestratorConfig.model_validate({"routes": routes})
    assert words in str(caught.value)
    assert "pipelines.read" in str(caught.value)


def test_the_steps_that_it_names_for_routes_are_right() -> None:
    """What is told can be written down as it is."""
    with pytest.raises(ValueError, match="routes") as caught:
        OrchestratorConfig.model_validate({"routes": {"*": "default", "image": "none", "logo": "brands"}})
    written = re.search(r"steps = \[.*\}\]", str(caught.value))
    assert written is not None
    found = layout({"pipelines": {"read": tomllib.loads(written[0])}})
    steps = found.pipelines["read"].steps
    assert [step.model for step in steps] == ["", "", "brands"]
    assert [[step.wants(name) for step in steps[1:]] for name in ("line", "image", "logo")] == [
        [True, False], [False, False], [False, True],
    ]  # fmt: skip
