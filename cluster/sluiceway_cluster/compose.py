"""The compose override of a configuration: what docker-compose.yml has for the default stages, for the named ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from sluiceway_detection.config import DetectionConfig
from sluiceway_recognition.config import RecognitionConfig

from sluiceway_cluster.placement import ORCHESTRATOR, variable
from sluiceway_cluster.plan import plan_cluster
from sluiceway_cluster.stages import ConfiguredStage

__all__ = ["override", "write_override"]

# Working directory of every server: a sluiceway.toml there is read without being named, and paths in it start there.
FOLDER = "/etc/sluiceway"
KINDS: Mapping[str, type[DetectionConfig | RecognitionConfig]] = {
    "detection": DetectionConfig,
    "recognition": RecognitionConfig,
}
# What every server in docker-compose.yml has; a test compares.
SERVER: Mapping[str, Any] = {
    "restart": "unless-stopped",
    "read_only": True,
    "tmpfs": ["/tmp:size=64m,mode=1777"],  # noqa: S108 - in the container, and its own
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "stop_grace_period": "30s",
    "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
}
PIDS_LIMIT = 512
# A mirror of it, or its digest, where the variable says so.
BASE_IMAGE = "${PYTHON_IMAGE:-python:3.11-slim-bookworm}"
HEAD = """\
# Made by `sluiceway compose` for {names}. Beside docker-compose.yml:
#
#   docker compose -f docker-compose.yml -f THIS_FILE up --build --detach --wait
#
# {upper}_CPUS and {upper}_MEMORY set the limits of {name}, likewise of the others.
"""


class _Override(dict[str, Any]):
    """A table that replaces the one of the file before, where compose would join them."""


class _Dumper(yaml.SafeDumper):
    """Knows compose's own tag, and writes a list under its key as docker-compose.yml does."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's
        super().increase_indent(flow, False)


_Dumper.add_representer(_Override, lambda dumper, data: dumper.represent_mapping("!override", data))


def write_override(config: Path, environment: Mapping[str, str], *, folder: Path) -> str:
    """Return the override as text.

    Args:
        config: the configuration file; it is mounted into every container.
        environment: variables that win over it.
        folder: where docker-compose.yml is; paths are written relative to it where they can be.

    Raises:
        ConfigurationError: every fault of the configuration, one a line.
    """
    plan = plan_cluster(config, environment, free_ports=False, here=False)
    named = [stage for stage in (*plan.stages, *plan.unused) if not stage.is_default]
    unused = [stage.name for stage in plan.unused if stage.is_default]
    content = override(named, unused, _mounted(config, folder))
    names = ", ".join(stage.name for stage in named)
    first = named[0].name if named else "detection"
    head = HEAD.format(names=names or "no stage but the default ones", upper=first.upper(), name=first)
    return head + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120)


def override(named: Sequence[ConfiguredStage], unused: Sequence[str], config: str) -> dict[str, Any]:
    """Return what compose has to add.

    Args:
        named: stages that docker-compose.yml does not have.
        unused: default stages that no pipeline uses, which are not to be started.
        config: the configuration file as compose finds it.
    """
    mount = f"{config}:{FOLDER}/sluiceway.toml:ro"
    services = {service_name(stage.name): _service(stage, mount) for stage in named}
    for name in KINDS:
        # A service of a profile that nobody asks for is not started.
        services[name] = {"profiles": ["unused"]} if name in unused else {"volumes": [mount]}
    waits = {service_name(stage.name): {"condition": "service_healthy"} for stage in named}
    if unused:
        default = {name: {"condition": "service_healthy"} for name in KINDS if name not in unused}
        waits = _Override({**default, **waits})
    services[ORCHESTRATOR] = {
        "environment": {
            variable(stage.entry.section, "target"): f"dns:///{service_name(stage.name)}:{_port(stage, 'port')}"
            for stage in named
        },
        "volumes": [mount],
        "depends_on": waits,
    }
    content: dict[str, Any] = {"services": services}
    if compiled := [stage for stage in named if _on_gpu(stage)]:
        content["volumes"] = {_volume(stage): None for stage in compiled}
    return content


def service_name(stage: str) -> str:
    """The name of a stage in DNS, which has no underscore."""
    return stage.replace("_", "-")


def _service(stage: ConfiguredStage, mount: str) -> dict[str, Any]:
    kind, section, upper = stage.entry.kind, stage.entry.section, stage.name.upper()
    target, build = _image(stage)
    settings = {"host": "0.0.0.0", "port": str(_port(stage, "port"))}  # noqa: S104 - its own network
    settings["operations_port"] = str(_port(stage, "operations_port"))
    settings["device"] = stage.config.device if _on_gpu(stage) else "cpu"
    suffix = f"-{service_name(stage.name)}" if build else ""
    version = f"${{SLUICEWAY_VERSION:-{metadata.version('sluiceway')}}}"
    models = f"{kind.upper()}_MODELS"
    service: dict[str, Any] = {
        **SERVER,
        "image": f"sluiceway/{target}{suffix}:{version}",
        # As docker-compose.yml builds the default stage, but for the weights that are in it.
        "build": {
            "context": ".",
            "dockerfile": "deploy/docker/Dockerfile",
            "target": target,
            "args": {"PYTHON_IMAGE": BASE_IMAGE, "VERSION": version, models: build or f"${{{models}:-}}"},
            "labels": {"org.opencontainers.image.revision": "${SLUICEWAY_REVISION:-unknown}"},
        },
        "command": ["--stage", stage.name],
        "environment": {
            "SLUICEWAY_SECURITY__ALLOW_UNAUTHENTICATED": "true",
            **{variable(section, key): value for key, value in settings.items()},
        },
        "volumes": [mount, *_weights_of_the_user(stage)],
        "cpus": f"${{{upper}_CPUS:-{'4.0' if _on_gpu(stage) else '1.0'}}}",
        "mem_limit": f"${{{upper}_MEMORY:-{'8g' if _on_gpu(stage) else '2g'}}}",
        "pids_limit": PIDS_LIMIT,
        "expose": [settings["port"], settings["operations_port"]],
    }
    if _on_gpu(stage):
        # Compilers want more room than servers do, and what they make is kept for the next start.
        service["tmpfs"] = ["/tmp:size=2g,mode=1777,exec"]  # noqa: S108
        service["volumes"] += [f"{_volume(stage)}:/opt/sluiceway/weights/gpu"]
        device = {"driver": "nvidia", "count": f"${{{upper}_GPUS:-1}}", "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    return service


def _image(stage: ConfiguredStage) -> tuple[str, str]:
    """Target of the Dockerfile, and the weights that are built in where those are not its default ones."""
    kind = stage.entry.kind
    on_cpu = {"detection": "detection", "recognition": "recognition-cpu"}[kind]
    default = ConfiguredStage(stage.entry, KINDS[kind]())
    own = stage.weights if set(stage.weights) - set(default.weights) else ()
    return f"{kind}-gpu" if _on_gpu(stage) else on_cpu, " ".join(own)


def _weights_of_the_user(stage: ConfiguredStage) -> list[str]:
    """Mount files that the configuration names, so that their paths lead to the same in the container."""
    found = []
    for name in stage.models:
        if name in stage.weights:
            continue
        path = Path(name)
        found.append(f"{path}:{path}:ro" if path.is_absolute() else f"./{path}:{FOLDER}/{path}:ro")
    return found


def _mounted(path: Path, folder: Path) -> str:
    absolute = path.resolve()
    return f"./{absolute.relative_to(folder.resolve())}" if absolute.is_relative_to(folder.resolve()) else str(absolute)


def _port(stage: ConfiguredStage, key: str) -> int:
    """The kind's default: each container has ports of its own, and the image is probed at that one."""
    return int(KINDS[stage.entry.kind].model_fields[key].default)


def _on_gpu(stage: ConfiguredStage) -> bool:
    return stage.config.device.startswith("cuda")


def _volume(stage: ConfiguredStage) -> str:
    return f"compiled-{service_name(stage.name)}"
