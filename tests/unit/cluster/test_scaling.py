"""Several servers of a service on one machine: their ports, their parts of the machine, and who is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sluiceway_cluster import ClusterPlan, plan_cluster
from sluiceway_cluster.scaling import (
    automatic_fronts,
    automatic_orchestrators,
    read_scale,
    split_cores,
    split_devices,
)
from sluiceway_runtime import cores, devices
from sluiceway_runtime.control_groups import memory_limit_bytes
from sluiceway_runtime.cores import CpuFacts, LogicalCpu
from sluiceway_runtime.cores.facts import parse_cpu_list
from sluiceway_runtime.errors import ConfigurationError

CPU = {"SLUICEWAY_DETECTION__DEVICE": "cpu", "SLUICEWAY_RECOGNITION__DEVICE": "cpu"}


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CpuFacts:
    numbers = tuple(range(16))
    facts = CpuFacts(numbers, numbers, None, False, tuple(LogicalCpu(number, 0, number, 0) for number in numbers))
    monkeypatch.setattr(cores, "read_cpu_facts", lambda: facts)
    monkeypatch.chdir(tmp_path)
    return facts


def scaled(*scale: str, free_ports: bool = False, **variables: str) -> ClusterPlan:
    return plan_cluster(None, CPU | variables, free_ports=free_ports, scale=scale)


def told(plan: ClusterPlan, name: str, key: str) -> str:
    [spec] = [item for item in plan.servers if item.name == name]
    return spec.environment[f"SLUICEWAY_{name.partition('-')[0]}__{key}".upper()]


def test_each_replica_has_ports_of_its_own() -> None:
    plan = scaled("orchestrator=3", "detection=2")
    assert [(item.name, item.address, item.operations[1]) for item in plan.servers] == [
        ("detection", "127.0.0.1:50052", 9052),
        ("detection-2", "127.0.0.1:50054", 9054),
        ("recognition", "127.0.0.1:50053", 9053),
        ("orchestrator", "127.0.0.1:50051", 9051),
        ("orchestrator-2", "127.0.0.1:50055", 9055),
        ("orchestrator-3", "127.0.0.1:50056", 9056),
    ]
    assert plan.addresses == ("127.0.0.1:50051", "127.0.0.1:50055", "127.0.0.1:50056")
    assert plan.address == "127.0.0.1:50051"
    for item in plan.servers:
        assert told(plan, item.name, "port") == item.address.rpartition(":")[2]
    assert [told(plan, f"orchestrator-{number}", "http__port") for number in (2, 3)] == ["8081", "8082"]


def test_replicas_of_a_stage_do_not_share_a_port_for_http() -> None:
    plan = scaled("detection=3", SLUICEWAY_DETECTION__HTTP__ENABLED="true")
    places = {item.name: item.http for item in plan.servers}
    assert [places[name] for name in ("detection", "detection-2", "detection-3", "recognition")] == [
        ("127.0.0.1", 8052),
        ("127.0.0.1", 8054),
        ("127.0.0.1", 8055),
        None,
    ]
    assert told(plan, "detection-2", "http__port") == "8054"


def test_replicas_on_free_ports_meet_nobody() -> None:
    plan = scaled("orchestrator=2", "recognition=3", free_ports=True)
    ports = [item.address for item in plan.servers] + [f"127.0.0.1:{item.operations[1]}" for item in plan.servers]
    assert len(set(ports)) == 12
    assert told(plan, "orchestrator-2", "http__enabled") == "false"


def test_every_orchestrator_is_told_of_all_replicas_of_a_stage() -> None:
    plan = scaled("orchestrator=2", "detection=2")
    for name in ("orchestrator", "orchestrator-2"):
        assert told(plan, name, "detection") == "127.0.0.1:50052,127.0.0.1:50054"
        assert told(plan, name, "recognition") == "127.0.0.1:50053"


def test_replicas_share_the_cores_of_their_stage() -> None:
    alone, plan = scaled(), scaled("detection=2")
    assert plan.division == alone.division
    assert plan.division
    parts = [parse_cpu_list(told(plan, name, "cores")) for name in ("detection", "detection-2")]
    assert parts[0] + parts[1] == plan.division.cores["detection"]
    assert abs(len(parts[0]) - len(parts[1])) <= 1


def test_stages_with_few_threads_do_not_share_a_core_while_another_idles(
    monkeypatch: pytest.MonkeyPatch, sixteen_cores: CpuFacts
) -> None:
    two = replace(sixteen_cores, allowed=(0, 1), topology=sixteen_cores.topology[:2])
    monkeypatch.setattr(cores, "read_cpu_facts", lambda: two)
    one = {"WORKERS": "1", "THREADS_PER_WORKER": "1"}
    variables = {
        f"SLUICEWAY_{section}__{key}": value for section in ("DETECTION", "RECOGNITION") for key, value in one.items()
    }
    plan = scaled(**variables)
    assert [told(plan, name, "cores") for name in ("detection", "recognition")] == ["0", "1"]
    # As many as there are cores by default: all of them.
    plan = scaled()
    assert [told(plan, name, "cores") for name in ("detection", "recognition")] == ["0-1", "0-1"]


def test_cores_that_are_written_down_are_shared_as_well() -> None:
    plan = scaled("detection=2", SLUICEWAY_DETECTION__CORES="2-5")
    assert [told(plan, name, "cores") for name in ("detection", "detection-2")] == ["2-3", "4-5"]


def test_under_a_quota_each_plans_for_its_part(monkeypatch: pytest.MonkeyPatch, sixteen_cores: CpuFacts) -> None:
    monkeypatch.setattr(cores, "read_cpu_facts", lambda: replace(sixteen_cores, quota_cpus=6))
    plan = scaled("detection=4")
    assert {told(plan, f"detection{end}", "cpus") for end in ("", "-2", "-3", "-4")} == {"1.5"}


def test_orchestrators_share_what_one_may_hold() -> None:
    plan = scaled("orchestrator=4")
    assert int(told(plan, "orchestrator-3", "memory_bytes")) == int(memory_limit_bytes() * 0.4 / 4)
    assert (
        told(scaled("orchestrator=4", SLUICEWAY_ORCHESTRATOR__MEMORY_BYTES="9000000"), "orchestrator-3", "memory_bytes")
        == "9000000"
    )


def test_more_replicas_than_cores_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--scale recognition=9: recognition has \d cores"):
        scaled("recognition=9")


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        (("detector=2",), "--scale detector=2: there is no detector; there are detection, recognition, orchestrator"),
        (("detection",), "--scale detection: wants NAME=NUMBER"),
        (("detection=0",), "a number from 1 to 64"),
        (("detection=65",), "a number from 1 to 64"),
        (("detection=1.5",), "wants NAME=NUMBER"),
        (("a=1", "detection=x"), "there is no a.*\n.*wants NAME=NUMBER"),
    ],
)
def test_what_cannot_be_meant_is_told(asked: Sequence[str], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s){fault}"):
        read_scale(asked, {"detection": 1, "recognition": 1, "orchestrator": 2})


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_parts_are_neighbours_and_miss_none(count: int) -> None:
    parts = split_cores("detection", range(7), count)
    assert [core for part in parts for core in part] == list(range(7))
    assert len(parts) == count
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("count", "gpus", "orchestrators"),
    [(1, 1, 1), (7, 1, 1), (8, 1, 2), (16, 1, 4), (40, 1, 4), (256, 1, 4), (128, 8, 32), (64, 4, 16)],
)
def test_orchestrators_follow_the_cores_where_gpus_compute(count: int, gpus: int, orchestrators: int) -> None:
    assert automatic_orchestrators(count, [gpus, gpus]) == orchestrators


@pytest.mark.parametrize(
    ("count", "devices", "orchestrators"),
    [(16, [0, 1], 2), (15, [0, 1], 1), (31, [0, 0], 1), (32, [0, 0], 2), (2, [], 1)],
)
def test_there_are_fewer_orchestrators_where_stages_compute_on_the_cores(
    count: int, devices: list[int], orchestrators: int
) -> None:
    assert automatic_orchestrators(count, devices) == orchestrators


@pytest.mark.parametrize(
    ("count", "gpus", "fronts"),
    [(64, 8, 16), (32, 4, 8), (8, 1, 2), (8, 8, 4), (1, 8, 1), (16, 0, 1), (7, 1, 1), (16, 2, 4), (12, 2, 2)],
)
def test_each_gpu_has_a_front_or_two_as_far_as_there_are_cores(count: int, gpus: int, fronts: int) -> None:
    assert automatic_fronts(count, gpus) == fronts


def test_a_stage_on_gpus_has_no_more_fronts_than_cores_where_another_computes_on_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beside = found(monkeypatch, 2) | {"SLUICEWAY_DETECTION__DEVICE": "cpu"}
    plan = plan_cluster(None, beside, free_ports=False)
    names = [server.name for server in plan.servers if server.name.partition("-")[0] == "recognition"]
    assert names == ["recognition"], "it has two of sixteen cores"
    assert len(plan.addresses) == 2


def test_replicas_have_a_gpu_each_and_no_gpu_stays_unused() -> None:
    gpus = [f"cuda:{number}" for number in range(4)]
    assert split_devices(gpus, 4) == gpus
    assert split_devices(gpus, 6) == [*gpus, "cuda:0", "cuda:1"]
    assert split_devices(gpus, 3) == ["", "", ""], "each has all of them"
    assert split_devices(gpus[:1], 2) == ["", ""]
    assert split_devices([], 1) == [""]


def found(monkeypatch: pytest.MonkeyPatch, count: int) -> dict[str, str]:
    """A machine with so many GPUs, for stages that are told nothing."""
    monkeypatch.setattr(devices, "find_cuda", lambda: devices.Cuda(count))
    return {"SLUICEWAY_DETECTION__DEVICE": "auto", "SLUICEWAY_RECOGNITION__DEVICE": "auto"}


def test_up_starts_several_orchestrators_beside_a_gpu_and_run_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = found(monkeypatch, 1)
    assert len(plan_cluster(None, gpu, free_ports=False).addresses) == 4
    assert len(plan_cluster(None, gpu, free_ports=False, scale=["orchestrator=1"]).addresses) == 1
    assert len(plan_cluster(None, gpu, free_ports=True).addresses) == 1, "`run` has one address"
    assert len(plan_cluster(None, CPU, free_ports=False).addresses) == 1


def test_up_starts_a_front_for_each_of_four_gpus_with_cores_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_cluster(None, found(monkeypatch, 4), free_ports=False)
    for stage in ("detection", "recognition"):
        names = [server.name for server in plan.servers if server.name.partition("-")[0] == stage]
        assert [told(plan, name, "device") for name in names] == [f"cuda:{number}" for number in range(4)]
        parts = [set(parse_cpu_list(told(plan, name, "cores"))) for name in names]
        assert len(set.union(*parts)) == sum(map(len, parts)) == 8
    (orchestrator, *_) = [server for server in plan.servers if server.name == "orchestrator"]
    assert len(orchestrator.environment["SLUICEWAY_ORCHESTRATOR__RECOGNITION"].split(",")) == 4


def test_a_stage_that_is_told_its_gpu_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = found(monkeypatch, 4) | {"SLUICEWAY_RECOGNITION__DEVICE": "cuda:2"}
    plan = plan_cluster(None, gpu, free_ports=False)
    names = [server.name for server in plan.servers if server.name.startswith("recognition")]
    assert [told(plan, name, "device") for name in names] == ["cuda:2"] * 2
    plan = plan_cluster(None, gpu, free_ports=False, scale=["detection=2"])
    assert [told(plan, name, "device") for name in ("detection", "detection-2")] == ["auto", "auto"]
