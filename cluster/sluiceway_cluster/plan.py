"""What the embedded cluster consists of, from the configuration and the machine; every fault found before a start."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluiceway_detection.config import DetectionConfig
from sluiceway_orchestrator.config import OrchestratorConfig, load_apis
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_runtime import cores, devices, weights
from sluiceway_runtime.config import (
    ModelsConfig,
    ServerConfig,
    StageConfig,
    load_section,
    read_file,
    require_known_variables,
)
from sluiceway_runtime.errors import ConfigurationError
from sluiceway_runtime.server.security import SecurityConfig

from sluiceway_cluster.division import WORDS_PER_IMAGE, Division, StageLoad, divide, format_cores
from sluiceway_cluster.process import ServerSpec

__all__ = ["ClusterPlan", "plan_cluster"]

# For weights that the registry does not know: what a small detector and a small recogniser cost.
DEFAULT_DETECTION_MS, DEFAULT_WORD_MS = 57.0, 0.5
STAGES = ("detection", "recognition")


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What to start.

    Attributes:
        servers: detection, recognition, orchestrator.
        address: of the orchestrator, for clients on this machine.
        weights: names of the registry that the servers will load.
        division: cores of the stages; None where the configuration or a CPU quota decides.
        auto_pull: whether missing weights may be downloaded before the start (`models.auto_pull`).
        encrypted: whether the servers show certificates.
        ca: the authorities that signed them, where the configuration names any.
    """

    servers: tuple[ServerSpec, ...]
    address: str
    weights: tuple[str, ...]
    division: Division | None
    auto_pull: bool
    encrypted: bool
    ca: Path | None


def plan_cluster(
    config: Path | None, environment: Mapping[str, str], *, free_ports: bool, overrides: Mapping[str, str] | None = None
) -> ClusterPlan:
    """Read the configuration of all servers and divide the machine.

    Args:
        config: file; None takes `sluiceway.toml` of the working directory if there is one.
        environment: what the servers inherit; its `SLUICEWAY_…` variables count.
        free_ports: take ports that are free instead of the configured ones.
        overrides: variables that win over `environment`.

    Raises:
        ConfigurationError: every fault of every section, one a line.
    """
    variables = {**environment, **(overrides or {})}
    tables = read_file(config)
    detection, recognition, orchestrator, models, security = _sections(tables, variables)
    ports = _Ports(free=free_ports)
    division = _division(detection, recognition)
    addresses = {
        name: (_reachable(section.host), ports.take(section.port), ports.take(section.operations_port))
        for name, section in (("detection", detection), ("recognition", recognition), ("orchestrator", orchestrator))
    }
    targets = {name: _target(host, port) for name, (host, port, _) in addresses.items()}
    settings: dict[str, dict[str, str]] = {name: {} for name in addresses}
    for name, (_, port, operations_port) in addresses.items():
        settings[name] |= {"port": str(port), "operations_port": str(operations_port)}
        if not _configured(tables, variables, name, "drain_notice_s"):
            # There is no balancer in front that would have to notice first.
            settings[name]["drain_notice_s"] = "0"
    if free_ports:
        # Two runs at a time must not meet on the public HTTP port; nobody was told of it either.
        settings["orchestrator"]["http__enabled"] = "false"
    for name in STAGES:
        if division:
            settings[name]["cores"] = format_cores(getattr(division, name))
        if not _configured(tables, variables, "orchestrator", name):
            settings["orchestrator"][name] = targets[name]
    file = config or (Path("sluiceway.toml") if tables else None)
    modules = {
        "detection": "sluiceway_detection", "recognition": "sluiceway_recognition",
        "orchestrator": "sluiceway_orchestrator",
    }  # fmt: skip
    sections: dict[str, ServerConfig] = {
        "detection": detection, "recognition": recognition, "orchestrator": orchestrator
    }  # fmt: skip
    servers = tuple(
        ServerSpec(
            name,
            modules[name],
            targets[name],
            (addresses[name][0], addresses[name][2]),
            variables | {f"SLUICEWAY_{name}__{key}".upper(): value for key, value in settings[name].items()},
            file,
            section.drain_grace_s,
        )
        for name, section in sections.items()
    )
    return ClusterPlan(
        servers,
        targets["orchestrator"],
        _weights(detection, recognition),
        division,
        models.auto_pull is not False,
        encrypted=security.certificate is not None,
        ca=security.ca,
    )


def _sections(
    tables: Mapping[str, Any], variables: Mapping[str, str]
) -> tuple[DetectionConfig, RecognitionConfig, OrchestratorConfig, ModelsConfig, SecurityConfig]:
    faults: list[str] = []

    def load(model: type[Any], name: str) -> Any:
        try:
            return load_section(model, name, tables=tables, environment=variables)
        except ConfigurationError as error:
            faults.append(str(error))

    sections = (
        load(DetectionConfig, "detection"),
        load(RecognitionConfig, "recognition"),
        load(OrchestratorConfig, "orchestrator"),
        load(ModelsConfig, "models"),
        load(SecurityConfig, "security"),
    )
    for check in (lambda: load_apis(tables), lambda: require_known_variables(variables)):
        try:
            check()
        except ConfigurationError as error:
            faults.append(str(error))
    if faults:
        raise ConfigurationError("\n".join(faults))
    return sections


def _configured(tables: Mapping[str, Any], variables: Mapping[str, str], section: str, key: str) -> bool:
    return key in tables.get(section, {}) or f"SLUICEWAY_{section}__{key}".upper() in variables


def _division(detection: DetectionConfig, recognition: RecognitionConfig) -> Division | None:
    if detection.cores or recognition.cores:
        return None
    facts = cores.read_cpu_facts()
    if facts.quota_cpus is not None and facts.quota_cpus < len(facts.allowed):
        # Under a shared quota nothing is pinned; each server caps its threads by the quota.
        return None
    near = sorted(facts.topology, key=lambda cpu: (cpu.node, cpu.package, cpu.core, cpu.cpu))
    detection_ms = _cost_ms(_detection_weights(detection), DEFAULT_DETECTION_MS)
    word_ms = max(
        (_cost_ms(name, DEFAULT_WORD_MS) for name in _recognition_weights(recognition)), default=DEFAULT_WORD_MS
    )
    on_gpu = _StagesOnGpu()
    return divide(
        [cpu.cpu for cpu in near],
        StageLoad(detection_ms, on_gpu.asks(detection)),
        StageLoad(word_ms * WORDS_PER_IMAGE, on_gpu.asks(recognition)),
    )


class _StagesOnGpu:
    """Looks for a GPU at most once: that may take importing torch."""

    def __init__(self) -> None:
        self._devices: int | None = None

    def asks(self, section: StageConfig) -> bool:
        if section.device == "cpu":
            return False
        if self._devices is None:
            self._devices = devices.find_cuda().devices
        return self._devices > 0


def _cost_ms(name: str, default: float) -> float:
    entry = weights.load_registry().models.get(name)
    return entry.cost_ms if entry and entry.cost_ms else default


def _detection_weights(section: DetectionConfig) -> str:
    return section.model


def _recognition_weights(section: RecognitionConfig) -> list[str]:
    return [model.weights or model.name for model in section.models if model.recognizer is None]


def _weights(detection: DetectionConfig, recognition: RecognitionConfig) -> tuple[str, ...]:
    named = [] if detection.detector else [_detection_weights(detection)]
    named += _recognition_weights(recognition)
    return tuple(name for name in dict.fromkeys(named) if name in weights.load_registry().models)


def _reachable(host: str) -> str:
    """Where a server that listens on every address is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on


def _target(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Ports:
    """Hands out ports: as configured, or free ones.

    Free ports stay reserved by a bound socket until all are found, so that no two servers get the same.
    """

    def __init__(self, *, free: bool) -> None:
        self._free = free
        self._held: list[socket.socket] = []

    def take(self, configured: int) -> int:
        if not self._free and configured != 0:
            return configured
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        self._held.append(held)
        return int(held.getsockname()[1])

    def __del__(self) -> None:
        for held in self._held:
            held.close()
