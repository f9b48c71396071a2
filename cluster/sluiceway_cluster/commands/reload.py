"""`sluiceway reload`: have the `sluiceway up` of this machine take up new weights, without losing a request."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from sluiceway.cli.embedded import Changes
from sluiceway.cli.options import ConfigOption, SetOption
from sluiceway.cli.requirements import require_servers
from sluiceway.cli.terminal import EXIT_FAILED, errors, fail

__all__ = ["reload"]


def reload(
    stages: Annotated[
        list[str] | None, typer.Argument(metavar="[STAGE]...", help="Those to replace; all, if none is named.")
    ] = None,
    *,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Have `sluiceway up` take up new weights and the changed configuration of stages, without losing a request.

    New servers are started beside those that run, while those go on; then they answer in their place, and the old ones
    end when nothing that they have begun is left. Each image is answered by one version of a stage. If a new server
    cannot start, this says why, ends with exit code 1, and nothing has changed.

    While both run they share the stage's cores, and take the memory of both. Name stages to replace them one after the
    other. What the configuration says of the orchestrator, pipelines and ports is taken up by a restart of `up`.

    `up` reads its own configuration anew, with the options that it was started with. This one looks only for the port
    of the orchestrator (--config, --set orchestrator.port=...), by which it finds it on this machine.

    [dim]Examples:[/]

    [dim]sluiceway reload[/]

    [dim]sluiceway reload detection --config /etc/sluiceway.toml[/]
    """
    require_servers("reload")
    from sluiceway_orchestrator.config import OrchestratorConfig  # noqa: PLC0415 - not there for a client alone
    from sluiceway_runtime.config import load_section, read_file  # noqa: PLC0415

    from sluiceway_cluster.commands.changes import as_variables  # noqa: PLC0415
    from sluiceway_cluster.reload import NobodyThere, ask  # noqa: PLC0415

    variables = {**os.environ, **as_variables(Changes(tuple(settings or ())), config, os.environ)}
    port = load_section(OrchestratorConfig, "orchestrator", tables=read_file(config), environment=variables).port
    try:
        for text in ask(str(port), stages or ()):
            errors.print(text, markup=False, soft_wrap=True)
    except NobodyThere:
        fail(f"no `sluiceway up` of yours runs here with its orchestrator at port {port}", EXIT_FAILED)
    errors.print("done", style="bold")
