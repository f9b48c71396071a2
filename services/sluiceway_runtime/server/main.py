"""The command line of a server process: `python -m sluiceway_detection --config sluiceway.toml`.

The only module of the runtime that reads the environment and installs signal handlers.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sluiceway_runtime.config import (
    STAGE_KINDS,
    ModelsConfig,
    ServerConfig,
    StageEntry,
    load_section,
    load_stages,
    read_file,
    require_known_variables,
)
from sluiceway_runtime.errors import ConfigurationError, StartupError
from sluiceway_runtime.logs import LogStyle, capture_output, configure_logging
from sluiceway_runtime.recorder import Recorder
from sluiceway_runtime.server.app import Server, Service
from sluiceway_runtime.server.listening import SharedPorts
from sluiceway_runtime.server.memory import give_back_freed, keep_freed_memory, settle
from sluiceway_runtime.server.security import Security, load_security
from sluiceway_runtime.tracing import Tracer, open_tracer

__all__ = ["Installation", "run_service"]

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=ServerConfig)

# Set by `sluiceway up`: the reading end of a pipe that nobody writes to, which ends when the parent does.
PARENT_PIPE = "SLUICEWAY_PARENT_PIPE"
# Likewise: the ports that a server may share with one that it replaces, or that replaces it.
SHARED_PORTS = "SLUICEWAY_SHARED_PORTS"
# For the last of the traces, once everything else is released.
TRACES_CLOSE_S = 3.0
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_SECOND_SIGNAL = 0, 1, 2, 130


@dataclass(frozen=True)
class Installation:
    """What a service may need beyond its own section.

    Attributes:
        tables: the configuration file as it is (the orchestrator reads `api`).
        security: who may call, and what to show to others.
        environment: for values that are named by variable, such as the secrets of an API.
        stage: name of the stage that is served, by which logs and metrics know it; empty for the orchestrator.
        shares_ports: whether a server that replaces this one may listen where it does.
    """

    tables: Mapping[str, Any]
    security: Security
    environment: Mapping[str, str]
    stage: str = ""
    shares_ports: bool = False

    @property
    def stages(self) -> dict[str, StageEntry]:
        """Every stage of the installation by name.

        Raises:
            ConfigurationError: one is faulty.
        """
        return load_stages(self.tables, self.environment)

    @property
    def models(self) -> ModelsConfig:
        """The `[models]` section.

        Raises:
            ConfigurationError: it is faulty.
        """
        return load_section(ModelsConfig, "models", tables=self.tables, environment=self.environment)


def run_service(
    section: str,
    model: type[Config],
    build: Callable[[Config, Installation], Service],
    argv: list[str] | None = None,
) -> NoReturn:
    """Run one server until it is told to stop, and exit the process.

    Args:
        section: name of its section in the configuration; of a stage also its kind, which further stages may have.
        model: the section's model.
        build: makes the service from its section and what the installation has besides.
        argv: arguments; by default those of the process.

    Exit codes: 0 stopped cleanly, 1 failed or did not drain in time, 2 wrong configuration or usage.
    """
    parser = argparse.ArgumentParser(prog=f"sluiceway serve {section}", description=f"The {section} server.")
    parser.add_argument("--config", type=Path, help="configuration file (default: ./sluiceway.toml if there is one)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set one key of the section")
    if section in STAGE_KINDS:
        parser.add_argument(
            "--stage",
            default=section,
            metavar="NAME",
            help=f"serve [stages.NAME] in place of [{section}]",
        )
    arguments = parser.parse_args(argv)
    name = arguments.stage if section in STAGE_KINDS else section
    try:
        overrides = dict(item.split("=", 1) for item in arguments.set)
    except ValueError:
        parser.error("--set wants KEY=VALUE")
    try:
        tables = read_file(arguments.config)
        require_known_variables(os.environ, tables)
        own = _section_of(name, section, load_stages(tables, os.environ))
        config = load_section(model, own, tables=tables, environment=os.environ, overrides=overrides)
        style = LogStyle(name, config.log_level, config.log_format)
        (capture_output if style.format == "json" else configure_logging)(style)
        security = Security(load_security(tables, os.environ), os.environ)
        security.require_safe(name, config.host)
        keep_freed_memory()
        recorder = Recorder(config.remember_requests)
        tracer = open_tracer(os.environ, name, recorder.instance)
        shared = SharedPorts.parse(os.environ[SHARED_PORTS]) if SHARED_PORTS in os.environ else None
        stage = name if section in STAGE_KINDS else ""
        service = build(
            config, Installation(tables, security, os.environ, stage=stage, shares_ports=shared is not None)
        )
    except StartupError as error:
        print(f"sluiceway {name}: {error}", file=sys.stderr)  # noqa: T201 - logging may not be set up yet
        sys.exit(EXIT_USAGE)
    with asyncio.Runner() as runner:
        server = Server(service, config, security, name, recorder=recorder, tracer=tracer, shared=shared)
        code = runner.run(_run(server))
        if tracer is not None:
            runner.run(_close(tracer))
        # All is released. An ordinary exit would wait for threads that nothing can interrupt: one that fetches weights
        # for an abandoned start, or asks for a name that nobody resolves. What code of users left for the end is done.
        atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way to do this without waiting for threads
        sys.stdout.flush()
        os._exit(code)


def _section_of(name: str, program: str, stages: Mapping[str, StageEntry]) -> str:
    """The section of the server that is called so.

    Raises:
        ConfigurationError: no stage is, or this is not the program for it.
    """
    if program not in STAGE_KINDS:
        return name
    if name not in stages:
        raise ConfigurationError(f"stages.{name}: is not configured; there are {', '.join(stages)}")
    entry = stages[name]
    if entry.kind != program:
        raise ConfigurationError(f"{entry.section}.kind: is {entry.kind}, and this server is for {program}")
    return entry.section


async def _close(tracer: Tracer) -> None:
    """Send what is left of traces, to a collector that may not answer."""
    closing = threading.Thread(target=tracer.close, daemon=True)
    closing.start()
    await asyncio.to_thread(closing.join, TRACES_CLOSE_S)


async def _run(server: Server) -> int:
    stop = asyncio.Event()
    _install_signals(stop)
    _watch_parent(stop)
    starting = asyncio.create_task(server.start(), name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait((starting,))
            await server.close()
            return EXIT_OK
        starting.result()
    except StartupError as error:
        log.error("%s", error)  # noqa: TRY400 - the operator needs the message, not the traceback
        await server.close()
        return EXIT_FAILED
    except Exception:
        log.exception("could not start")
        await server.close()
        return EXIT_FAILED
    settle()
    give_back_freed(server.budget)
    await stopping
    return EXIT_OK if await server.stop() else EXIT_FAILED


def _install_signals(stop: asyncio.Event) -> None:
    told = False

    def handle() -> None:
        nonlocal told
        if told:
            # The operator insists. Workers end by themselves when this process does.
            os._exit(EXIT_SECOND_SIGNAL)
        # It may be draining already as its parent is gone, which nobody who sends signals knows of.
        told = True
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)


def _watch_parent(stop: asyncio.Event) -> None:
    if text := os.environ.get(PARENT_PIPE):
        descriptor = int(text)
        os.set_inheritable(descriptor, False)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(descriptor)
            log.warning("the process that started this server is gone")
            stop.set()

        loop.add_reader(descriptor, ended)
