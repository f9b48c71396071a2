"""`sluiceway up`: the whole cluster on this machine, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from sluiceway.cli.embedded import Changes
from sluiceway.cli.options import ConfigOption, ModelOption, SetOption, WorkersOption
from sluiceway.cli.terminal import EXIT_FAILED, errors
from sluiceway_cluster.commands.embedded import embedded_cluster, plan_and_pull

if TYPE_CHECKING:
    from sluiceway_cluster import ClusterPlan
    from sluiceway_cluster.reload.reloading import Reloading, Tell

__all__ = ["up"]

log = logging.getLogger(__name__)


def up(
    config: ConfigOption = None,
    *,
    settings: SetOption = None,
    model: ModelOption = None,
    workers: WorkersOption = None,
    scale: Annotated[
        list[str] | None,
        typer.Option("--scale", metavar="NAME=NUMBER", help="Start so many servers of a service."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show what the servers log.")] = False,
) -> None:
    """Run the whole cluster on this machine: the stages and the orchestrator, each its own server process.

    Without pipelines in the configuration the stages are detection and recognition, else those that a pipeline uses.
    The machine's cores are divided between them. A server that dies is started again. Ctrl-C finishes what is
    running and stops everything; a second Ctrl-C stops at once. `sluiceway reload` takes up new weights and a changed
    configuration of stages; so does SIGHUP where there is no terminal.

    Several servers of a stage share its cores, and every orchestrator uses all of them. Each orchestrator has an
    address of its own.

    [dim]Examples:[/]

    [dim]sluiceway up, and in another terminal: sluiceway run photo.jpg --address localhost:50051[/]

    [dim]sluiceway up --model text-small --workers 2 --set orchestrator.http.port=8081[/]
    """
    changes = Changes(tuple(settings or ()), tuple(model or ()), workers)

    def plan_now() -> ClusterPlan:
        return plan_and_pull("up", config, changes, free_ports=False, scale=scale or ())

    plan = plan_now()
    if plan.json_logs:
        _log_as_json()
    asyncio.run(_up(plan, plan_now, show_logs=not quiet))


def _log_as_json() -> None:
    """Whoever collects the servers' lines collects ours with them."""
    from sluiceway_runtime.logs import LogStyle, configure_logging  # noqa: PLC0415 - not in a client-only installation

    configure_logging(LogStyle("up", format="json"))


async def _up(plan: ClusterPlan, plan_anew: Callable[[], ClusterPlan], *, show_logs: bool) -> None:
    from sluiceway_cluster import ClusterError  # noqa: PLC0415
    from sluiceway_cluster.reload import AddressFiles, Reloading, controlled, replaceable  # noqa: PLC0415

    try:
        with AddressFiles(plan.told) as files:
            plan = replace(plan, servers=files.looked_into(replaceable(plan.servers)))
            async with embedded_cluster(plan, show_logs=show_logs) as cluster:
                reloading = Reloading(cluster, plan, files, plan_anew)
                async with controlled(plan.address.rpartition(":")[2], partial(_reload, plan, reloading)):
                    with _reloaded_by_signal(partial(_reload, plan, reloading, (), lambda _: None)):
                        _announce(plan)
                        await cluster.watch()
    except asyncio.CancelledError:
        # Somebody asked for it: that is how `up` is meant to end.
        _tell(plan, "stopped")
    except ClusterError as error:
        if not plan.json_logs:
            raise
        log.error("%s", error)  # noqa: TRY400 - its words say all there is
        raise SystemExit(EXIT_FAILED) from None


async def _reload(plan: ClusterPlan, reloading: Reloading, stages: Sequence[str], tell: Tell) -> None:
    """Reload, and say here as well what becomes of it."""

    def tell_both(text: str) -> None:
        _tell(plan, f"reload: {text}")
        tell(text)

    try:
        await reloading.reload(stages, tell_both)
    except Exception as error:
        _tell(plan, f"reload: nothing has changed: {error}", "red")
        raise
    _tell(plan, "reload: done")


@contextmanager
def _reloaded_by_signal(reload: Callable[[], Coroutine[None, None, None]]) -> Iterator[None]:
    """Where no terminal could have sent SIGHUP as it was closed, the signal means what it does to other servers."""
    if _has_terminal():
        yield
        return
    tasks: set[asyncio.Task[None]] = set()

    def begin() -> None:
        task = asyncio.create_task(reload(), name="reload")
        tasks.add(task)
        task.add_done_callback(ended)

    def ended(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled():
            # It was told already.
            task.exception()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, begin)
    try:
        yield
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        for task in tasks:
            task.cancel()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _announce(plan: ClusterPlan) -> None:
    if plan.division and not plan.division.shared:
        shares = (f"{name} has {len(cores)}" for name, cores in plan.division.cores.items())
        _tell(plan, f"cores: {', '.join(shares)}", "dim")
    _tell(plan, f"ready on {', '.join(plan.addresses)}; Ctrl-C stops it", "bold")
    _tell(plan, f"try: sluiceway run photo.jpg --address {plan.address}", "dim")


def _tell(plan: ClusterPlan, text: str, style: str | None = None) -> None:
    if plan.json_logs:
        log.info("%s", text)
    else:
        errors.print(text, style=style)
