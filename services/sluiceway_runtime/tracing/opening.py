"""How traces are switched on."""

from __future__ import annotations

from collections.abc import Mapping

from sluiceway.telemetry import traces_wanted
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.tracing.tracer import Tracer

__all__ = ["open_tracer"]


def open_tracer(environment: Mapping[str, str], server: str, instance: str = "") -> Tracer | None:
    """Open traces, if the standard variables of OpenTelemetry ask for them.

    Args:
        environment: the variables.
        server: name of the server.
        instance: of the process.

    Raises:
        StartupError: they are asked for and cannot be had.
    """
    if not traces_wanted(environment):
        return None
    try:
        from sluiceway_runtime.tracing.otel import OtelTracer  # noqa: PLC0415 - not imported unless it is wanted
    except ModuleNotFoundError as error:
        raise StartupError(f"OTEL_* ask for traces, and {error.name} is missing: install sluiceway[otel]") from error
    try:
        return OtelTracer(environment, server, instance)
    except (LookupError, ValueError, RuntimeError) as error:
        raise StartupError(f"traces: {error}") from error
