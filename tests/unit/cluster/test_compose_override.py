"""`sluiceway compose`: what it adds for named stages is what docker-compose.yml has for the default ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from sluiceway_detection.config import DetectionConfig
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_runtime.config import load_section, load_stages
from typer.testing import CliRunner

from sluiceway.cli.app import app

ROOT = Path(__file__).parents[3]
STAGES = """\
[stages.vehicles]
kind = "detection"
model = "coco-v8n"
workers = 2

[stages.plates]
kind = "detection"
model = "models/plates.onnx"

[stages.far_words]
kind = "recognition"
device = "cuda"
"""
PIPELINE = """\
[pipelines.read]
steps = [{ name = "vehicles", stage = "vehicles" }, { name = "words", stage = "recognition", of = "vehicles" }]
"""


class Loader(yaml.SafeLoader):
    """Reads tables that are to replace those of the file before."""


Loader.add_constructor("!override", lambda loader, node: {"!override": loader.construct_mapping(node, deep=True)})


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def written(text: str, *arguments: str) -> dict[str, Any]:
    Path("sluiceway.toml").write_text(text)
    result = CliRunner().invoke(app, ["compose", *arguments])
    assert result.exit_code == 0, result.output
    loaded: dict[str, Any] = yaml.load(result.stdout, Loader=Loader)
    return loaded


def stock() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_a_service_for_each_stage_that_has_none() -> None:
    services = written(STAGES)["services"]
    assert set(services) == {"vehicles", "plates", "far-words", "detection", "recognition", "orchestrator"}
    for name in ("vehicles", "plates", "far-words"):
        assert services[name]["command"] == ["--stage", name.replace("-", "_")]
        assert "./sluiceway.toml:/etc/sluiceway/sluiceway.toml:ro" in services[name]["volumes"]
    for name in ("detection", "recognition", "orchestrator"):
        assert services[name]["volumes"] == ["./sluiceway.toml:/etc/sluiceway/sluiceway.toml:ro"]


def test_it_is_served_as_the_default_stage_is() -> None:
    """All that docker-compose.yml says of detection, but for what makes the stage another one."""
    own, default = written(STAGES)["services"]["vehicles"], stock()["services"]["detection"]
    its = {"image", "build", "environment", "command", "volumes", "cpus", "mem_limit"}
    assert {key: value for key, value in own.items() if key not in its} == {
        key: value for key, value in default.items() if key not in its
    }
    assert own["cpus"] == default["cpus"].replace("DETECTION", "VEHICLES")
    assert own["mem_limit"] == default["mem_limit"].replace("DETECTION", "VEHICLES")
    assert own["image"] == default["image"].replace("detection:", "detection-vehicles:")
    assert own["build"] == default["build"] | {"args": default["build"]["args"] | {"DETECTION_MODELS": "coco-v8n"}}


def test_weights_of_the_default_image_need_no_image_of_their_own() -> None:
    plates, default = written(STAGES)["services"]["plates"], stock()["services"]["detection"]
    assert plates["image"] == default["image"]
    assert plates["build"] == default["build"]
    assert "./models/plates.onnx:/etc/sluiceway/models/plates.onnx:ro" in plates["volumes"]


def test_the_servers_understand_it() -> None:
    services = written(STAGES)["services"]
    for name, model in (("vehicles", DetectionConfig), ("far-words", RecognitionConfig)):
        variables = services[name]["environment"]
        section = f"stages.{name.replace('-', '_')}"
        config = load_section(model, section, tables={}, environment=variables)
        assert config.host == "0.0.0.0"
        assert services[name]["expose"] == [str(config.port), str(config.operations_port)]
        # The image asks for its health at the port of its kind.
        assert config.operations_port == model.model_fields["operations_port"].default
    tables = {"stages": {name: {"kind": "detection"} for name in ("vehicles", "plates", "far_words")}}
    found = load_stages(tables, services["orchestrator"]["environment"])
    assert found["vehicles"].target == "dns:///vehicles:50052"
    assert found["far_words"].target == "dns:///far-words:50053"


def test_the_orchestrator_waits_for_them() -> None:
    waits = written(STAGES)["services"]["orchestrator"]["depends_on"]
    assert waits == {name: {"condition": "service_healthy"} for name in ("vehicles", "plates", "far-words")}


def test_default_stages_that_no_pipeline_uses_are_not_started() -> None:
    services = written(STAGES + PIPELINE)["services"]
    assert services["detection"] == {"profiles": ["unused"]}
    waits = services["orchestrator"]["depends_on"]["!override"]
    assert set(waits) == {"recognition", "vehicles", "plates", "far-words"}


def test_a_stage_on_a_gpu() -> None:
    content = written(STAGES)
    service = content["services"]["far-words"]
    assert service["image"].startswith("sluiceway/recognition-gpu:")
    assert service["build"]["target"] == "recognition-gpu"
    assert service["environment"]["SLUICEWAY_STAGES__FAR_WORDS__DEVICE"] == "cuda"
    assert "compiled-far-words:/opt/sluiceway/weights/gpu" in service["volumes"]
    assert content["volumes"] == {"compiled-far-words": None}
    gpu = yaml.safe_load((ROOT / "deploy" / "compose" / "gpu.yml").read_text().replace("!override", ""))
    theirs = gpu["services"]["recognition"]
    assert service["tmpfs"] == theirs["tmpfs"]
    [device], [default] = (item["deploy"]["resources"]["reservations"]["devices"] for item in (service, theirs))
    assert {**device, "count": ""} == {**default, "count": ""}


def test_it_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    Path("sluiceway.toml").write_text(STAGES)
    result = CliRunner().invoke(app, ["compose", "--to", "stages.yml"])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "vehicles" in yaml.load((tmp_path / "stages.yml").read_text(), Loader=Loader)["services"]


def test_a_configuration_elsewhere_is_mounted_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "mine.toml").write_text(STAGES)
    monkeypatch.chdir(tmp_path / "settings")
    monkeypatch.chdir(tmp_path)
    services = written("", "--config", "settings/mine.toml")["services"]
    assert services["orchestrator"]["volumes"] == ["./settings/mine.toml:/etc/sluiceway/sluiceway.toml:ro"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no sluiceway.toml here"),
        ('[stages.cars]\nkind = "boat"\n', "stages.cars.kind: no kind of stage"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(text: str | None, said: str) -> None:
    if text is not None:
        Path("sluiceway.toml").write_text(text)
    result = CliRunner().invoke(app, ["compose"])
    assert result.exit_code != 0
    assert said in result.output + str(result.exception)
    assert "services" not in result.stdout
