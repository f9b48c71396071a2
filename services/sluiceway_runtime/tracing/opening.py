"""How traces are switched on."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sluiceway.telemetry import traces_wanted
from sluiceway_runtime.tracing.tracer import Tracer

__all__ = ["open_tracer"]

log = logging.getLogger(__name__)


def open_tracer(environment: Mapping[str, str], server: str, instance: str = "") -> Tracer | None:
    """Open traces, if the standard variables of OpenTelemetry ask for them.

    The variables are not Sluiceway's own, and may be there for other programs: where traces cannot be had, the server
    says so and runs without.

    Args:
        environment: the variables.
        server: name of the server.
        instance: of the process.
    """
    if not traces_wanted(environment):
        return None
    try:
        from sluiceway_runtime.tracing.otel import OtelTracer  # noqa: PLC0415 - not imported unless it is wanted

        return OtelTracer(environment, server, instance)
    except ModuleNotFoundError as error:
        log.warning("no traces: OTEL_* ask for them, and %s is missing (install sluiceway[otel])", error.name)
    except Exception as error:  # exporters of anybody raise what they like
        log.warning("no traces: %s", error)
    return None
