"""OpenTelemetry where it is wanted, by its own standard variables; the one module that sets its SDK up.

Nothing of it is imported where nothing asks for it. `pip install sluiceway[otel]` brings it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

__all__ = ["make_exporter", "make_resource", "traces_wanted"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# Names of exporters, as OpenTelemetry's own packages register them.
_BY_PROTOCOL = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc", "http/json": "otlp_json_http"}
_GROUP = "opentelemetry_traces_exporter"


def traces_wanted(environment: Mapping[str, str]) -> bool:
    """Whether variables ask for traces: an exporter is named, or where to send them."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    named = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    return named != "none" if named else any(environment.get(name) for name in _ENDPOINTS)


def make_exporter(environment: Mapping[str, str]) -> Any:
    """Make the exporter that variables name; it reads the others itself.

    Raises:
        LookupError: there is none of this name.
    """
    name = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name == "otlp":
        protocol = next((found for key in _PROTOCOLS if (found := environment.get(key, "").strip())), "http/protobuf")
        if protocol not in _BY_PROTOCOL:
            raise LookupError(f"OTEL_EXPORTER_OTLP_PROTOCOL is one of {', '.join(_BY_PROTOCOL)}, not {protocol}")
        name = _BY_PROTOCOL[protocol]
    entry = next(iter(metadata.entry_points(group=_GROUP, name=name)), None)
    if entry is None:
        known = ", ".join(sorted(found.name for found in metadata.entry_points(group=_GROUP)))
        raise LookupError(f"no exporter of traces is called {name}; installed are {known or 'none'}")
    return entry.load()()


def make_resource(environment: Mapping[str, str], service: str, instance: str = "") -> Any:
    """Say who sends: as variables have it, else by this name."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - not imported unless it is wanted

    said = environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {"service.version": metadata.version("sluiceway")}
    if not environment.get("OTEL_SERVICE_NAME") and "service.name=" not in said:
        own["service.name"] = service
    if instance and "service.instance.id=" not in said:
        own["service.instance.id"] = instance
    return Resource.create(own)
