"""The Helm chart with values of every kind, and what is in what it renders."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

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
    "monitoring": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
    },
    "orchestrator": {
        "config": {"max_message_bytes": 134217728, "url_allow_hosts": ["*.example.org"], "url_sources": False},
        "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "api", "key": "key"}}}],
        "envFrom": [{"secretRef": {"name": "api"}}],
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "podAnnotations": {"a": "b"},
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    },
}
NAMED: Object = {
    "config": '[pipelines.parking]\nsteps = [{ name = "vehicles", stage = "vehicles" }]\n',
    # What is set for the default stage is not for the others.
    "detection": {"replicas": 7, "config": {"confidence": 0.5}, "nodeSelector": {"disk": "fast"}},
    "stages": {
        "vehicles": {
            "kind": "detection",
            "replicas": 3,
            "config": {"model": "coco-v8n"},
            "variants": [{"name": "canary", "share": 25, "tag": "0.2.0"}],
            "autoscaling": {"enabled": True, "queueTime": {"enabled": True}},
            "podDisruptionBudget": {"maxUnavailable": 2},
        },
        "far_plates": {
            "kind": "recognition",
            "device": "cuda",
            "gpu": {"count": 1},
            "resources": {"limits": {"cpu": None}},
            "podDisruptionBudget": {"enabled": False},
        },
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
    "named": NAMED,
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


def plain(variables: Object) -> dict[str, str]:
    """Those that are not taken from a pod or a secret."""
    return {name: value for name, value in variables.items() if isinstance(value, str)}
