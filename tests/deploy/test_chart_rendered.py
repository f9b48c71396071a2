"""What the chart renders says what the operator meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from chart import (
    BY_PROMETHEUS,
    CANARY,
    EVERYTHING,
    FROM_ZERO,
    GPU,
    INGRESS,
    KEDA,
    MATRIX,
    OLD,
    ROOT,
    SCALED,
    SECURE,
    TOML,
    Object,
    container,
    environment,
    of_kind,
    plain,
    render,
    stand_in_api,
)
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_runtime.config import load_section

pytestmark = pytest.mark.slow


def test_versions_follow_the_cluster(tmp_path: Path) -> None:
    def apis(version: str) -> set[str]:
        objects = render(tmp_path, SCALED, "--kube-version", version)
        return {
            item["apiVersion"] for item in objects if item["kind"] in ("HorizontalPodAutoscaler", "PodDisruptionBudget")
        }

    assert apis(OLD) == {"autoscaling/v2beta2", "policy/v1beta1"}
    assert apis("1.22.0") == {"autoscaling/v2beta2", "policy/v1"}
    assert apis("1.30.0") == {"autoscaling/v2", "policy/v1"}


def test_keda_is_used_where_the_cluster_has_it(tmp_path: Path) -> None:
    without, having = render(tmp_path, SCALED), render(tmp_path, SCALED, "--api-versions", KEDA)
    assert set(of_kind(without, "HorizontalPodAutoscaler")) == {
        f"eye-sluiceway-{name}" for name in ("orchestrator", "detection", "recognition")
    }
    # The orchestrator is scaled by its CPU alone, which needs no keda.
    assert set(of_kind(having, "HorizontalPodAutoscaler")) == {"eye-sluiceway-orchestrator"}
    assert set(of_kind(having, "ScaledObject")) == {"eye-sluiceway-detection", "eye-sluiceway-recognition"}


def test_a_job_wakes_recognition_from_zero(tmp_path: Path) -> None:
    spec = of_kind(render(tmp_path, BY_PROMETHEUS), "ScaledObject")["eye-sluiceway-recognition"]["spec"]
    assert spec["minReplicaCount"] == 0
    assert "fallback" not in spec, "KEDA knows it for averages alone"
    [wake] = [trigger for trigger in spec["triggers"] if trigger["name"] == "wake"]
    assert "sluiceway_jobs_running" in wake["metadata"]["query"]
    assert 'stage="recognition",namespace="see",app_kubernetes_io_instance="eye"' in wake["metadata"]["query"]


def test_the_orchestrators_tell_keda_themselves(tmp_path: Path) -> None:
    objects = render(tmp_path, FROM_ZERO)
    spec = of_kind(objects, "ScaledObject")["eye-sluiceway-recognition"]["spec"]
    [trigger] = spec["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("external-push", "AverageValue")
    name, _, port = trigger["metadata"]["scalerAddress"].partition(":")
    assert trigger["metadata"] == {
        "scalerAddress": "eye-sluiceway-orchestrator-headless.see.svc:9061",
        "stage": "recognition",
        "targetMs": "100",
    }
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 1}
    service = of_kind(objects, "Service")["eye-sluiceway-orchestrator-headless"]
    assert {item["name"]: item["port"] for item in service["spec"]["ports"]}["scaler"] == int(port)
    # Not where clients come in.
    assert "scaler" not in str(of_kind(objects, "Service")["eye-sluiceway-orchestrator"])
    deployment = of_kind(objects, "Deployment")["eye-sluiceway-orchestrator"]
    variables = environment(deployment)
    assert variables["SLUICEWAY_ORCHESTRATOR__SCALER__PEERS"] == f"dns:///{name}:{port}"
    config = load_section(OrchestratorConfig, "orchestrator", tables={}, environment=plain(variables))
    assert (config.scaler.enabled, config.scaler.host, config.scaler.port) == (True, "0.0.0.0", int(port))
    assert {"name": "scaler", "containerPort": int(port), "protocol": "TCP"} in container(deployment)["ports"]
    spec = of_kind(objects, "NetworkPolicy")["eye-sluiceway-orchestrator"]["spec"]
    for rules, key in ((spec["ingress"], "from"), (spec["egress"], "to")):
        [peers] = [rule[key] for rule in rules if "ports" in rule and rule["ports"][0]["port"] == int(port)]
        assert peers[0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "orchestrator"


def test_without_keda_nothing_listens_for_it(tmp_path: Path) -> None:
    for values in ({}, SCALED, BY_PROMETHEUS):
        assert "9061" not in str(render(tmp_path, values))


def test_scaling_is_damped_by_default(tmp_path: Path) -> None:
    for scaler in of_kind(render(tmp_path, SCALED), "HorizontalPodAutoscaler").values():
        behavior = scaler["spec"]["behavior"]
        assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
        # One that is set alone leaves the others as they are.
        by_hand = scaler["metadata"]["name"].endswith("recognition")
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] == (60 if by_hand else 300)
        assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


def test_switching_autoscaling_on_keeps_the_pods_that_run(tmp_path: Path) -> None:
    """Left out, `replicas` would be 1 from that moment until the autoscaler has looked."""
    with stand_in_api({"eye-sluiceway-detection": 3, "eye-sluiceway-recognition": 0}) as address:
        objects = render(tmp_path, SCALED, "--dry-run=server", "--kube-apiserver", address)
    found = {name: item["spec"].get("replicas") for name, item in of_kind(objects, "Deployment").items()}
    assert found == {
        "eye-sluiceway-detection": 3,
        "eye-sluiceway-recognition": 0,
        # It is not there yet.
        "eye-sluiceway-orchestrator": None,
    }


def test_autoscaled_deployments_do_not_fix_replicas(tmp_path: Path) -> None:
    for name, deployment in of_kind(render(tmp_path, SCALED), "Deployment").items():
        assert "replicas" not in deployment["spec"], name


def test_canary_share_and_own_settings(tmp_path: Path) -> None:
    deployments = of_kind(render(tmp_path, CANARY), "Deployment")
    main, canary = deployments["eye-sluiceway-detection"], deployments["eye-sluiceway-detection-canary"]
    assert (main["spec"]["replicas"], canary["spec"]["replicas"]) == (9, 1)
    assert container(canary)["image"] == "sluiceway/detection:0.2.0"
    assert environment(canary)["SLUICEWAY_DETECTION__MODEL"] == "coco-v8n"
    assert "SLUICEWAY_DETECTION__MODEL" not in environment(main)
    # One Service selects both, and neither Deployment the pods of the other.
    service = of_kind(render(tmp_path, CANARY), "Service")["eye-sluiceway-detection"]
    for deployment in (main, canary):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
    assert main["spec"]["selector"] != canary["spec"]["selector"]


def test_numbers_reach_the_server_as_they_are(tmp_path: Path) -> None:
    variables = environment(of_kind(render(tmp_path, EVERYTHING), "Deployment")["eye-orchestrator"])
    assert variables["SLUICEWAY_ORCHESTRATOR__MAX_MESSAGE_BYTES"] == "134217728"
    assert variables["SLUICEWAY_ORCHESTRATOR__URL_SOURCES"] == "false"
    assert json.loads(variables["SLUICEWAY_ORCHESTRATOR__URL_ALLOW_HOSTS"]) == ["*.example.org"]


def test_gpu_pod(tmp_path: Path) -> None:
    pod = of_kind(render(tmp_path, GPU), "Deployment")["eye-sluiceway-recognition"]["spec"]["template"]["spec"]
    [server] = pod["containers"]
    assert server["image"] == "sluiceway/recognition-gpu:0.1.0"
    assert server["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {toleration["key"] for toleration in pod["tolerations"]} == {"dedicated", "nvidia.com/gpu"}
    assert pod["nodeSelector"] == {"accelerator": "nvidia"}


def test_pods_are_confined(tmp_path: Path) -> None:
    for deployment in of_kind(render(tmp_path, SECURE), "Deployment").values():
        pod = deployment["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        context = container(deployment)["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_pod_outlives_its_drain(tmp_path: Path) -> None:
    objects = render(tmp_path, {"drain": {"preStopSeconds": 7, "graceSeconds": 40}})
    for name, deployment in of_kind(objects, "Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        section = name.rsplit("-", 1)[1].upper()
        assert environment(deployment)[f"SLUICEWAY_{section}__DRAIN_GRACE_S"] == "40"
        assert container(deployment)["lifecycle"]["preStop"]["exec"]["command"] == ["/bin/sleep", "7"]
        assert pod["terminationGracePeriodSeconds"] > 7 + 40


def test_only_the_orchestrator_reaches_stages(tmp_path: Path) -> None:
    policies = of_kind(render(tmp_path, {}), "NetworkPolicy")
    for stage, port in (("detection", 50052), ("recognition", 50053)):
        spec = policies[f"eye-sluiceway-{stage}"]["spec"]
        [rule] = [rule for rule in spec["ingress"] if rule["ports"][0]["port"] == port]
        [peer] = rule["from"]
        assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "orchestrator"
        assert spec["egress"] == []


def test_tokens_and_certificates(tmp_path: Path) -> None:
    deployments = of_kind(render(tmp_path, SECURE), "Deployment")
    orchestrator = environment(deployments["eye-sluiceway-orchestrator"])
    stage = environment(deployments["eye-sluiceway-detection"])
    assert orchestrator["SLUICEWAY_SECURITY__CLIENTS__SHOP__TOKEN_ENV"] == "SLUICEWAY_TOKEN_SHOP"
    assert orchestrator["SLUICEWAY_TOKEN_SHOP"] == {"secretKeyRef": {"name": "tokens", "key": "shop"}}
    assert orchestrator["SLUICEWAY_SECURITY__STAGE_TOKEN_ENV"] == "SLUICEWAY_STAGE_TOKEN"
    assert stage["SLUICEWAY_SECURITY__CLIENTS__ORCHESTRATOR__TOKEN_ENV"] == "SLUICEWAY_STAGE_TOKEN"
    assert "SLUICEWAY_TOKEN_SHOP" not in stage
    for variables in (orchestrator, stage):
        assert variables["SLUICEWAY_SECURITY__ALLOW_UNAUTHENTICATED"] == "false"


def test_cpus_are_told_by_the_downward_api(tmp_path: Path) -> None:
    def told(detection: Object) -> Object:
        return environment(of_kind(render(tmp_path, {"detection": detection}), "Deployment")["eye-sluiceway-detection"])

    assert told({})["SLUICEWAY_DETECTION__CPUS"]["resourceFieldRef"]["resource"] == "limits.cpu"
    assert "SLUICEWAY_DETECTION__WORKERS" not in told({})
    # Without a limit, a pod must not plan for all the cores of its node.
    unlimited = told({"resources": {"limits": {"cpu": None}}})
    assert unlimited["SLUICEWAY_DETECTION__CPUS"]["resourceFieldRef"]["resource"] == "requests.cpu"
    neither = told({"resources": {"limits": {"cpu": None}, "requests": {"cpu": None}}})
    assert "SLUICEWAY_DETECTION__CPUS" not in neither
    assert told({"workers": 3})["SLUICEWAY_DETECTION__WORKERS"] == "3"


def test_the_http_port(tmp_path: Path) -> None:
    objects = render(tmp_path, INGRESS)
    deployment = of_kind(objects, "Deployment")["eye-sluiceway-orchestrator"]
    variables = environment(deployment)
    config = load_section(OrchestratorConfig, "orchestrator", tables={}, environment=plain(variables))
    assert (config.http.enabled, config.http.host) == (True, "0.0.0.0")
    assert {"see.example.org", "see.internal", "eye-sluiceway-orchestrator.see.svc"} < set(config.http.allow_hosts)
    assert config.http.allow_origins == ("https://app.example.org",)
    port = {"name": "http", "containerPort": config.http.port, "protocol": "TCP"}
    assert port in container(deployment)["ports"]
    [service] = [
        item
        for item in of_kind(objects, "Service")["eye-sluiceway-orchestrator"]["spec"]["ports"]
        if item["name"] == "http"
    ]
    assert (service["port"], service["targetPort"]) == (config.http.port, "http")
    [rule] = of_kind(objects, "Ingress")["eye-sluiceway-orchestrator"]["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert (rule["host"], backend) == (
        "see.example.org",
        {"name": "eye-sluiceway-orchestrator", "port": {"name": "http"}},
    )
    allowed = of_kind(objects, "NetworkPolicy")["eye-sluiceway-orchestrator"]["spec"]["ingress"][0]["ports"]
    assert {"port": config.http.port, "protocol": "TCP"} in allowed


def test_without_the_http_port_nothing_speaks_of_it(tmp_path: Path) -> None:
    objects = render(tmp_path, {"orchestrator": {"http": {"enabled": False}}})
    variables = environment(of_kind(objects, "Deployment")["eye-sluiceway-orchestrator"])
    config = load_section(OrchestratorConfig, "orchestrator", tables={}, environment=plain(variables))
    assert config.http.enabled is False
    assert "8080" not in json.dumps(objects)


def test_room_for_what_is_compiled(tmp_path: Path) -> None:
    detection = of_kind(render(tmp_path, MATRIX["compiled"]), "Deployment")["eye-sluiceway-detection"]
    pod = detection["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["compiled"]["persistentVolumeClaim"] == {"claimName": "compiled"}
    assert "medium" not in volumes["tmp"]["emptyDir"]
    assert container(detection)["image"] == "sluiceway/detection-gpu:0.1.0"
    assert container(detection)["startupProbe"]["failureThreshold"] == 450
    recognition = of_kind(render(tmp_path, GPU), "Deployment")["eye-sluiceway-recognition"]
    volumes = {volume["name"]: volume for volume in recognition["spec"]["template"]["spec"]["volumes"]}
    assert volumes["compiled"]["emptyDir"] == {"sizeLimit": "8Gi"}


def test_alerts_and_dashboard_are_those_of_this_release(tmp_path: Path) -> None:
    objects = render(tmp_path, EVERYTHING)
    rules = of_kind(objects, "PrometheusRule")["eye"]
    assert rules["metadata"]["labels"]["release"] == "prometheus"
    assert rules["spec"] == yaml.safe_load((ROOT / "deploy" / "alerts" / "sluiceway.yml").read_text())
    dashboard = of_kind(objects, "ConfigMap")["eye-dashboard"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    written = json.loads((ROOT / "deploy" / "dashboards" / "sluiceway.json").read_text())
    assert json.loads(dashboard["data"]["sluiceway.json"]) == written
    without = render(tmp_path, {})
    assert not of_kind(without, "PrometheusRule")
    assert "eye-sluiceway-dashboard" not in of_kind(without, "ConfigMap")


def test_a_changed_file_rolls_the_pods(tmp_path: Path) -> None:
    def checksum(config: str) -> str:
        deployment = of_kind(render(tmp_path, {"config": config}), "Deployment")["eye-sluiceway-detection"]
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum(TOML) != checksum(TOML + "# other\n")
    assert of_kind(render(tmp_path, {"config": TOML}), "ConfigMap")["eye-sluiceway"]["data"]["sluiceway.toml"] == TOML
