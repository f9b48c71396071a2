"""What is deployed must say what the servers say: ports, defaults, limits and names, by the configuration models."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from sluiceway_detection.config import DetectionConfig
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.http import HttpConfig
from sluiceway_orchestrator.metrics.catalogue import ORCHESTRATOR
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_runtime.config import ServerConfig, StageConfig, load_section
from sluiceway_runtime.metrics.catalogue import EVERY_SERVER, STAGES
from sluiceway_runtime.server.security import SecurityConfig

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "sluiceway"
MODELS: dict[str, type[ServerConfig]] = {
    "orchestrator": OrchestratorConfig,
    "detection": DetectionConfig,
    "recognition": RecognitionConfig,
}
COMPOSE = [ROOT / "docker-compose.yml", *(DEPLOY / "compose" / f"{name}.yml" for name in ("gpu", "tls"))]


def default(model: type[ServerConfig], key: str) -> Any:
    return model.model_fields[key].get_default(call_default_factory=True)


def ports(component: str) -> tuple[int, int]:
    model = MODELS[component]
    return default(model, "port"), default(model, "operations_port")


class ComposeLoader(yaml.SafeLoader):
    """Reads lists that are to replace those of the file before."""


ComposeLoader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def compose(file: Path) -> dict[str, Any]:
    """A compose file with every ${NAME:-default} replaced by its default, as for someone who sets nothing."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", file.read_text())
    loaded: dict[str, Any] = yaml.load(re.sub(r"\$\{\w+:\?[^}]*\}", "given", text), Loader=ComposeLoader)
    return loaded


def chart_values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return loaded


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", MODELS)
def test_dockerfile_ports(component: str) -> None:
    dockerfile = (DEPLOY / "docker" / "Dockerfile").read_text()
    grpc, operations = ports(component)
    assert f"EXPOSE {grpc} {operations}\n" in dockerfile
    assert f'healthcheck.py", "{component}", "{operations}"]' in dockerfile
    assert f"ENV SLUICEWAY_{component.upper()}__HOST=0.0.0.0" in dockerfile


def test_one_version_everywhere() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version()
    assert f"ARG VERSION={version()}\n" in (DEPLOY / "docker" / "Dockerfile").read_text()
    for service in compose(COMPOSE[0])["services"].values():
        assert service["image"].endswith(f":{version()}")


@pytest.mark.parametrize("role", ["orchestrator", "detection", "recognition-cpu", "recognition-gpu"])
def test_locked_versions_are_what_the_project_asks_for(role: str) -> None:
    lock = script(DEPLOY / "docker" / "lock.py")
    text = (DEPLOY / "docker" / "requirements" / f"{role}.txt").read_text()
    pinned = {match[1]: match[2] for match in re.finditer(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE)}
    assert text.count("--hash=sha256:") > len(pinned)
    for requirement in wanted(lock.ROLES[role]):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
    assert not re.search(r"https?://|--index|--find-links", text)


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [Requirement(line) for line in project["dependencies"]]
    left = list(extras)
    while left:
        for line in project["optional-dependencies"][left.pop()]:
            requirement = Requirement(line)
            if requirement.name == project["name"]:
                left += requirement.extras
            else:
                found.append(requirement)
    return found


# --- compose ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", COMPOSE, ids=lambda path: path.stem)
def test_compose_environment_is_what_the_servers_take(file: Path) -> None:
    checked = 0
    for name, service in compose(file)["services"].items():
        environment = {key: str(value) for key, value in service.get("environment", {}).items()}
        load_section(MODELS[name], name, tables={}, environment=environment)
        load_section(SecurityConfig, "security", tables={}, environment=environment)
        sections = {key.split("__")[0] for key in environment if "__" in key}
        assert sections <= {f"SLUICEWAY_{name.upper()}", "SLUICEWAY_SECURITY"}, "a variable that no server reads"
        checked += len(environment)
    assert checked


def test_compose_ports_and_targets() -> None:
    services = compose(COMPOSE[0])["services"]
    for stage in ("detection", "recognition"):
        assert services[stage]["expose"] == [str(port) for port in ports(stage)]
        target = services["orchestrator"]["environment"][f"SLUICEWAY_ORCHESTRATOR__{stage.upper()}"]
        assert target == f"dns:///{stage}:{ports(stage)[0]}"
    published = services["orchestrator"]["ports"]
    http = default(OrchestratorConfig, "http").port
    assert published == [f"127.0.0.1:{port}:{port}" for port in (*ports("orchestrator"), http)]


def test_compose_waits_longer_than_the_drain() -> None:
    for name, service in compose(COMPOSE[0])["services"].items():
        assert float(service["stop_grace_period"].removesuffix("s")) > default(MODELS[name], "drain_grace_s")


def test_prometheus_scrapes_every_operations_port() -> None:
    jobs = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {job["dns_sd_configs"][0]["names"][0]: job["dns_sd_configs"][0]["port"] for job in jobs}
    assert scraped == {name: ports(name)[1] for name in MODELS}


# --- chart -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", MODELS)
def test_chart_ports(component: str) -> None:
    grpc, operations = ports(component)
    more = [f' "{name}" {default(OrchestratorConfig, name).port}' for name in ("http", "scaler")]
    own = "".join(more) if component == "orchestrator" else ""
    names = (CHART / "templates" / "_names.tpl").read_text()
    assert f'"{component}" (dict "grpc" {grpc} "operations" {operations}{own})' in names


def test_chart_drain_and_start() -> None:
    values = chart_values()
    for model in MODELS.values():
        assert values["drain"]["graceSeconds"] == default(model, "drain_grace_s")
    assert values["startupSeconds"] > StageConfig.model_fields["start_timeout_s"].default


@pytest.mark.parametrize("stage", ["detection", "recognition"])
def test_chart_defaults_are_those_of_the_servers(stage: str) -> None:
    values = chart_values()[stage]
    for key in ("workers", "goal"):
        assert values[key] == default(MODELS[stage], key)


def test_chart_schema_is_made_from_the_models() -> None:
    schema = script(DEPLOY / "helm" / "schema.py")
    assert json.loads((CHART / "values.schema.json").read_text()) == schema.values(), "run deploy/helm/schema.py"


def test_reference_of_keys_is_made_from_the_models() -> None:
    made = script(DEPLOY / "configuration.py").text()
    assert (ROOT / "docs" / "configuration.md").read_text() == made, "run deploy/configuration.py"
    assert not [line for line in made.splitlines() if line.endswith("|  |")], "a key has no description"


def test_chart_schema_knows_every_key() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    taken = {
        "orchestrator": {
            *("host", "port", "operations_port", "drain_grace_s"),
            *("detection", "recognition", "http", "scaler"),
        },
        "detection": {"host", "port", "operations_port", "drain_grace_s", "workers", "goal", "device", "cpus", "http"},
    }
    taken["recognition"] = taken["detection"]
    for component, model in MODELS.items():
        keys = set(schema[component]["properties"]["config"]["properties"])
        assert keys == set(model.model_fields) - taken[component]
    http = set(schema["orchestrator"]["properties"]["http"]["properties"])
    assert http == set(HttpConfig.model_fields) - {"host", "port"}


def test_writable_folder_of_the_gpu_images() -> None:
    """Where the images make room for what is compiled, compose and chart mount a volume."""
    folder = "/opt/sluiceway/weights/gpu"
    assert f"\nVOLUME {folder}\n" in (DEPLOY / "docker" / "Dockerfile").read_text()
    assert compose(COMPOSE[1])["services"]["recognition"]["volumes"] == [f"compiled:{folder}"]
    assert f"mountPath: {folder}\n" in (CHART / "templates" / "_pod.tpl").read_text()


# --- metrics ---------------------------------------------------------------------------------------------------------


def known_metrics() -> set[str]:
    """Names of series as Prometheus sees them, of all that servers show."""
    own = script(DEPLOY / "metrics.py").own()
    parts = {"histogram": ("_bucket", "_count", "_sum")}
    return {
        family.shown + part
        for family in (*EVERY_SERVER, *STAGES, *ORCHESTRATOR, *own)
        for part in parts.get(family.kind, ("",))
    }


def test_reference_of_metrics_is_made_from_the_code() -> None:
    made = script(DEPLOY / "metrics.py").text()
    assert (ROOT / "docs" / "metrics.md").read_text() == made, "run deploy/metrics.py"


def test_queries_use_metrics_that_exist() -> None:
    dashboard = json.loads((DEPLOY / "dashboards" / "sluiceway.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries.append((CHART / "templates" / "_queries.tpl").read_text())
    queries += [rule["expr"] for rule in alerts()]
    ours = r"\b(?:sluiceway|rpc|http|hw|process)_[a-z_]+(?=[\[{) ])"
    used = {name for query in queries for name in re.findall(ours, query)}
    used -= {label for family in (*EVERY_SERVER, *STAGES, *ORCHESTRATOR) for label in family.labels}
    assert len(used) > 40
    assert used <= known_metrics()


def test_dashboard_and_the_chart_s_files_are_made_from_one_place() -> None:
    for path, content in script(DEPLOY / "dashboard.py").files().items():
        assert path.read_text() == content, "run deploy/dashboard.py"


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts" / "sluiceway.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_operators_find_every_alert() -> None:
    document = (ROOT / "docs" / "operations.md").read_text()
    entries = re.findall(r"^### (Sluiceway\w+)\n\n(.*)$", document, re.MULTILINE)
    assert [name for name, _ in entries] == [rule["alert"] for rule in alerts()]
    assert {first for _, first in entries} == {"```"}, "each begins with what to type"


def test_operations_speak_of_metrics_that_exist() -> None:
    document = (ROOT / "docs" / "operations.md").read_text()
    families = {family.shown for family in (*EVERY_SERVER, *STAGES, *ORCHESTRATOR)}
    named = set(re.findall(r"`((?:sluiceway|rpc|http|hw)_[a-z_]+)`", document))
    assert len(named) > 10
    assert named <= families
