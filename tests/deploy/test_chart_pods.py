"""What a platform team may add to the chart's pods, take from them, and put around them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import (
    ADAPTED,
    CHART,
    DIGEST,
    NAMED,
    OUTSIDE,
    PATCHED,
    ROOT,
    SCALED,
    SMALL,
    Object,
    container,
    environment,
    joined,
    of_kind,
    render,
)

pytestmark = pytest.mark.slow


def pod_of(objects: list[Object], component: str) -> Object:
    pod: Object = of_kind(objects, "Deployment")[f"eye-sluiceway-{component}"]["spec"]["template"]["spec"]
    return pod


def by_name(items: list[Object]) -> dict[str, Object]:
    assert len({item["name"] for item in items}) == len(items), "a name is there twice"
    return {item["name"]: item for item in items}


def test_volumes_init_containers_and_sidecars(tmp_path: Path) -> None:
    objects = render(tmp_path, PATCHED)
    pod = pod_of(objects, "detection")
    volumes = by_name(pod["volumes"])
    assert set(volumes) == {"tmp", "scratch", "models"}
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    mounts = {item["mountPath"]: item["name"] for item in pod["containers"][0]["volumeMounts"]}
    assert mounts == {"/tmp": "tmp", "/scratch": "scratch", "/models": "models"}
    assert [item["name"] for item in pod["initContainers"]] == ["look"]
    # The canary is of the same stage, and finds the same weights.
    assert pod_of(objects, "detection-next")["volumes"] == pod["volumes"]
    front = pod_of(objects, "orchestrator")
    assert [item["name"] for item in front["containers"]] == ["server", "proxy"]
    assert "initContainers" not in front


def test_patches_are_merged_the_narrower_one_last(tmp_path: Path) -> None:
    objects = render(tmp_path, PATCHED)
    for component, priority in (("detection", "mine"), ("recognition", "all")):
        pod = pod_of(objects, component)
        assert (pod["runtimeClassName"], pod["priorityClassName"]) == ("gvisor", priority)
        assert "automountServiceAccountToken" not in pod
        assert pod["enableServiceLinks"] is False
    variables = {name: environment(item) for name, item in of_kind(objects, "Deployment").items()}
    assert variables["eye-sluiceway-detection"]["PROXY"] == "here"
    assert variables["eye-sluiceway-recognition"]["PROXY"] == "everywhere"
    # What the chart sets is still there.
    assert all(
        each["TZ"] == "UTC" and "SLUICEWAY_SECURITY__ALLOW_UNAUTHENTICATED" in each for each in variables.values()
    )
    server = container(of_kind(objects, "Deployment")["eye-sluiceway-orchestrator"])
    assert server["livenessProbe"] == {
        "httpGet": {"path": "/livez", "port": "operations"},
        "periodSeconds": 20,
        "timeoutSeconds": 5,
    }
    assert server["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp", "subPath": "own"}]


def test_null_reaches_the_patch_of_a_named_stage(tmp_path: Path) -> None:
    objects = render(tmp_path, NAMED)
    assert "enableServiceLinks" not in pod_of(objects, "vehicles")
    assert pod_of(objects, "far-plates")["enableServiceLinks"] is False


def test_an_empty_patch_changes_nothing(tmp_path: Path) -> None:
    plain = render(tmp_path, {})
    noop = render(tmp_path, {"podPatch": {"enableServiceLinks": False}})
    assert plain == noop


def test_security_contexts_can_be_emptied(tmp_path: Path) -> None:
    pod = pod_of(render(tmp_path, PATCHED), "recognition")
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert "securityContext" not in pod["containers"][0]
    bare = pod_of(render(tmp_path, {"podSecurityContext": None}), "recognition")
    assert "securityContext" not in bare
    assert bare["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_labels_reach_everything_and_selectors_nothing(tmp_path: Path) -> None:
    objects = render(tmp_path, joined(OUTSIDE, {"recognition": SCALED["recognition"]}, ADAPTED, PATCHED))
    for item in objects:
        if not item["metadata"]["name"].endswith("-more"):
            assert item["metadata"]["labels"]["team"] == "vision", item["kind"]
    for name, deployment in of_kind(objects, "Deployment").items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert labels["team"] == "vision"
        assert labels.get("tier") == ("front" if name.endswith("orchestrator") else None)
        assert "team" not in deployment["spec"]["selector"]["matchLabels"]


def test_an_account_of_ones_own(tmp_path: Path) -> None:
    objects = render(tmp_path, PATCHED)
    assert of_kind(objects, "ServiceAccount")["eyes"]["metadata"]["annotations"]
    assert pod_of(objects, "detection")["serviceAccountName"] == "eyes"
    without = render(tmp_path, {"serviceAccount": {"create": False}})
    assert not of_kind(without, "ServiceAccount")
    assert pod_of(without, "detection")["serviceAccountName"] == "default"


def test_images_by_digest(tmp_path: Path) -> None:
    objects = render(tmp_path, PATCHED)
    images = {name: container(item)["image"] for name, item in of_kind(objects, "Deployment").items()}
    assert images["eye-sluiceway-orchestrator"] == f"sluiceway/orchestrator:0.1.0@{DIGEST}"
    assert images["eye-sluiceway-detection"] == "sluiceway/detection:0.1.0"
    assert images["eye-sluiceway-detection-next"] == f"sluiceway/detection:0.1.0@{DIGEST}"
    # A variant that names an image or a tag does not get the bytes of the main one.
    values: Object = {
        "detection": {"digest": DIGEST, "replicas": 3, "variants": [{"name": "a", "share": 25, "tag": "0.2.0"}]}
    }
    variant = of_kind(render(tmp_path, values), "Deployment")["eye-sluiceway-detection-a"]
    assert container(variant)["image"] == "sluiceway/detection:0.2.0"


def test_the_service_is_patched_by_the_name_of_its_ports(tmp_path: Path) -> None:
    spec = of_kind(render(tmp_path, PATCHED), "Service")["eye-sluiceway-orchestrator"]["spec"]
    assert (spec["type"], spec["externalTrafficPolicy"]) == ("NodePort", "Local")
    ports = by_name(spec["ports"])
    assert (ports["grpc"]["nodePort"], ports["grpc"]["port"]) == (30051, 50051)
    assert ports["http"]["port"] == 8080


@pytest.mark.parametrize(
    ("tls", "protocol", "application"), [("", "GRPC", "kubernetes.io/h2c"), ("c", "GRPCS", "https")]
)
def test_what_speaks_grpc_says_so(tmp_path: Path, tls: str, protocol: str, application: str) -> None:
    objects = render(tmp_path, joined(OUTSIDE, {"security": {"tls": {"secretName": tls}}}))
    ingress = of_kind(objects, "Ingress")["eye-sluiceway-orchestrator-grpc"]
    assert ingress["metadata"]["annotations"] == {
        "nginx.ingress.kubernetes.io/backend-protocol": protocol,
        "nginx.ingress.kubernetes.io/proxy-body-size": "64m",
    }
    [rule] = ingress["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"]["port"] == {"name": "grpc"}
    [route] = of_kind(objects, "GRPCRoute").values()
    assert route["spec"]["rules"] == [{"backendRefs": [{"name": "eye-sluiceway-orchestrator", "port": 50051}]}]
    for name in ("orchestrator", "orchestrator-headless"):
        service = of_kind(objects, "Service")[f"eye-sluiceway-{name}"]
        assert by_name(service["spec"]["ports"])["grpc"]["appProtocol"] == application


def test_urls_are_fetched_from_outside_alone(tmp_path: Path) -> None:
    rules = of_kind(render(tmp_path, {}), "NetworkPolicy")["eye-sluiceway-orchestrator"]["spec"]["egress"]
    blocks = [peer["ipBlock"] for rule in rules for peer in rule.get("to", []) if "ipBlock" in peer]
    assert [block["cidr"] for block in blocks] == ["0.0.0.0/0", "::/0"]
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(blocks[0]["except"])
    # No rule lets everything through but the one for names, and that only to their port.
    assert [rule["ports"][0]["port"] for rule in rules if "to" not in rule] == [53]
    closed = of_kind(render(tmp_path, PATCHED), "NetworkPolicy")
    assert "ipBlock" not in yaml.safe_dump(closed["eye-sluiceway-orchestrator"])
    assert closed["eye-sluiceway-detection"]["spec"]["egress"] == [{"ports": [{"port": 443}]}]


def test_rules_for_the_adapter_are_those_of_the_autoscalers(tmp_path: Path) -> None:
    objects = render(tmp_path, joined(SCALED, ADAPTED))
    rules = of_kind(objects, "ConfigMap")["eye-sluiceway-adapter-rules"]
    assert rules["metadata"]["namespace"] == "monitoring"
    found = {rule["name"]["as"]: rule for rule in yaml.safe_load(rules["data"]["config.yaml"])["externalRules"]}
    asked = {
        metric["external"]["metric"]["name"]: item["metadata"]["annotations"]["sluiceway.dev/query"]
        for item in of_kind(objects, "HorizontalPodAutoscaler").values()
        for metric in item["spec"]["metrics"]
        if metric["type"] == "External"
    }
    assert {name: rule["metricsQuery"] for name, rule in found.items()} == asked
    assert set(asked) == {"sluiceway_detection_queue_seconds", "sluiceway_recognition_queue_seconds"}


def test_the_small_profile_leaves_room_on_two_cores(tmp_path: Path) -> None:
    deployments = of_kind(render(tmp_path, SMALL), "Deployment").values()
    asked = [container(item)["resources"]["requests"] for item in deployments]
    assert all(item["spec"]["replicas"] == 1 for item in deployments)
    assert sum(int(each["cpu"].removesuffix("m")) for each in asked) <= 1000
    assert sum(int(each["memory"].removesuffix("Mi")) for each in asked) <= 2048


def test_a_hook_reads_a_picture(tmp_path: Path) -> None:
    def hooked(values: Object) -> tuple[Object, Object]:
        objects = render(tmp_path, values)
        pod = of_kind(objects, "Pod")["eye-sluiceway-test"]
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        config = of_kind(objects, "ConfigMap")["eye-sluiceway-test"]
        assert config["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert set(config["binaryData"]) == {"page.png"}
        return pod, pod["spec"]["containers"][0]

    pod, test = hooked({})
    assert test["command"][-3:] == ["--address", "eye-sluiceway-orchestrator.see.svc:50051", "/test/page.png"]
    # No policy and no Service of a component takes it for one of theirs.
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "test"
    secured: Any = joined(
        OUTSIDE, {"security": {"tls": {"secretName": "certificates"}}, "podPatch": {"nodeName": "node-1"}}
    )
    pod, test = hooked(secured)
    assert test["command"][test["command"].index("--ca") + 1] == "/run/certificates/ca.crt"
    assert test["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "tokens", "key": "shop"}
    assert pod["spec"]["nodeName"] == "node-1"


def test_the_readme_has_every_key() -> None:
    # A script beside the chart, in no package.
    readme = runpy.run_path(str(ROOT / "deploy" / "helm" / "readme.py"))
    text = (CHART / "values.yaml").read_text()
    listed = {".".join(row.path) for row in readme["rows"](text)}

    def leaves(node: Any, path: str = "") -> set[str]:
        if not isinstance(node, dict) or not node:
            return {path}
        return set().union(*(leaves(value, f"{path}.{key}".removeprefix(".")) for key, value in node.items()))

    wanted = leaves({key: value for key, value in yaml.safe_load(text).items() if key != readme["REPEATED"]})
    # A table that is written on one line is one row.
    missing = {path for path in wanted if not any(path == row or path.startswith(f"{row}.") for row in listed)}
    assert missing == set()
    page = (CHART / "README.md").read_text()
    assert set(re.findall(r"^\\| `([^`]+)`", page, re.MULTILINE)) >= listed
