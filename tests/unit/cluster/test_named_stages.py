"""Stages by name in what `up` and `run` would start."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sluiceway_cluster import ClusterPlan, plan_cluster
from sluiceway_cluster.commands import models
from sluiceway_cluster.pipelines import needed_pipelines
from sluiceway_cluster.process import ServerSpec
from sluiceway_detection.config import DetectionConfig
from sluiceway_runtime import cores
from sluiceway_runtime.config import StageEntry, load_section, load_stages
from sluiceway_runtime.cores import CpuFacts, LogicalCpu
from sluiceway_runtime.errors import ConfigurationError
from typer.testing import CliRunner

from sluiceway.cli.app import app

CPU = {"SLUICEWAY_DETECTION__DEVICE": "cpu", "SLUICEWAY_RECOGNITION__DEVICE": "cpu"}
PARKING = """\
[api.registry]
url = "https://registry.example.org/{plate}"
params = ["plate"]
image = "none"

[stages.vehicles]
kind = "detection"
model = "coco-v8n"
target = "dns:///vehicles:50052"

[stages.plates]
kind = "detection"
model = "plates.onnx"

[stages.spare]
kind = "recognition"
models = ["ppocrv5-mobile"]

[pipelines.read]
steps = [
  { name = "vehicles", stage = "vehicles", classes = ["car"] },
  { name = "plates", stage = "plates", of = "vehicles" },
  { name = "number", stage = "recognition", of = "plates" },
  { name = "owner", api = "registry", of = "number", params = { plate = "{text}" } },
]
"""


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    numbers = tuple(range(16))
    facts = CpuFacts(numbers, numbers, None, False, tuple(LogicalCpu(number, 0, number, 0) for number in numbers))
    monkeypatch.setattr(cores, "read_cpu_facts", lambda: facts)
    monkeypatch.chdir(tmp_path)
    # It is named, and not loaded.
    (tmp_path / "plates.onnx").touch()


@pytest.fixture
def under_a_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is pinned then, so that the plan can be tried on a machine with fewer cores."""
    facts = replace(cores.read_cpu_facts(), quota_cpus=2)
    monkeypatch.setattr(cores, "read_cpu_facts", lambda: facts)


def planned(folder: Path, text: str = PARKING, *, free_ports: bool = False, **variables: str) -> ClusterPlan:
    (folder / "sluiceway.toml").write_text(text)
    return plan_cluster(None, CPU | variables, free_ports=free_ports)


def server(plan: ClusterPlan, name: str) -> ServerSpec:
    [found] = [item for item in plan.servers if item.name == name]
    return found


def test_stages_that_a_pipeline_uses_are_started(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert [item.name for item in plan.servers] == ["recognition", "vehicles", "plates", "orchestrator"]
    assert [stage.name for stage in plan.unused] == ["detection", "spare"]
    assert server(plan, "vehicles").module == "sluiceway_detection"
    assert server(plan, "vehicles").arguments == ("--stage", "vehicles")
    assert server(plan, "recognition").arguments == ()
    assert [step.name for step in plan.pipelines[0].steps] == ["vehicles", "plates", "number", "owner"]


def test_each_server_reads_its_own_ports_and_cores(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert [(item.address, item.operations[1]) for item in plan.servers] == [
        ("127.0.0.1:50053", 9053),
        ("127.0.0.1:50054", 9054),
        ("127.0.0.1:50055", 9055),
        ("127.0.0.1:50051", 9051),
    ]
    assert plan.division
    given = [core for own in plan.division.cores.values() for core in own]
    assert sorted(given) == list(range(16))
    for stage in plan.stages:
        spec = server(plan, stage.name)
        section = load_section(type(stage.config), stage.entry.section, tables={}, environment=spec.environment)
        assert f"127.0.0.1:{section.port}" == spec.address
        assert section.operations_port == spec.operations[1]
        assert section.cores
        assert section.drain_notice_s == 0


def test_the_orchestrator_is_told_where_they_are(tmp_path: Path) -> None:
    variables = server(planned(tmp_path), "orchestrator").environment
    tables = {"stages": {"vehicles": {"kind": "detection", "target": "x"}, "plates": {"kind": "detection"}}}
    found = load_stages(tables, variables)
    assert found["vehicles"].target == "127.0.0.1:50054", "`up` started it here, whatever the file says"
    assert found["plates"].target == "127.0.0.1:50055"
    assert "SLUICEWAY_STAGES__SPARE__TARGET" not in variables
    assert "SLUICEWAY_ORCHESTRATOR__DETECTION" not in variables


def test_a_target_in_a_variable_wins(tmp_path: Path) -> None:
    plan = planned(tmp_path, SLUICEWAY_STAGES__PLATES__TARGET="dns:///far:50052")
    assert server(plan, "orchestrator").environment["SLUICEWAY_STAGES__PLATES__TARGET"] == "dns:///far:50052"


def test_ports_that_are_written_down_are_left_to_their_stage(tmp_path: Path) -> None:
    text = PARKING.replace('model = "plates.onnx"', 'model = "plates.onnx"\nport = 50054\noperations_port = 9100')
    plan = planned(tmp_path, text)
    assert server(plan, "plates").address == "127.0.0.1:50054"
    assert server(plan, "plates").operations[1] == 9100
    assert server(plan, "vehicles").address == "127.0.0.1:50055", "the first port that nobody has"
    assert server(plan, "vehicles").operations[1] == 9054


def test_free_ports_for_every_stage(tmp_path: Path) -> None:
    plan = planned(tmp_path, free_ports=True)
    ports = [item.address.rpartition(":")[2] for item in plan.servers]
    ports += [str(item.operations[1]) for item in plan.servers]
    assert len(set(ports)) == 8
    assert not set(ports) & {"50051", "50053", "50054", "9054"}


def test_a_stage_of_variables_alone(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "",
        SLUICEWAY_STAGES__CARS__KIND="detection",
        SLUICEWAY_PIPELINES__READ__STEPS='[{"name": "cars", "stage": "cars"}]',
    )
    assert [item.name for item in plan.servers] == ["cars", "orchestrator"]
    assert plan.division is not None
    assert plan.division.cores == {"cars": tuple(range(16))}


def test_the_pipeline_of_jobs_that_name_none_is_needed_too() -> None:
    """`read` is there without being written down; another default takes its place."""
    tables: dict[str, Any] = {"pipelines": {"fast": {"steps": [{"name": "cars", "stage": "cars"}]}}}
    stages = [*load_stages({}, {}).values(), StageEntry("cars", "detection", None, "stages.cars")]

    def needed(**orchestrator: str) -> list[tuple[str, ...]]:
        found = needed_pipelines(tables | {"orchestrator": orchestrator}, {}, stages, {})
        return [pipeline.stages for pipeline in found]

    assert needed() == [("detection", "recognition"), ("cars",)]
    assert needed(default_pipeline="fast") == [("cars",)]


def test_faults_of_pipelines_are_told_by_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pipelines\.read\.steps\.cars\.stage: no stage is called 'boats'"):
        planned(tmp_path, '[pipelines.read]\nsteps = [{ name = "cars", stage = "boats" }]\n')


def test_a_default_that_nobody_has_is_told_by_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"orchestrator\.default_pipeline: no pipeline is called 'fast'"):
        planned(tmp_path, '[orchestrator]\ndefault_pipeline = "fast"\n')


def test_a_faulty_api_is_told_once_and_not_as_one_that_is_missing(tmp_path: Path) -> None:
    text = PARKING.replace("https://registry.example.org/{plate}", "ftp://registry.example.org/{plate}")
    with pytest.raises(ConfigurationError) as caught:
        planned(tmp_path, text)
    assert str(caught.value).count("api.registry") == 1
    assert "no API" not in str(caught.value)


def test_faults_of_stages_are_told_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "sluiceway.toml").write_text(
        '[detection]\nwrkers = 1\n[stages.cars]\nkind = "detection"\nmodle = "x"\n'
        '[stages.plates]\nkind = "recognition"\nmax_batch = -1\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        plan_cluster(None, CPU, free_ports=False)
    said = str(caught.value)
    assert all(key in said for key in ("detection.wrkers", "stages.cars.modle", "stages.plates.max_batch"))
    (tmp_path / "sluiceway.toml").write_text('[stages.cars]\nkind = "segmentation"\n')
    with pytest.raises(ConfigurationError, match=r"stages\.cars\.kind") as caught:
        plan_cluster(None, CPU, free_ports=False)
    assert str(caught.value).count("stages.cars.kind") == 1


def test_weights_of_every_stage_are_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(tmp_path).weights == ("ppocrv6-tiny", "coco-v8n")
    pulled: list[str] = []
    monkeypatch.setattr(models, "_pull", pulled.extend)
    result = CliRunner().invoke(app, ["models", "pull", "--defaults"])
    assert result.exit_code == 0, result.output
    assert pulled == ["ppocrv6-tiny", "coco-v8n", "ppocrv5-mobile"], "also what is not used yet; not a file of the user"


# --- serve -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What `serve` would have become."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: commands.append(command))
    return commands


def test_serve_finds_the_program_of_a_stage(tmp_path: Path, became: list[list[str]]) -> None:
    (tmp_path / "sluiceway.toml").write_text(PARKING)
    options = ["--config", "sluiceway.toml", "--set", "workers=2"]
    result = CliRunner().invoke(app, ["serve", "--stage", "vehicles", *options])
    assert result.exit_code == 0, result.output
    assert became == [[sys.executable, "-m", "sluiceway_detection", "--stage", "vehicles", *options]]


def test_serve_still_takes_a_server(became: list[list[str]]) -> None:
    assert CliRunner().invoke(app, ["serve", "recognition"]).exit_code == 0
    assert became == [[sys.executable, "-m", "sluiceway_recognition"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a server"),
        (["--stage", "cars"], "stages.cars: is not configured; there are detection, recognition, vehicles"),
        (["recognition", "--stage", "vehicles"], "stages.vehicles.kind: is detection, and not recognition"),
    ],
)
def test_serve_says_what_there_is(tmp_path: Path, became: list[list[str]], arguments: list[str], said: str) -> None:
    (tmp_path / "sluiceway.toml").write_text(PARKING)
    result = CliRunner().invoke(app, ["serve", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert said in result.output
    assert became == []


# --- doctor ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("under_a_quota")
def test_doctor_shows_stages_and_pipelines(tmp_path: Path) -> None:
    (tmp_path / "sluiceway.toml").write_text(PARKING)
    result = CliRunner().invoke(app, ["doctor", "--no-trial", "--address", "127.0.0.1:9"], env=CPU)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert any(line.startswith("vehicles on 127.0.0.1:50054") for line in lines)
    assert "detection not started: no pipeline uses it" in lines
    first, last = "vehicles (vehicles), plates (plates of vehicles)", "owner (API registry of number)"
    assert f"pipeline read: {first}, number (recognition of plates), {last}" in lines


def test_doctor_tells_faults_of_stages_by_key(tmp_path: Path) -> None:
    (tmp_path / "sluiceway.toml").write_text('[stages.cars]\nkind = "detection"\nmodle = "x"\n')
    result = CliRunner().invoke(app, ["doctor", "--no-trial", "--address", "127.0.0.1:9"], env=CPU)
    assert result.exit_code == 1
    assert "stages.cars.modle: unknown key" in result.output


def test_a_section_is_read_as_its_server_reads_it(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    [vehicles] = [stage for stage in plan.stages if stage.name == "vehicles"]
    assert isinstance(vehicles.config, DetectionConfig)
    assert vehicles.config.model == "coco-v8n"


def test_http_ports_of_stages(tmp_path: Path) -> None:
    on = "SLUICEWAY_{}__HTTP__ENABLED"
    enabled = {on.format(name): "true" for name in ("RECOGNITION", "STAGES__VEHICLES", "STAGES__PLATES")}
    plan = planned(tmp_path, **enabled, SLUICEWAY_STAGES__PLATES__HTTP__PORT="8054")
    ports = {"recognition": 8053, "vehicles": 8055, "plates": 8054, "orchestrator": 8080}
    assert {item.name: item.http for item in plan.servers} == {
        name: ("127.0.0.1", port) for name, port in ports.items()
    }
    for stage in plan.stages:
        spec = server(plan, stage.name)
        section = load_section(type(stage.config), stage.entry.section, tables={}, environment=spec.environment)
        assert (section.http.enabled, section.http.port) == (True, ports[stage.name])
    # Nobody is told of the ports of a run of its own.
    plan = planned(tmp_path, **enabled, free_ports=True)
    assert {item.http for item in plan.servers} == {None}
    assert server(plan, "vehicles").environment["SLUICEWAY_STAGES__VEHICLES__HTTP__ENABLED"] == "false"
