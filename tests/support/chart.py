"""The Helm chart with values of every kind, and what is in what it renders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "sluiceway"
TOOLS = ROOT / "build" / "tools"
Object = dict[str, Any]

# Old is what autoscaling/v2beta2 and policy/v1beta1 are for.
OLD, NEW = "1.20.0", ("1.25.0", "1.30.0", "1.37.0")
KEDA, OPERATOR, GATEWAY = "keda.sh/v1alpha1", "monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"
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
BY_PROMETHEUS: Object = {
    "recognition": {
        "autoscaling": {"enabled": True, "engine": "keda", "minReplicas": 0, "queueTime": {"source": "prometheus"}}
    }
}
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
        "service": {"annotations": {"a": "b"}},
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
            "podDisruptionBudget": {"maxUnavailable": 2},
            # What null takes away is not there by the time that the defaults of the kind are laid under it.
            "podPatch": {"enableServiceLinks": None},
        },
        "far_plates": {
            "kind": "recognition",
            "device": "cuda",
            "gpu": {"count": 1},
            "resources": {"limits": {"cpu": None}},
            "podDisruptionBudget": {"enabled": False},
            "autoscaling": {"enabled": True, "queueTime": {"enabled": True}},
        },
    },
}
DIGEST = "sha256:" + "ab" * 32
SCRATCH = {"name": "scratch", "emptyDir": {}}
# Every way into a pod, in the orchestrator and in a stage, and through the whole release.
PATCHED: Object = {
    "commonLabels": {"team": "vision"},
    "serviceAccount": {"name": "eyes", "annotations": {"eks.amazonaws.com/role-arn": "arn:of:a:role"}},
    "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
    "containerSecurityContext": None,
    "podPatch": {"runtimeClassName": "gvisor", "priorityClassName": "all", "automountServiceAccountToken": None},
    "containerPatch": {"env": [{"name": "PROXY", "value": "everywhere"}, {"name": "TZ", "value": "UTC"}]},
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "{{ .Release.Name }}-more"},
            "data": {"port": "{{ 8080 }}"},
        }
    ],
    "orchestrator": {
        "digest": DIGEST,
        "podLabels": {"tier": "front"},
        "sidecars": [{"name": "proxy", "image": "registry.example.org/proxy:1"}],
        "podPatch": {"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["api.internal"]}]},
        "containerPatch": {
            "livenessProbe": {"periodSeconds": 20, "failureThreshold": None},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp", "subPath": "own"}],
        },
        "service": {
            "type": "NodePort",
            "patch": {"externalTrafficPolicy": "Local", "ports": [{"name": "grpc", "nodePort": 30051}]},
        },
    },
    "detection": {
        "config": {"model": "/models/mine.onnx"},
        "modelVolume": {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        "extraVolumes": [SCRATCH],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "initContainers": [
            {
                "name": "look",
                "image": "registry.example.org/tools:1",
                "volumeMounts": [{"name": "models", "mountPath": "/models"}],
            }
        ],
        "podPatch": {"priorityClassName": "mine"},
        "containerPatch": {"env": [{"name": "PROXY", "value": "here"}]},
        "replicas": 3,
        "variants": [{"name": "next", "share": 25, "digest": DIGEST}],
    },
    "networkPolicy": {"publicEgress": False, "stageEgress": [{"ports": [{"port": 443}]}]},
    "security": {"allowUnauthenticated": True},
}
# A volume that is an OCI artefact is newer than most versions here.
ARTEFACT: Object = {
    "recognition": {
        "modelVolume": {"image": {"reference": "registry.example.org/models:1", "pullPolicy": "IfNotPresent"}},
        "config": {"models": ["ppocrv6-tiny", {"name": "mine", "weights": "/models/mine.onnx"}]},
    }
}
OUTSIDE: Object = {
    "orchestrator": {
        "service": {"type": "LoadBalancer", "patch": {"externalTrafficPolicy": "Local"}},
        "grpcIngress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "64m"},
            "hosts": ["grpc.example.org"],
            "tlsSecretName": "grpc-example-org",
        },
        "grpcRoute": {
            "enabled": True,
            "annotations": {"a": "b"},
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "hostnames": ["see.example.org"],
        },
    },
    "networkPolicy": {"clients": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
    "security": {"clients": {"shop": {"secretName": "tokens", "key": "shop"}}},
}
ADAPTED: Object = {"monitoring": {"adapterRules": {"enabled": True, "namespace": "monitoring"}}}
SMALL: Object = yaml.safe_load((CHART / "values-small.yaml").read_text())


def joined(*tables: Object) -> Object:
    """Tables as helm lays one file of values over another."""
    result: Object = {}
    for table in tables:
        for key, value in table.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = joined(result[key], value) if both else value
    return result


MATRIX = {
    "defaults": {},
    "gpu": GPU,
    "scaled": SCALED,
    "secure": SECURE,
    "ingress": INGRESS,
    "no-http": {"orchestrator": {"http": {"enabled": False}}},
    "compiled": {"detection": {"device": "cuda", "gpu": {"count": 2, "cache": {"claimName": "compiled"}}}},
    "from-zero": FROM_ZERO,
    "from-zero-by-prometheus": BY_PROMETHEUS,
    "canary": CANARY,
    "named": NAMED,
    "patched": PATCHED,
    "outside": OUTSIDE,
    "outside-encrypted": joined(OUTSIDE, {"security": {"tls": {"secretName": "certificates"}}}),
    "small": SMALL,
    "adapted": joined(SCALED, ADAPTED),
    "everything": joined(EVERYTHING, SCALED, ADAPTED, {"security": SECURE["security"]}),
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
    [server] = [item for item in deployment["spec"]["template"]["spec"]["containers"] if item["name"] == "server"]
    result: Object = server
    return result


def environment(deployment: Object) -> dict[str, Any]:
    variables = container(deployment)["env"]
    names = [item["name"] for item in variables]
    assert len(names) == len(set(names)), "a variable is set twice"
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in variables}


def plain(variables: Object) -> dict[str, str]:
    """Those that are not taken from a pod or a secret."""
    return {name: value for name, value in variables.items() if isinstance(value, str)}


@contextmanager
def stand_in_api(replicas: Mapping[str, int]) -> Iterator[str]:
    """As much of a Kubernetes API as helm asks to look up Deployments; gives its address."""
    version = {"major": "1", "minor": "30", "gitVersion": "v1.30.0"}
    kind = {"name": "deployments", "singularName": "deployment", "namespaced": True, "kind": "Deployment"}
    group = {"groupVersion": "apps/v1", "version": "v1"}
    answers: Object = {
        "/version": version,
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [{"name": "apps", "versions": [group], "preferredVersion": group}],
        },
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
        "/apis/apps/v1": {
            "kind": "APIResourceList",
            "groupVersion": "apps/v1",
            "resources": [kind | {"verbs": ["get"]}],
        },
    }
    for name, number in replicas.items():
        answers[f"/apis/apps/v1/namespaces/see/deployments/{name}"] = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "see"},
            "spec": {"replicas": number},
        }

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or status).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
