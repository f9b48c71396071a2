"""Stages in a real cluster that are scaled by their own metric, and how soon a new pod works."""

from __future__ import annotations

import json
import os
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes_release import NAMESPACE, Release, kubectl

Report = Callable[[str], None]
Until = Callable[..., float]

METRIC = "sluiceway_detection_queue_seconds"
CLIENTS = 8
TARGET_S = 0.25
# So long a steady load must leave the number of pods as it is.
STEADY_S = 180.0
# From when the number of pods was raised, with a core for the new one.
FIRST_WORK_S = 15.0


def prometheus(query: str) -> str:
    """Path on the API server of a query's answer."""
    path = f"/api/v1/namespaces/{NAMESPACE}/services/prometheus:9090/proxy/api/v1/query"
    return f"{path}?query={urllib.parse.quote(query)}"


def answer_metric(query: str) -> None:
    """Let the external metric be what Prometheus in this namespace answers to the chart's query."""
    file = os.environ.get("EXTERNAL_METRICS")
    if file:
        Path(file).write_text(json.dumps({METRIC: prometheus(query)}))


def wanted_for(release: Release, seconds: float) -> set[int]:
    """How many pods of detection were asked for during this time."""
    end_s, found = time.monotonic() + seconds, set()
    while time.monotonic() < end_s:
        replicas = kubectl("get", "deployment", release.named("detection"), "--output=jsonpath={.spec.replicas}")
        found.add(int(replicas))
        time.sleep(0.5)
    return found


@pytest.mark.parametrize("component", ["detection", "recognition"])
def test_a_new_pod_works_soon_after_it_was_decided_on(
    release: Release, component: str, report: Report, until: Until
) -> None:
    """The decision is a number that is raised, as an autoscaler raises it, under a load that leaves a core free."""
    release.upgrade(f"{component}.resources.limits.cpu=1")
    until("one pod", lambda: len(release.pods(component)) == len(release.ready(component)) == 1, 120)

    def addresses() -> dict[str, int]:
        found: dict[str, int] = {}
        for pod in release.ready("orchestrator"):
            for replica in json.loads(release.operations(pod, "statusz"))["stages"][component]["replicas"]:
                found[replica["address"]] = found.get(replica["address"], 0) + replica["sent"]
        return found

    with release.load(clients=1) as ledger:
        until("results", lambda: ledger.done >= 4, 120)
        old = set(addresses())
        kubectl("scale", "deployment", release.named(component), "--replicas=2")
        begin = time.monotonic()
        until("its first work", lambda: any(sent for at, sent in addresses().items() if at not in old), 120, 0.1)
        took_s = time.monotonic() - begin
    report(f"kubernetes: a new pod of {component} had its first work {took_s:.1f} s after it was decided on")
    assert ledger.failures == []
    assert took_s <= FIRST_WORK_S


def test_scaled_by_its_own_queue_time(release: Release, report: Report, until: Until) -> None:
    release.upgrade()
    until("one pod", lambda: len(release.pods("detection")) == len(release.ready("detection")) == 1, 120)
    with release.load(CLIENTS) as ledger:
        until("results of one pod", lambda: len(ledger.lines) >= 20 and ledger.done >= 10, 180)
        alone = ledger.rate(15)
    release.upgrade("detection.autoscaling.enabled=true")
    scaler = json.loads(kubectl("get", "hpa", release.named("detection"), "-o", "json"))
    query = scaler["metadata"]["annotations"]["sluiceway.dev/query"]
    answer_metric(query)

    def queue_s() -> float:
        [series] = json.loads(kubectl("get", "--raw", prometheus(query)))["data"]["result"]
        return float(series["value"][1])

    assert len(release.ready("detection")) == 1
    begin = time.monotonic()

    def note(event: str, rate: float = 0.0) -> None:
        report(
            f"kubernetes: {time.monotonic() - begin:4.0f} s  {event}: queue time {queue_s():.2f} s, "
            f"{len(release.ready('detection'))} pods, {rate:.1f} images/s"
        )

    note("before the load")
    with release.load(CLIENTS) as ledger:
        crossed_s = until("the target crossed", lambda: queue_s() > TARGET_S, 60, 0.2)
        report(
            f"kubernetes: the metric crossed its target {crossed_s:.1f} s after the load began, as Prometheus saw it"
        )
        until("2 pods", lambda: len(release.ready("detection")) >= 2, 240, 1)
        note("load", ledger.rate(5))
        until("3 pods", lambda: len(release.ready("detection")) == 3, 240, 1)
        note("load", ledger.rate(5))
        wanted = wanted_for(release, STEADY_S)
        note("load, steady", ledger.rate(15))
        scaled = ledger.rate(15)
    report(f"kubernetes: {alone:.1f} images/s with 1 pod, {scaled:.1f} with 3; {len(ledger.failures)} failed")
    assert wanted == {3}, "it flaps"
    assert ledger.failures == []
    assert scaled > 1.3 * alone


def test_switching_autoscaling_on_loses_no_pod(release: Release, report: Report, until: Until) -> None:
    release.upgrade("detection.replicas=3")
    on = "detection.autoscaling.enabled=true"
    with release.load(clients=4) as ledger:
        until("first results", lambda: ledger.done >= 4, 120)
        release.upgrade(on)
        # The autoscaler looks every few seconds.
        assert wanted_for(release, 20) == {3}
        done = ledger.done
        until("further results", lambda: ledger.done >= done + 8, 120)
    assert ledger.failures == []
    # On its way down it has to be patient by default.
    release.upgrade(on, "detection.autoscaling.behavior.scaleDown.stabilizationWindowSeconds=10")
    took_s = until("1 pod again", lambda: len(release.pods("detection")) == 1, 400, 1)
    report(f"kubernetes: from 3 pods to 1, a pod a minute, in {took_s:.0f} s without load")
