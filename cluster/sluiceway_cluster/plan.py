"""What the embedded cluster consists of, from the configuration and the machine; every fault found before a start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import load_apis, require_secrets
from sluiceway_orchestrator.plan import Pipeline
from sluiceway_runtime import cores, devices
from sluiceway_runtime.config import (
    HttpPortConfig,
    ModelsConfig,
    StageConfig,
    load_section,
    load_stages,
    read_file,
    require_known_variables,
)
from sluiceway_runtime.errors import ConfigurationError
from sluiceway_runtime.server.security import Security, SecurityConfig, load_security

from sluiceway_cluster.division import Division, StageLoad, divide
from sluiceway_cluster.pipelines import needed_pipelines
from sluiceway_cluster.placement import ORCHESTRATOR, PlacedServer, Written, place_servers, stage_targets, variable
from sluiceway_cluster.process import ServerSpec
from sluiceway_cluster.scaling import automatic_fronts, automatic_orchestrators, read_scale
from sluiceway_cluster.sharing import shares_of
from sluiceway_cluster.stages import ConfiguredStage, configured_stages, model_faults

__all__ = ["ClusterPlan", "plan_cluster"]

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What to start.

    Attributes:
        servers: the stages that some pipeline uses, then the orchestrator.
        addresses: of the orchestrators, for clients on this machine.
        weights: names of the registry that the servers will load.
        division: cores of the stages; None where the configuration or a CPU quota decides.
        auto_pull: whether missing weights may be downloaded before the start (`models.auto_pull`).
        encrypted: whether the servers show certificates.
        ca: the authorities that signed them, where the configuration names any.
        stages: those of `servers`, with their sections as configured.
        pipelines: those that are configured, and the default one.
        told: by stage, the variable that tells orchestrators where it is, and what it says; stages that the
            configuration has elsewhere are not here.
        max_deadline_s: how long a source may be under way.
        unused: stages that no pipeline uses; they are not started.
        json_logs: whether the orchestrator logs as JSON; who starts all of them then does likewise.
    """

    servers: tuple[ServerSpec, ...]
    addresses: tuple[str, ...]
    weights: tuple[str, ...]
    division: Division | None
    auto_pull: bool
    encrypted: bool
    ca: Path | None
    stages: tuple[ConfiguredStage, ...] = ()
    pipelines: tuple[Pipeline, ...] = ()
    unused: tuple[ConfiguredStage, ...] = ()
    json_logs: bool = False
    told: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    max_deadline_s: float = 300.0

    @property
    def address(self) -> str:
        """Of the first orchestrator."""
        return self.addresses[0]


@dataclass(frozen=True, slots=True)
class _Sections:
    """All that the configuration says."""

    stages: Mapping[str, ConfiguredStage]
    pipelines: tuple[Pipeline, ...]
    orchestrator: OrchestratorConfig
    models: ModelsConfig
    security: SecurityConfig


def plan_cluster(
    config: Path | None,
    environment: Mapping[str, str],
    *,
    free_ports: bool,
    overrides: Mapping[str, str] | None = None,
    scale: Sequence[str] = (),
    here: bool = True,
) -> ClusterPlan:
    """Read the configuration of all servers and divide the machine.

    Args:
        config: file; None takes `sluiceway.toml` of the working directory if there is one.
        environment: what the servers inherit; its `SLUICEWAY_…` variables count.
        free_ports: take ports that are free instead of the configured ones.
        overrides: variables that win over `environment`.
        scale: `NAME=NUMBER` of services to start so many servers of; `auto` for the others.
        here: whether the servers are to run on this machine, with its files and its environment.

    Raises:
        ConfigurationError: every fault of every section, one a line.
    """
    variables = {**environment, **(overrides or {})}
    tables = read_file(config)
    sections = _sections(tables, variables, here=here)
    used = {name for pipeline in sections.pipelines for name in pipeline.stages}
    stages = tuple(stage for stage in sections.stages.values() if stage.name in used)
    written = Written(tables, variables)
    gpus = _Gpus()
    division = _division(stages, gpus)
    replicas = read_scale(scale, _automatic(stages, gpus, division, alone=free_ports))
    servers = place_servers(stages, sections.orchestrator, written, free_ports=free_ports, replicas=replicas)
    shares = shares_of(stages, replicas, division, written, gpus={it.name: gpus.of(it.config) for it in stages})
    settings: dict[str, dict[str, str]] = {}
    for server in servers:
        own = settings[server.name] = {
            variable(server.section, "port"): str(server.port),
            variable(server.section, "operations_port"): str(server.operations_port),
            **shares[server.service].pop(0),
        }
        if not written.has(server.section, "drain_notice_s"):
            # There is no balancer in front that would have to notice first.
            own[variable(server.section, "drain_notice_s")] = "0"
        http = _http_of(server)
        if http.enabled and free_ports:
            # Two runs at a time must not meet on a public HTTP port; nobody was told of it either.
            own[variable(server.section, "http__enabled")] = "false"
        elif http.enabled and server.http_port != http.port:
            own[variable(server.section, "http__port")] = str(server.http_port)
    targets: dict[str, str] = {}
    for server in servers:
        targets[server.service] = ",".join(filter(None, (targets.get(server.service), server.target)))
    told = stage_targets(stages, targets, written)
    for server in servers:
        if server.service == ORCHESTRATOR:
            settings[server.name] |= dict(told.values())
    file = config or (Path("sluiceway.toml") if tables else None)
    return ClusterPlan(
        tuple(
            ServerSpec(
                server.name,
                server.module,
                server.target,
                (server.host, server.operations_port),
                variables | settings[server.name],
                file,
                server.config.drain_grace_s,
                server.arguments,
                None if free_ports or not _http_of(server).enabled else (_http_of(server).host, server.http_port),
                server.section,
            )
            for server in servers
        ),
        tuple(server.target for server in servers if server.service == ORCHESTRATOR),
        tuple(dict.fromkeys(name for stage in stages for name in stage.weights)),
        division,
        sections.models.auto_pull is not False,
        encrypted=sections.security.certificate is not None,
        ca=sections.security.ca,
        stages=stages,
        pipelines=sections.pipelines,
        unused=tuple(stage for stage in sections.stages.values() if stage.name not in used),
        json_logs=sections.orchestrator.log_format == "json",
        told=told,
        max_deadline_s=sections.orchestrator.max_deadline_s,
    )


def _http_of(server: PlacedServer) -> HttpPortConfig:
    """What is configured of its public HTTP port."""
    assert isinstance(server.config, OrchestratorConfig | StageConfig)
    return server.config.http


def _sections(tables: Mapping[str, Any], variables: Mapping[str, str], *, here: bool) -> _Sections:
    faults: list[str] = []

    def read(load: Callable[[], Loaded]) -> Loaded:
        try:
            return load()
        except ConfigurationError as error:
            faults.extend(str(error).splitlines())
            # Never looked at: the faults are raised first.
            return None  # type: ignore[return-value]

    def section(model: type[Any], name: str) -> Any:
        return read(lambda: load_section(model, name, tables=tables, environment=variables))

    def pipelines() -> tuple[Pipeline, ...]:
        # Nothing can be said of steps whose stages or APIs are faulty themselves.
        stages, apis = load_stages(tables, variables), load_apis(tables)
        return needed_pipelines(tables, variables, stages.values(), apis)

    sections = _Sections(
        read(lambda: configured_stages(tables, variables)),
        read(pipelines),
        section(OrchestratorConfig, ORCHESTRATOR),
        section(ModelsConfig, "models"),
        read(lambda: load_security(tables, variables)),
    )
    read(lambda: require_known_variables(variables, tables))
    if here:
        faults += model_faults(sections.stages or {})
        read(lambda: Security(sections.security, variables) if sections.security else None)
        read(lambda: require_secrets(load_apis(tables), variables))
    if faults:
        # Faults of stages and APIs are met more than once: others name them as well.
        raise ConfigurationError("\n".join(dict.fromkeys(faults)))
    return sections


def _automatic(
    stages: Sequence[ConfiguredStage], gpus: _Gpus, division: Division | None, *, alone: bool
) -> dict[str, int]:
    """How many servers of each service there are if nobody says; one of each where they are `alone` for a command."""
    if alone:
        return dict.fromkeys((*(stage.name for stage in stages), ORCHESTRATOR), 1)
    facts = cores.read_cpu_facts()
    usable = min(len(facts.allowed), facts.quota_cpus or len(facts.allowed))
    devices_of = {stage.name: len(gpus.of(stage.config)) for stage in stages}
    sharers = max(1, sum(map(bool, devices_of.values())))
    own = {name: len(division.cores[name]) if division else usable / sharers for name in devices_of}
    counts = {name: automatic_fronts(own[name], count) for name, count in devices_of.items()}
    return counts | {ORCHESTRATOR: automatic_orchestrators(usable, list(devices_of.values()))}


def _division(stages: Sequence[ConfiguredStage], gpus: _Gpus) -> Division | None:
    if not stages or any(stage.config.cores for stage in stages):
        return None
    facts = cores.read_cpu_facts()
    if facts.quota_cpus is not None and facts.quota_cpus < len(facts.allowed):
        # Under a shared quota nothing is pinned; each server caps its threads by the quota.
        return None
    near = sorted(facts.topology, key=lambda cpu: (cpu.node, cpu.package, cpu.core, cpu.cpu))
    loads = {stage.name: StageLoad(stage.cost_ms, bool(gpus.of(stage.config))) for stage in stages}
    return divide([cpu.cpu for cpu in near], loads)


class _Gpus:
    """Looks for GPUs at most once: that may take importing torch."""

    def __init__(self) -> None:
        self._cuda: devices.Cuda | None = None

    def of(self, section: StageConfig) -> tuple[str, ...]:
        """Those that a stage will compute on; none where it computes on the cores."""
        if section.device == "cpu":
            return ()
        cuda = self._cuda = self._cuda or devices.find_cuda()
        if not cuda.devices:
            return ()
        found = devices.resolve(section.device, find=lambda: cuda, least_free_bytes=devices.ROOMY_BYTES)
        return () if found == ("cpu",) else found
