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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sluiceway_runtime.config import ModelsConfig, ServerConfig, load_section, read_file, require_known_variables
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.logs import LogStyle, configure_logging
from sluiceway_runtime.server.app import Server, Service
from sluiceway_runtime.server.memory import keep_freed_memory, settle
from sluiceway_runtime.server.security import Security, SecurityConfig

__all__ = ["Installation", "run_service"]

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=ServerConfig)

# Set by `sluiceway up`: the reading end of a pipe that nobody writes to, which ends when the parent does.
PARENT_PIPE = "SLUICEWAY_PARENT_PIPE"
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_SECOND_SIGNAL = 0, 1, 2, 130


@dataclass(frozen=True)
class Installation:
    """What a service may need beyond its own section.

    Attributes:
        tables: the configuration file as it is (the orchestrator reads `api`).
        security: who may call, and what to show to others.
        environment: for values that are named by variable, such as the secrets of an API.
    """

    tables: Mapping[str, Any]
    security: Security
    environment: Mapping[str, str]

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
        section: name of its section in the configuration.
        model: the section's model.
        build: makes the service from its section and what the installation has besides.
        argv: arguments; by default those of the process.

    Exit codes: 0 stopped cleanly, 1 failed or did not drain in time, 2 wrong configuration or usage.
    """
    parser = argparse.ArgumentParser(prog=f"sluiceway serve {section}", description=f"The {section} server.")
    parser.add_argument("--config", type=Path, help="configuration file (default: ./sluiceway.toml if there is one)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set one key of the section")
    arguments = parser.parse_args(argv)
    try:
        overrides = dict(item.split("=", 1) for item in arguments.set)
    except ValueError:
        parser.error("--set wants KEY=VALUE")
    try:
        require_known_variables(os.environ)
        tables = read_file(arguments.config)
        config = load_section(model, section, tables=tables, environment=os.environ, overrides=overrides)
        configure_logging(LogStyle(section, config.log_level, config.log_format))
        security = Security(load_section(SecurityConfig, "security", tables=tables, environment=os.environ), os.environ)
        security.require_safe(section, config.host)
        keep_freed_memory()
        service = build(config, Installation(tables, security, os.environ))
    except StartupError as error:
        print(f"sluiceway {section}: {error}", file=sys.stderr)  # noqa: T201 - logging may not be set up yet
        sys.exit(EXIT_USAGE)
    with asyncio.Runner() as runner:
        code = runner.run(_run(Server(service, config, security, section)))
        # All is released. An ordinary exit would wait for threads that nothing can interrupt: one that fetches weights
        # for an abandoned start, or asks for a name that nobody resolves. What code of users left for the end is done.
        atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way to do this without waiting for threads
        sys.stdout.flush()
        os._exit(code)


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
    await stopping
    return EXIT_OK if await server.stop() else EXIT_FAILED


def _install_signals(stop: asyncio.Event) -> None:
    def handle() -> None:
        if stop.is_set():
            # The operator insists. Workers end by themselves when this process does.
            os._exit(EXIT_SECOND_SIGNAL)
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
