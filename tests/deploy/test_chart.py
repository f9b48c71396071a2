"""The Helm chart without a cluster: what it renders is valid for every version it supports, and it refuses nonsense."""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import referencing.jsonschema
import yaml
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_runtime.config import load_section

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "sluiceway"
TOOLS = ROOT / "build" / "tools"
Object = dict[str, Any]

# Old is what autoscaling/v2beta2 and policy/v1beta1 are for.
OLD, NEW = "1.20.0", ("1.25.0", "1.30.0", "1.37.0")
KEDA, OPERATOR = "keda.sh/v1alpha1", "monitoring.coreos.com/v1"
CUSTOM = {KEDA: "cloudcoil.models.keda.v1alpha1", OPERATOR: "cloudcoil.models.prometheus_operator.v1"}

TOML = '[detection]\nconfidence = 0.3\n\n[api.photos]\nurl = "https://photos.example.org/{id}"\nparams = ["id"]\n'
GPU = {
    "recognition": {
        "device": "cuda",
        "gpu": {"count": 1},
        "nodeSelector": {"accelerator": "nvidia"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "gpu"}],
    }
}
SCALED: Object = {
    "orchestrator": {"autoscaling": {"enabled": True}},
    "detection": {"autoscaling": {"enabled": True, "queueTime": {"enabled": True}}},
    "recognition": {"autoscaling": {"enabled": True, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}},
}
SECURE: Object = {
    "networkPolicy": {"enabled": False},
    "security": {
        "tls": {"secretName": "certificates"},
        "clients": {"shop": {"secretName": "tokens", "key": "shop", "rate_per_s": 50}},
        "stageToken": {"secretName": "tokens", "key": "stages"},
    },
}
INGRESS: Object = {
    "orchestrator": {
        "http": {"allow_hosts": ["see.internal"], "allow_origins": ["https://app.example.org"]},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "64m"},
            "hosts": ["see.example.org"],
            "tlsSecretName": "see-example-org",
        },
    },
    "security": {"clients": {"shop": {"secretName": "tokens", "key": "shop"}}},
}
FROM_ZERO: Object = {"recognition": {"autoscaling": {"enabled": True, "engine": "keda", "minReplicas": 0}}}
CANARY: Object = {
    "detection": {
        "replicas": 9,
        "variants": [{"name": "canary", "share": 10, "tag": "0.2.0", "config": {"model": "coco-v8n", "max_batch": 2}}],
    }
}
EVERYTHING: Object = {
    "fullnameOverride": "eye",
    "config": TOML,
    "image": {"registry": "registry.example.org/team/", "tag": "1.2.3", "pullSecrets": ["pull"]},
    "monitoring": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "orchestrator": {
        "config": {"max_message_bytes": 134217728, "routes": {"*": "default"}, "url_sources": False},
        "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "api", "key": "key"}}}],
        "envFrom": [{"secretRef": {"name": "api"}}],
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "podAnnotations": {"a": "b"},
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    },
}
MATRIX = {
    "defaults": {},
    "gpu": GPU,
    "scaled": SCALED,
    "secure": SECURE,
    "ingress": INGRESS,
    "no-http": {"orchestrator": {"http": {"enabled": False}}},
    "compiled": {"detection": {"device": "cuda", "gpu": {"count": 2, "cache": {"claimName": "compiled"}}}},
    "from-zero": FROM_ZERO,
    "canary": CANARY,
    "everything": EVERYTHING | SCALED | {"security": SECURE["security"]},
}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((os.environ["PATH"], str(TOOLS / "bin")))
    program = shutil.which("helm", path=path)
    assert program, "no helm: run `make test-chart`, which brings one"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def render(folder: Path, values: Object, *options: str) -> list[Object]:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = helm("template", "eye", str(CHART), "--namespace", "see", "--values", str(file), *options)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def container(deployment: Object) -> Object:
    [only] = deployment["spec"]["template"]["spec"]["containers"]
    result: Object = only
    return result


def environment(deployment: Object) -> dict[str, Any]:
    variables = container(deployment)["env"]
    names = [item["name"] for item in variables]
    assert len(names) == len(set(names)), "a variable is set twice"
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in variables}


# --- schemas ---------------------------------------------------------------------------------------------------------


def schema_folder(version: str) -> Path:
    name = f"v{version}-local-strict"
    if version == OLD:
        return TOOLS / "schemas" / name
    return Path(str(resources.files("kubernetes_validate"))) / "kubernetes-json-schema" / name


@functools.cache
def validator(version: str, api: str, kind: str) -> jsonschema.Draft202012Validator:
    if api in CUSTOM:
        model = getattr(importlib.import_module(CUSTOM[api]), kind)
        return jsonschema.Draft202012Validator(strict(model.model_json_schema(by_alias=True)))
    folder = schema_folder(version)
    group, _, release = api.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.split(".")[0], release)))
    definitions = referencing.Resource(
        json.loads((folder / "_definitions.json").read_text()), referencing.jsonschema.DRAFT202012
    )
    registry: referencing.Registry[Any] = referencing.Registry().with_resource("_definitions.json", definitions)
    schema = json.loads((folder / f"{name}.json").read_text())
    return jsonschema.Draft202012Validator(schema, registry=registry)


def strict(node: Any) -> Any:
    """Generated models let unknown keys pass; a typing error in the chart must not."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {key: strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        result["additionalProperties"] = False
    return result


def faults(version: str, objects: list[Object]) -> Iterator[str]:
    for item in objects:
        for error in validator(version, item["apiVersion"], item["kind"]).iter_errors(item):
            yield f"{item['kind']}/{item['metadata']['name']}: {error.json_path}: {error.message}"


@pytest.mark.parametrize("version", [OLD, *NEW])
@pytest.mark.parametrize("name", MATRIX)
def test_every_object_is_valid(tmp_path: Path, name: str, version: str) -> None:
    objects = render(tmp_path, MATRIX[name], "--kube-version", version)
    assert objects
    assert list(faults(version, objects)) == []


@pytest.mark.parametrize("name", ["scaled", "from-zero", "everything"])
def test_every_object_is_valid_with_keda(tmp_path: Path, name: str) -> None:
    objects = render(tmp_path, MATRIX[name], "--api-versions", KEDA, "--api-versions", OPERATOR)
    assert of_kind(objects, "ScaledObject")
    assert list(faults("1.30.0", objects)) == []


def test_a_wrong_object_would_be_noticed(tmp_path: Path) -> None:
    objects = render(tmp_path, FROM_ZERO)
    of_kind(objects, "ScaledObject")["eye-sluiceway-recognition"]["spec"]["triggerz"] = []
    container(of_kind(objects, "Deployment")["eye-sluiceway-detection"])["imagePullPolicyy"] = "Never"
    found = list(faults("1.30.0", objects))
    assert len(found) == 2
    assert "triggerz" in found[0] + found[1]
    assert "imagePullPolicyy" in found[0] + found[1]


def test_lint(tmp_path: Path) -> None:
    for number, values in enumerate(MATRIX.values()):
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(values))
        done = helm("lint", "--strict", str(CHART), "--values", str(file))
        assert done.returncode == 0, done.stdout


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"detection": {"workers": -1}}, "detection.workers: Must be greater than or equal to 1"),
        ({"detection": {"workers": "many"}}, "detection.workers: Does not match pattern '^(auto)$'"),
        ({"detection": {"wrokers": 2}}, "detection: Additional property wrokers is not allowed"),
        ({"replicaCount": 2}, "Additional property replicaCount is not allowed"),
        ({"detection": {"config": {"confidense": 0.5}}}, "detection.config: Additional property confidense"),
        ({"detection": {"config": {"confidence": 2}}}, "detection.config.confidence: Must be less than or equal to 1"),
        ({"detection": {"config": {"port": 1}}}, "detection.config: Additional property port is not allowed"),
        ({"orchestrator": {"config": {"coalesce_ms": "soon"}}}, "orchestrator.config.coalesce_ms: Invalid type"),
        ({"recognition": {"device": "cuda"}}, "recognition.gpu.count: device cuda needs the limit of at least 1 GPU"),
        ({"recognition": {"gpu": {"count": 1}}}, "recognition.device: cpu would leave the 1 GPUs"),
        (
            {"recognition": {"device": "cuda", "gpu": {"count": 1}, "resources": {"limits": {"nvidia.com/gpu": 1}}}},
            "recognition.resources.limits: GPUs are set by recognition.gpu.count",
        ),
        ({"recognition": {"variants": [{"name": "a"}]}}, "recognition.variants.0: share is required"),
        (
            {"detection": {"variants": [{"name": "a", "share": 60}, {"name": "b", "share": 40}]}},
            "detection.variants: the shares add up to 100",
        ),
        (
            {"detection": {"variants": [{"name": "a", "share": 1}, {"name": "a", "share": 1}]}},
            "detection.variants: two are called a",
        ),
        (
            {"recognition": {"autoscaling": {"enabled": True, "engine": "hpa", "minReplicas": 0}}},
            "recognition.autoscaling.minReplicas: 0 needs keda",
        ),
        (
            {"detection": {"autoscaling": {"enabled": True, "engine": "keda", "minReplicas": 0}}},
            "detection.autoscaling.queueTime.enabled: nothing else can wake",
        ),
        ({"detection": {"autoscaling": {"enabled": True, "cpuPercent": 0}}}, "detection.autoscaling: set cpuPercent"),
        (
            {"orchestrator": {"autoscaling": {"enabled": True, "minReplicas": 9}}},
            "orchestrator.autoscaling.minReplicas: is above maxReplicas",
        ),
        ({"orchestrator": {"config": {"http": {"port": 1}}}}, "orchestrator.config: Additional property http"),
        ({"orchestrator": {"http": {"port": 1}}}, "orchestrator.http: Additional property port is not allowed"),
        ({"orchestrator": {"ingress": {"hosts": ["*.example.org"]}}}, "orchestrator.ingress.hosts.0: Does not match"),
        (INGRESS | {"security": {}}, "security.clients: everybody who reaches the ingress could call"),
        ({"orchestrator": {"ingress": {"enabled": True}}}, "orchestrator.ingress.hosts: name at least one"),
        (
            {"orchestrator": {"http": {"enabled": False}, "ingress": {"enabled": True, "hosts": ["a.example.org"]}}},
            "orchestrator.http.enabled: the ingress leads to that port",
        ),
        ({"networkPolicy": {"enabled": False}}, "security.clients: without network policies everybody could call"),
        ({"security": {"clients": {"a__b": {"secretName": "s", "key": "k"}}}}, "a__b"),
        ({"monitoring": {"prometheus": {"address": "prometheus:9090"}}}, "monitoring.prometheus.address"),
    ],
)
def test_nonsense_is_refused_by_its_key(tmp_path: Path, values: Object, message: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = helm("template", "eye", str(CHART), "--values", str(file))
    assert done.returncode != 0
    assert message in done.stderr


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"detection": {"device": "cuda"}, "recognition": {"device": "cuda:0"}}))
    done = helm("template", "eye", str(CHART), "--values", str(file))
    assert "detection.gpu.count" in done.stderr
    assert "recognition.gpu.count" in done.stderr


# --- what is rendered ------------------------------------------------------------------------------------------------


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
    spec = of_kind(render(tmp_path, FROM_ZERO), "ScaledObject")["eye-sluiceway-recognition"]["spec"]
    assert spec["minReplicaCount"] == 0
    [wake] = [trigger for trigger in spec["triggers"] if trigger["name"] == "wake"]
    assert "sluiceway_jobs_running" in wake["metadata"]["query"]
    assert 'stage="recognition",namespace="see",app_kubernetes_io_instance="eye"' in wake["metadata"]["query"]


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
    assert json.loads(variables["SLUICEWAY_ORCHESTRATOR__ROUTES"]) == {"*": "default"}


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


def plain(variables: Object) -> dict[str, str]:
    """Those that are not taken from a pod or a secret."""
    return {name: value for name, value in variables.items() if isinstance(value, str)}


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


def test_a_changed_file_rolls_the_pods(tmp_path: Path) -> None:
    def checksum(config: str) -> str:
        deployment = of_kind(render(tmp_path, {"config": config}), "Deployment")["eye-sluiceway-detection"]
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum(TOML) != checksum(TOML + "# other\n")
    assert of_kind(render(tmp_path, {"config": TOML}), "ConfigMap")["eye-sluiceway"]["data"]["sluiceway.toml"] == TOML


# --- what is committed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["deploy/helm/schema.py", "deploy/kubernetes/render.py"])
def test_generated_files_are_current(script: str) -> None:
    path = os.pathsep.join((os.environ["PATH"], str(TOOLS / "bin")))
    done = subprocess.run(
        [sys.executable, ROOT / script, "--check"],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
