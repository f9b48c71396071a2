"""Stages by name: which there are, what their sections say, and what is wrong with them."""

from typing import Any

import pytest
from sluiceway_runtime.config import StageConfig, StageEntry, load_section, load_stages
from sluiceway_runtime.errors import ConfigurationError

VEHICLES = {"kind": "detection", "target": "dns:///vehicles:50052", "workers": 2}


class Stage(StageConfig):
    port: int = 50052
    operations_port: int = 9052


def load(tables: dict[str, Any], environment: dict[str, str] | None = None, **overrides: object) -> Stage:
    return load_section(Stage, "stages.vehicles", tables=tables, environment=environment or {}, overrides=overrides)


def faults_of(stages: Any, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_stages({"stages": stages}, environment or {})
    return str(caught.value).splitlines()


def test_the_default_stages_are_always_there() -> None:
    assert load_stages({}, {}) == {
        "detection": StageEntry("detection", "detection", None, "detection"),
        "recognition": StageEntry("recognition", "recognition", None, "recognition"),
    }


def test_further_stages_follow_as_they_are_written() -> None:
    stages = load_stages({"stages": {"vehicles": VEHICLES, "brand_2": {"kind": "recognition"}}}, {})
    assert list(stages) == ["detection", "recognition", "vehicles", "brand_2"]
    assert stages["vehicles"] == StageEntry("vehicles", "detection", "dns:///vehicles:50052", "stages.vehicles")
    assert stages["brand_2"] == StageEntry("brand_2", "recognition", None, "stages.brand_2")


def test_a_stage_has_every_key_of_its_kind_with_the_same_precedence() -> None:
    tables = {"stages": {"vehicles": VEHICLES | {"port": 1, "max_batch": 4}}, "detection": {"queue_items": 7}}
    environment = {"SLUICEWAY_STAGES__VEHICLES__PORT": "10", "SLUICEWAY_STAGES__VEHICLES__MAX_BATCH": "20"}
    config = load(tables, environment, port=100)
    assert (config.port, config.max_batch, config.workers) == (100, 20, 2)
    assert config.queue_items == "auto", "what the default stage of its kind says is for that one alone"


def test_variables_of_another_stage_do_not_interfere() -> None:
    tables = {"stages": {"vehicles": VEHICLES, "vehicles_2": VEHICLES}}
    assert load(tables, {"SLUICEWAY_STAGES__VEHICLES_2__PORT": "8"}).port == 50052


def test_a_stage_may_be_there_by_its_variables_alone() -> None:
    """As in a container whose configuration is its environment."""
    variables = {
        "SLUICEWAY_STAGES__VEHICLES__KIND": "detection",
        "SLUICEWAY_STAGES__VEHICLES__TARGET": "vehicles:1",
        "SLUICEWAY_STAGES__VEHICLES__WORKERS": "3",
    }
    assert load_stages({}, variables)["vehicles"] == StageEntry(
        "vehicles", "detection", "vehicles:1", "stages.vehicles"
    )
    assert load({}, variables).workers == 3
    # A misspelt name is the name of a stage that has no kind.
    misspelt = {"SLUICEWAY_STAGES__VEHICELS__WORKERS": "3"}
    known = "known are detection, recognition"
    assert faults_of({"vehicles": VEHICLES}, misspelt) == [f"stages.vehicels.kind: missing; {known}"]


def test_every_fault_is_told_at_once_by_key() -> None:
    name = "a name is small letters, digits and single underscores, a letter first"
    known = "known are detection, recognition"
    assert faults_of(
        {
            "detection": VEHICLES,
            "orchestrator": {},
            "Cars": VEHICLES,
            "two__words": {},
            "bikes": {"kind": "detecton", "target": 7},
            "people": 3,
        }
    ) == [
        "stages.detection: is the name of another server; its keys belong into [detection]",
        "stages.orchestrator: is the name of another server; its keys belong into [orchestrator]",
        f"stages.Cars: {name}",
        f"stages.two__words: {name}",
        f"stages.two__words.kind: missing; {known}",
        f"stages.bikes.kind: no kind of stage is called 'detecton'; {known}",
        "stages.bikes.target: must be an address, such as dns:///host:50052",
        "stages.people: must be a table of keys",
    ]
    assert faults_of([]) == ["[stages]: must be a table"]


@pytest.mark.parametrize("name", ["2nd", "_x", "x_", "a-b", "a.b", "", "ä"])
def test_names_that_no_stage_can_have(name: str) -> None:
    assert faults_of({name: VEHICLES})[0].startswith(f"stages.{name}: a name is")


@pytest.mark.parametrize("target", ["", 5, ["a"]])
def test_a_target_is_an_address(target: object) -> None:
    assert faults_of({"vehicles": VEHICLES | {"target": target}})[0].startswith("stages.vehicles.target: ")


def test_a_fault_in_a_key_of_the_stage_names_the_stage() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"stages": {"vehicles": VEHICLES | {"wrokers": 1, "max_batch": 0}}})
    told = str(caught.value)
    assert "stages.vehicles.wrokers: unknown key" in told
    assert "stages.vehicles.max_batch: " in told
    with pytest.raises(ConfigurationError, match=r"\[stages.vehicles\]: must be a table"):
        load({"stages": {"vehicles": 3}})
