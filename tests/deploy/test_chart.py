"""The Helm chart without a cluster: what it renders is valid for every version it supports, and it refuses nonsense."""

from __future__ import annotations

import functools
import importlib
import json
import os
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
from chart import (
    ARTEFACT,
    CHART,
    CUSTOM,
    FROM_ZERO,
    GATEWAY,
    INGRESS,
    KEDA,
    MATRIX,
    NEW,
    OLD,
    OPERATOR,
    OUTSIDE,
    ROOT,
    TOOLS,
    Object,
    container,
    helm,
    of_kind,
    render,
)

pytestmark = pytest.mark.slow

# --- schemas ---------------------------------------------------------------------------------------------------------


def closed(required: list[str], **properties: Object) -> Object:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


# No package has the schemas of the Gateway API. This is its contract for as much of a GRPCRoute as the chart writes:
# names are RFC 1123, a port goes with a Service, hostnames have no port and may begin with one wildcard.
NAME_1123: Object = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 253}
PORT: Object = {"type": "integer", "minimum": 1, "maximum": 65535}
GATEWAY_SCHEMAS: dict[str, Object] = {
    "GRPCRoute": closed(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": GATEWAY},
        kind={"const": "GRPCRoute"},
        metadata={"type": "object", "required": ["name", "labels"]},
        spec=closed(
            ["parentRefs", "rules"],
            parentRefs={
                "type": "array",
                "minItems": 1,
                "maxItems": 32,
                "items": closed(["name"], name=NAME_1123, namespace=NAME_1123, sectionName=NAME_1123, port=PORT),
            },
            hostnames={
                "type": "array",
                "maxItems": 16,
                "items": {"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
            },
            rules={
                "type": "array",
                "minItems": 1,
                "maxItems": 16,
                "items": closed(
                    ["backendRefs"],
                    backendRefs={
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 16,
                        "items": closed(["name", "port"], name=NAME_1123, port=PORT),
                    },
                ),
            },
        ),
    )
}


def schema_folder(version: str) -> Path:
    name = f"v{version}-local-strict"
    if version == OLD:
        return TOOLS / "schemas" / name
    return Path(str(resources.files("kubernetes_validate"))) / "kubernetes-json-schema" / name


@functools.cache
def validator(version: str, api: str, kind: str) -> jsonschema.Draft202012Validator:
    if api == GATEWAY:
        return jsonschema.Draft202012Validator(GATEWAY_SCHEMAS[kind])
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


@pytest.mark.parametrize("name", ["scaled", "from-zero", "from-zero-by-prometheus", "everything", "named"])
def test_every_object_is_valid_with_keda(tmp_path: Path, name: str) -> None:
    objects = render(tmp_path, MATRIX[name], "--api-versions", KEDA, "--api-versions", OPERATOR)
    assert of_kind(objects, "ScaledObject")
    assert list(faults("1.30.0", objects)) == []


def test_weights_in_an_artefact(tmp_path: Path) -> None:
    objects = render(tmp_path, ARTEFACT, "--kube-version", NEW[-1])
    assert list(faults(NEW[-1], objects)) == []
    pod = of_kind(objects, "Deployment")["eye-sluiceway-recognition"]["spec"]["template"]["spec"]
    [models] = [volume for volume in pod["volumes"] if volume["name"] == "models"]
    assert models["image"]["reference"] == "registry.example.org/models:1"
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in pod["containers"][0]["volumeMounts"]


def test_a_wrong_object_would_be_noticed(tmp_path: Path) -> None:
    objects = render(tmp_path, FROM_ZERO)
    of_kind(objects, "ScaledObject")["eye-sluiceway-recognition"]["spec"]["triggerz"] = []
    container(of_kind(objects, "Deployment")["eye-sluiceway-detection"])["imagePullPolicyy"] = "Never"
    found = list(faults("1.30.0", objects))
    assert len(found) == 2
    assert "triggerz" in found[0] + found[1]
    assert "imagePullPolicyy" in found[0] + found[1]
    objects = render(tmp_path, OUTSIDE)
    of_kind(objects, "GRPCRoute")["eye-sluiceway-orchestrator"]["spec"]["rules"][0]["backendRefs"][0]["portt"] = 1
    assert "portt" in "".join(faults("1.30.0", objects))


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
        (
            {"detection": {"autoscaling": {"enabled": True}, "variants": [{"name": "a", "share": 50}]}},
            "detection.autoscaling.enabled: shares of variants do not hold",
        ),
        (
            {"detection": {"variants": [{"name": "a", "share": 10}]}},
            "detection.variants: a would get 1 of 3 pods, which is not a share of 10; set detection.replicas to 9",
        ),
        (
            {"detection": {"config": {"model": "text-nanoo"}}},
            "detection.config.model: Does not match pattern '^(coco-v8n|doclaynet-v8n|ppocrv6-small-det",
        ),
        ({"detection": {"config": {"model": "ppocrv6-tiny"}}}, "detection.config.model: Does not match pattern"),
        ({"recognition": {"config": {"models": ["tiny"]}}}, "recognition.config.models.0: Does not match pattern"),
        (
            {"recognition": {"config": {"models": [{"name": "mine", "weights": "mine"}]}}},
            "recognition.config.models.0.weights: Does not match pattern",
        ),
        (
            {"recognition": {"config": {"models": [{"name": "mine"}]}}},
            "recognition.config.models.0.name: Does not match pattern",
        ),
        ({"detection": {"digest": "latest"}}, "detection.digest: Does not match pattern"),
        ({"detection": {"sidecars": [{"image": "a"}]}}, "detection.sidecars.0: name is required"),
        ({"detection": {"podLabels": {"app.kubernetes.io/name": "a"}}}, "app.kubernetes.io/name"),
        ({"commonLabels": {"app.kubernetes.io/part-of": "a"}}, "app.kubernetes.io/part-of"),
        (OUTSIDE | {"security": {}}, "security.clients: everybody who reaches the gateway could call"),
        (
            {"orchestrator": {"service": {"type": "NodePort"}}},
            "security.clients: everybody who reaches the service from outside could call",
        ),
        ({"orchestrator": {"grpcIngress": {"enabled": True}}}, "orchestrator.grpcIngress.hosts: name at least one"),
        ({"orchestrator": {"grpcRoute": {"enabled": True}}}, "orchestrator.grpcRoute.parentRefs: name the Gateway"),
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
        ({"stages": {"cars": {"replicas": 2}}}, "stages.cars: kind is required"),
        ({"stages": {"cars": {"kind": "segmentation"}}}, "stages.cars.kind"),
        ({"stages": {"cars": {"kind": "detection", "wrokers": 2}}}, "stages.cars: Additional property wrokers"),
        (
            {"stages": {"cars": {"kind": "recognition", "config": {"confidence": 0.5}}}},
            "stages.cars.config: Additional property confidence",
        ),
        ({"stages": {"cars": {"kind": "recognition", "device": "cuda"}}}, "stages.cars.gpu.count: device cuda needs"),
        (
            {"stages": {"cars": {"kind": "detection", "autoscaling": {"enabled": True, "minReplicas": 99}}}},
            "stages.cars.autoscaling.minReplicas: is above maxReplicas",
        ),
        ({"stages": {"orchestrator": {"kind": "detection"}}}, "orchestrator"),
        ({"stages": {"a__b": {"kind": "detection"}}}, "a__b"),
        (
            {
                "detection": {"variants": [{"name": "far", "share": 10}]},
                "stages": {"detection_far": {"kind": "detection"}},
            },
            "stages: two Deployments would be called detection-far",
        ),
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


# --- what is committed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["deploy/helm/schema.py", "deploy/helm/readme.py", "deploy/kubernetes/render.py"])
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
