"""Several orchestrators in a real cluster: how the calls of one client process are shared between them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from kubernetes_release import NAMESPACE, TOOLS, Release, kubectl

Report = Callable[[str], None]
Until = Callable[..., float]
Counts = dict[str, float]

CALLS = 300
# Within which each has its part, and one that is new as well.
WITHIN_S = 30.0
COUNTED = re.compile(
    r'^rpc_server_call_duration_seconds_count\{[^}]*PipelineService/Describe"[^}]*\} (\S+)$', re.MULTILINE
)


@pytest.fixture(scope="module")
def three(release: Release, until: Until) -> Release:
    release.upgrade("orchestrator.replicas=3")
    until("3 orchestrators", lambda: len(release.ready("orchestrator")) == len(release.pods("orchestrator")) == 3, 120)
    return release


def described(release: Release) -> Counts:
    """How often each orchestrator was asked for its description, by its own count."""
    names = release.ready("orchestrator")
    return {name: sum(map(float, COUNTED.findall(release.operations(name, "metrics")))) for name in names}


def parts(before: Counts, after: Counts) -> Counts:
    """What part of the calls between two moments each orchestrator answered."""
    counts = {name: count - before.get(name, 0.0) for name, count in after.items()}
    return {name: count / max(1.0, sum(counts.values())) for name, count in counts.items()}


def shown(found: Counts) -> str:
    return ", ".join(f"{part:.0%}" for part in sorted(found.values()))


@pytest.mark.parametrize(("client", "command"), [("grpc-js", ("node", "spread.mjs")), ("Go", ("./spread",))])
def test_other_languages_share_by_the_headless_name(
    three: Release, client: str, command: tuple[str, ...], report: Report
) -> None:
    before = described(three)
    failed = kubectl("exec", "clients", "--", *command, three.headless, str(CALLS))
    found = parts(before, described(three))
    report(f"kubernetes: 3 orchestrators, {client}, headless: {shown(found)}")
    assert int(failed) == 0
    assert 0.2 <= min(found.values()) <= max(found.values()) <= 0.5


@contextmanager
def asking(address: str) -> Iterator[list[dict[str, int]]]:
    """One client process of the library in the cluster; its account grows line by line, and in the end is complete."""
    kubectl("exec", "client", "--", "rm", "-f", "/tmp/stop")
    command = ["kubectl", "--namespace", NAMESPACE, "exec", "client", "--"]
    command += ["sh", "-c", f"python /files/cluster_calls.py {address} > /tmp/calls 2>&1"]
    account: list[dict[str, int]] = []
    with subprocess.Popen(command, env=os.environ | {"PATH": TOOLS}) as process:
        try:
            yield account
        finally:
            kubectl("exec", "client", "--", "touch", "/tmp/stop")
            process.wait()
    account += [json.loads(line) for line in kubectl("exec", "client", "--", "cat", "/tmp/calls").splitlines()]


@pytest.mark.parametrize("kind", ["headless", "ClusterIP"])
def test_the_library_shares_its_calls_and_a_new_one_gets_its_part(
    three: Release, kind: str, report: Report, until: Until
) -> None:
    """Behind a ClusterIP each connection leads to one of them by chance; the library finds them all."""
    address = three.headless if kind == "headless" else three.address
    with asking(address) as account:
        before: Counts = {}
        found: Counts = {}

        def of_the_last_seconds() -> Counts:
            nonlocal before, found
            if not before or set(before) != set(described(three)):
                before = described(three)
            time.sleep(3)
            after = described(three)
            found, before = parts(before, after), after
            return found

        def shared() -> bool:
            of_the_last_seconds()
            return len(found) == 3 and 0.2 <= min(found.values()) <= max(found.values()) <= 0.5

        took_s = until("a part for each", shared, WITHIN_S)
        report(f"kubernetes: 3 orchestrators, the library, {kind}: {shown(found)} after {took_s:.0f} s")
        old = set(three.ready("orchestrator"))
        kubectl("scale", "deployment", three.named("orchestrator"), "--replicas=4")
        until("a fourth one", lambda: len(three.ready("orchestrator")) == 4, 120)
        [new] = set(three.ready("orchestrator")) - old
        took_s = until("the part of the new one", lambda: of_the_last_seconds().get(new, 0) >= 0.15, WITHIN_S)
        report(f"kubernetes: a fourth one had {found[new]:.0%} of the calls {took_s:.0f} s after it was ready ({kind})")
        kubectl("scale", "deployment", three.named("orchestrator"), "--replicas=3")
        until("3 orchestrators", lambda: len(three.pods("orchestrator")) == 3, 120)
    assert account[-1]["answered"] > CALLS
    assert account[-1]["failed"] == 0
