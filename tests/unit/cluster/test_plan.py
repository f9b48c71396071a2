"""What `up` and `run` would start."""

from __future__ import annotations

from pathlib import Path

import pytest
from sluiceway_cluster import ClusterPlan, plan_cluster
from sluiceway_runtime import cores
from sluiceway_runtime.cores import CpuFacts, LogicalCpu
from sluiceway_runtime.errors import ConfigurationError


def machine(count: int, quota_cpus: float | None = None) -> CpuFacts:
    numbers = tuple(range(count))
    return CpuFacts(numbers, numbers, quota_cpus, False, tuple(LogicalCpu(number, 0, number, 0) for number in numbers))


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cores, "read_cpu_facts", lambda: machine(16))
    monkeypatch.chdir(tmp_path)


CPU = {"SLUICEWAY_DETECTION__DEVICE": "cpu", "SLUICEWAY_RECOGNITION__DEVICE": "cpu"}


def variables(plan: ClusterPlan, name: str) -> dict[str, str]:
    server = next(item for item in plan.servers if item.name == name)
    prefix = f"SLUICEWAY_{name}__".upper()
    found = {key: value for key, value in server.environment.items() if key.startswith(prefix)}
    return {key.removeprefix(prefix).lower(): value for key, value in found.items()}


def test_default_ports_and_disjoint_cores() -> None:
    plan = plan_cluster(None, CPU, free_ports=False)
    assert [item.name for item in plan.servers] == ["detection", "recognition", "orchestrator"]
    assert plan.address == "127.0.0.1:50051"
    assert [item.operations[1] for item in plan.servers] == [9052, 9053, 9051]
    assert plan.division
    assert not set(plan.division.cores["detection"]) & set(plan.division.cores["recognition"])
    assert len(plan.division.cores["detection"]) + len(plan.division.cores["recognition"]) == 16
    assert variables(plan, "detection")["cores"].startswith("0-")
    assert variables(plan, "orchestrator")["detection"] == "127.0.0.1:50052"
    assert variables(plan, "orchestrator")["recognition"] == "127.0.0.1:50053"


def test_free_ports_are_all_different_and_reach_the_orchestrator() -> None:
    plan = plan_cluster(None, CPU, free_ports=True)
    ports = [item.address.rpartition(":")[2] for item in plan.servers] + [
        str(item.operations[1]) for item in plan.servers
    ]
    assert len(set(ports)) == 6
    assert not set(ports) & {"50051", "50052", "50053"}
    assert variables(plan, "orchestrator")["detection"] == plan.servers[0].address


def test_a_shared_quota_pins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "read_cpu_facts", lambda: machine(16, quota_cpus=2))
    plan = plan_cluster(None, CPU, free_ports=False)
    assert plan.division is None
    assert "cores" not in variables(plan, "detection")


def test_the_operators_own_cores_and_targets_win(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text('[detection]\ncores = "3"\nport = 6000\n[orchestrator]\nrecognition = "dns:///far:50053"\n')
    plan = plan_cluster(config, CPU, free_ports=False)
    assert plan.division is None
    assert "cores" not in variables(plan, "detection")
    assert variables(plan, "orchestrator")["detection"] == "127.0.0.1:6000"
    assert "recognition" not in variables(plan, "orchestrator")
    assert all(item.config == config for item in plan.servers)


def test_a_listening_address_of_everywhere_is_reached_here() -> None:
    plan = plan_cluster(None, {**CPU, "SLUICEWAY_ORCHESTRATOR__HOST": "0.0.0.0"}, free_ports=False)
    assert plan.address == "127.0.0.1:50051"


def test_weights_that_the_configuration_names(tmp_path: Path) -> None:
    own = tmp_path / "mine.onnx"
    config = tmp_path / "mine.toml"
    own.touch()
    config.write_text(
        f'[detection]\nmodel = "{own}"\n[recognition]\nmodels = ["ppocrv5-mobile", "ppocrv6-tiny"]\n'
        "[models]\nauto_pull = false\n"
    )
    plan = plan_cluster(config, CPU, free_ports=False)
    assert plan.weights == ("ppocrv5-mobile", "ppocrv6-tiny"), "the user's own file is nothing to pull"
    assert not plan.auto_pull


def test_dearer_recognition_gets_more_cores(tmp_path: Path) -> None:
    def recognition_cores(model: str) -> int:
        config = tmp_path / f"{model}.toml"
        config.write_text(f'[recognition]\nmodels = ["{model}"]\n')
        division = plan_cluster(config, CPU, free_ports=False).division
        assert division
        return len(division.cores["recognition"])

    assert recognition_cores("ppocrv6-tiny") < recognition_cores("ppocrv5-mobile") < recognition_cores("ppocrv6-small")


def test_all_faults_at_once(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text('[detection]\nwrkers = 1\n[orchestrator]\nport = -1\n[api.shop]\nurl = "ftp://x"\n')
    with pytest.raises(ConfigurationError) as caught:
        plan_cluster(config, {**CPU, "SLUICEWAY_RECOGNITION__QUEUE_ITEMS": "none"}, free_ports=False)
    said = str(caught.value)
    assert all(key in said for key in ("detection.wrkers", "orchestrator.port", "api.shop", "recognition.queue_items"))


def test_addresses_of_ip_version_6_are_written_in_brackets() -> None:
    hosts = {"SLUICEWAY_ORCHESTRATOR__HOST": "::1", "SLUICEWAY_DETECTION__HOST": "::"}
    plan = plan_cluster(None, {**CPU, **hosts}, free_ports=False)
    assert plan.address == "[::1]:50051"
    assert variables(plan, "orchestrator")["detection"] == plan.servers[0].address == "[::1]:50052"
    assert plan.servers[2].operations == ("::1", 9051), "for a socket, which wants none"


@pytest.mark.parametrize("value", ["false", "true"])
def test_whether_weights_are_pulled_may_be_a_variable(value: str) -> None:
    plan = plan_cluster(None, {"SLUICEWAY_MODELS__AUTO_PULL": value}, free_ports=True)
    assert plan.auto_pull is (value == "true")


def test_a_variable_that_nobody_reads_is_told_with_the_other_faults() -> None:
    variables = {"SLUICEWAY_DETECTON__WORKERS": "2", "SLUICEWAY_RECOGNITION__WORKERS": "-1"}
    with pytest.raises(ConfigurationError) as caught:
        plan_cluster(None, variables, free_ports=True)
    assert "SLUICEWAY_DETECTON__WORKERS" in str(caught.value)
    assert "recognition.workers" in str(caught.value)
