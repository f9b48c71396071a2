"""Further stages by name in the chart: each has all the objects that the default ones have."""

from __future__ import annotations

from pathlib import Path

import pytest
from chart import KEDA, NAMED, SECURE, container, environment, of_kind, plain, render
from sluiceway_detection.config import DetectionConfig
from sluiceway_runtime.config import load_section, load_stages

pytestmark = pytest.mark.slow


def test_a_stage_is_a_deployment_with_its_service(tmp_path: Path) -> None:
    objects = render(tmp_path, NAMED)
    deployments, services = of_kind(objects, "Deployment"), of_kind(objects, "Service")
    assert {name.removeprefix("eye-sluiceway-") for name in deployments} == {
        "orchestrator", "detection", "recognition", "vehicles", "vehicles-canary", "far-plates"
    }  # fmt: skip
    for name in ("vehicles", "far-plates"):
        labels = deployments[f"eye-sluiceway-{name}"]["spec"]["template"]["metadata"]["labels"]
        service = services[f"eye-sluiceway-{name}"]["spec"]
        assert service["clusterIP"] == "None"
        assert service["selector"].items() <= labels.items()
        others = [other for other in deployments if not other.startswith(f"eye-sluiceway-{name}")]
        for other in others:
            selected = deployments[other]["spec"]["template"]["metadata"]["labels"]
            assert not service["selector"].items() <= selected.items(), other


def test_the_server_is_told_which_stage_it_is(tmp_path: Path) -> None:
    deployment = of_kind(render(tmp_path, NAMED), "Deployment")["eye-sluiceway-vehicles"]
    server = container(deployment)
    assert server["args"] == ["--stage", "vehicles", "--config", "/etc/sluiceway/sluiceway.toml"]
    assert server["image"] == "sluiceway/detection:0.1.0"
    variables = plain(environment(deployment))
    entry = load_stages({}, variables)["vehicles"]
    config = load_section(DetectionConfig, entry.section, tables={}, environment=variables)
    assert (entry.kind, config.host, config.model) == ("detection", "0.0.0.0", "coco-v8n")
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert ports == {"grpc": config.port, "operations": config.operations_port}


def test_without_a_file_it_is_told_as_well(tmp_path: Path) -> None:
    deployment = of_kind(render(tmp_path, NAMED | {"config": ""}), "Deployment")["eye-sluiceway-far-plates"]
    assert container(deployment)["args"] == ["--stage", "far_plates"]


def test_the_orchestrator_finds_every_stage(tmp_path: Path) -> None:
    variables = plain(environment(of_kind(render(tmp_path, NAMED), "Deployment")["eye-sluiceway-orchestrator"]))
    stages = load_stages({}, variables)
    assert stages["vehicles"].target == "dns:///eye-sluiceway-vehicles.see.svc:50052"
    assert stages["far_plates"].target == "dns:///eye-sluiceway-far-plates.see.svc:50053"
    assert stages["far_plates"].kind == "recognition"
    assert variables["SLUICEWAY_ORCHESTRATOR__DETECTION"] == "dns:///eye-sluiceway-detection.see.svc:50052"


def test_defaults_are_those_of_the_kind_and_not_of_the_default_stage(tmp_path: Path) -> None:
    deployment = of_kind(render(tmp_path, NAMED), "Deployment")["eye-sluiceway-vehicles"]
    assert "SLUICEWAY_STAGES__VEHICLES__CONFIDENCE" not in environment(deployment)
    assert "nodeSelector" not in deployment["spec"]["template"]["spec"]
    assert container(deployment)["resources"]["limits"] == {"cpu": "2", "memory": "2Gi"}


def test_a_default_is_taken_away_by_null(tmp_path: Path) -> None:
    deployment = of_kind(render(tmp_path, NAMED), "Deployment")["eye-sluiceway-far-plates"]
    assert container(deployment)["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": 1}
    told = environment(deployment)["SLUICEWAY_STAGES__FAR_PLATES__CPUS"]
    assert told["resourceFieldRef"]["resource"] == "requests.cpu"


def test_each_is_scaled_by_its_own_queue(tmp_path: Path) -> None:
    [scaler] = of_kind(render(tmp_path, NAMED), "HorizontalPodAutoscaler").values()
    assert scaler["spec"]["scaleTargetRef"]["name"] == "eye-sluiceway-far-plates"
    external = scaler["spec"]["metrics"][0]["external"]["metric"]["name"]
    assert external == "sluiceway_far_plates_queue_seconds"
    [scaled] = of_kind(render(tmp_path, NAMED, "--api-versions", KEDA), "ScaledObject").values()
    [trigger] = [item for item in scaled["spec"]["triggers"] if item["name"] == "queue"]
    assert trigger["metadata"]["stage"] == "far_plates"


def test_budgets_and_policies(tmp_path: Path) -> None:
    objects = render(tmp_path, NAMED)
    budgets = of_kind(objects, "PodDisruptionBudget")
    assert budgets["eye-sluiceway-vehicles"]["spec"]["maxUnavailable"] == 2
    assert "eye-sluiceway-far-plates" not in budgets
    policies = of_kind(objects, "NetworkPolicy")
    for name, port in (("vehicles", 50052), ("far-plates", 50053)):
        spec = policies[f"eye-sluiceway-{name}"]["spec"]
        [peer] = spec["ingress"][0]["from"]
        assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "orchestrator"
        assert spec["egress"] == []
        reached = policies["eye-sluiceway-orchestrator"]["spec"]["egress"]
        ways = [
            rule["ports"][0]["port"]
            for rule in reached
            for peer in rule.get("to", ())
            if peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component") == name
        ]
        assert ways == [port]


def test_a_named_stage_asks_for_what_the_others_ask_for(tmp_path: Path) -> None:
    deployment = of_kind(render(tmp_path, NAMED | SECURE), "Deployment")["eye-sluiceway-vehicles"]
    variables = environment(deployment)
    assert variables["SLUICEWAY_SECURITY__CLIENTS__ORCHESTRATOR__TOKEN_ENV"] == "SLUICEWAY_STAGE_TOKEN"
    assert variables["SLUICEWAY_SECURITY__CA"] == "/run/certificates/ca.crt"
    assert variables["SLUICEWAY_SECURITY__ALLOW_UNAUTHENTICATED"] == "false"
