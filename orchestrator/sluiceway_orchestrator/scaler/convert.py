"""Between KEDA's messages and readings."""

from __future__ import annotations

from sluiceway_orchestrator.scaler import external_scaler_pb2 as pb
from sluiceway_orchestrator.scaler.reading import Reading

__all__ = ["METRIC", "metric_answer", "own_answer", "own_reading", "own_request", "spec_answer", "target_ms_of"]

# The one metric that scales. Its value is of all replicas together: KEDA divides it by their number (AverageValue, the
# one kind that its fallback knows in every version).
METRIC = "wait-ms"
_ACTIVE, _REPLICAS = "active", "replicas"
DEFAULT_TARGET_MS = 250


def target_ms_of(metadata: dict[str, str]) -> int:
    """The wait that is aimed at. Raises ValueError."""
    target_ms = int(metadata.get("targetMs", DEFAULT_TARGET_MS))
    if target_ms < 1:
        raise ValueError(f"must be at least 1, not {target_ms}")
    return target_ms


def spec_answer(target_ms: int) -> pb.GetMetricSpecResponse:
    """What there is to scale by."""
    spec = pb.MetricSpec(metricName=METRIC, targetSize=target_ms, targetSizeFloat=target_ms)
    return pb.GetMetricSpecResponse(metricSpecs=[spec])


def metric_answer(reading: Reading) -> pb.GetMetricsResponse:
    """What KEDA divides by the replicas that there are, and compares with the target."""
    return pb.GetMetricsResponse(metricValues=[_value(METRIC, reading.wait_ms * max(1, reading.replicas))])


def own_request(stage: str) -> pb.GetMetricsRequest:
    """What one orchestrator asks another."""
    return pb.GetMetricsRequest(scaledObjectRef=pb.ScaledObjectRef(scalerMetadata={"stage": stage, "scope": "own"}))


def own_answer(reading: Reading) -> pb.GetMetricsResponse:
    """A reading as it is, for another orchestrator."""
    values = {METRIC: reading.wait_ms, _ACTIVE: int(reading.active), _REPLICAS: reading.replicas}
    return pb.GetMetricsResponse(metricValues=[_value(name, number) for name, number in values.items()])


def own_reading(answer: pb.GetMetricsResponse) -> Reading:
    """The other way around."""
    values = {item.metricName: item.metricValue for item in answer.metricValues}
    return Reading(values.get(METRIC, 0), values.get(_ACTIVE, 0) > 0, values.get(_REPLICAS, 0))


def _value(name: str, number: int) -> pb.MetricValue:
    return pb.MetricValue(metricName=name, metricValue=number, metricValueFloat=number)
