"""The chart in a real cluster: installed, used, broken, scaled by its own metric, upgraded, removed.

Needs KUBECONFIG, a cluster whose nodes have the images sluiceway/*:0.1.0 and sluiceway-test/{prometheus,clients}:1 (the
engine of a one-node cluster that builds them has), and helm and kubectl. For the autoscaler the cluster must answer the
external metric sluiceway_detection_queue_seconds with the query that the chart writes beside its autoscaler.
EXTERNAL_METRICS may name a JSON file of metrics, {name: URL of a Prometheus query, or its path on the API server},
which is then filled in; without it the cluster's own adapter must have been told.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CHART = ROOT / "deploy" / "helm" / "sluiceway"
NAMESPACE, RELEASE = "sluiceway-test", "eye"
# A release of its own, with certificates and tokens, and two versions of detection.
SECURE = "safe"
SERVICE = f"{RELEASE}-sluiceway-orchestrator.{NAMESPACE}.svc:50051"
DETECTION, RECOGNITION, ORCHESTRATOR = (
    f"{RELEASE}-sluiceway-{name}" for name in ("detection", "recognition", "orchestrator")
)
VERSION, NEXT = "0.1.0", "0.1.0-next"
METRIC = "sluiceway_detection_queue_seconds"
CLIENTS = 8
TARGET_S = 0.25
# So long a steady load must leave the number of pods as it is.
STEADY_S = 180.0
Report = Callable[[str], None]
Until = Callable[..., float]


def run(*command: str, check: bool = True, stdin: str | None = None) -> str:
    path = os.pathsep.join((os.environ["PATH"], str(ROOT / "build" / "tools" / "bin")))
    program = shutil.which(command[0], path=path)
    assert program, f"no {command[0]}"
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False, input=stdin)
    assert done.returncode == 0 or not check, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def kubectl(*arguments: str, check: bool = True, stdin: str | None = None) -> str:
    return run("kubectl", "--namespace", NAMESPACE, *arguments, check=check, stdin=stdin)


def helm(command: str, *arguments: str, release: str = RELEASE) -> str:
    return run("helm", command, release, "--namespace", NAMESPACE, *arguments)


def in_client(script: str, *arguments: str) -> Any:
    """Run a Python script in the client's pod; what it prints is JSON."""
    return json.loads(kubectl("exec", "--stdin", "client", "--", "python", "-", *arguments, stdin=script))


def pods(component: str, release: str = RELEASE) -> list[dict[str, Any]]:
    selector = f"app.kubernetes.io/instance={release},app.kubernetes.io/component={component}"
    items: list[dict[str, Any]] = json.loads(kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    return items


def ready(component: str, release: str = RELEASE) -> list[str]:
    """Names of the pods that serve and are to stay."""
    return [
        pod["metadata"]["name"]
        for pod in pods(component, release)
        if "deletionTimestamp" not in pod["metadata"]
        and any(item["type"] == "Ready" and item["status"] == "True" for item in pod["status"].get("conditions", []))
    ]


@dataclass
class Ledger:
    """The client's own account, as it stands and, in the end, as it closed."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> int:
        return int(self.lines[-1]["done"]) if self.lines else 0

    @property
    def failures(self) -> list[str]:
        assert "failures" in self.lines[-1], "the client did not end well"
        return list(self.lines[-1]["failures"])

    def rate(self, seconds: int) -> float:
        last = [line["rate"] for line in self.lines if "rate" in line][-seconds:]
        return float(sum(last) / len(last))


@contextmanager
def load(clients: int = CLIENTS, service: str = SERVICE) -> Iterator[Ledger]:
    """Keep up load from inside the cluster; on leaving, every request is waited for."""
    kubectl("exec", "client", "--", "rm", "-f", "/tmp/stop")
    ledger = Ledger()
    command = ["kubectl", "--namespace", NAMESPACE, "exec", "client", "--"]
    command += ["python", "/files/cluster_load.py", service, "/files/photo.jpg", str(clients)]
    path = os.pathsep.join((os.environ["PATH"], str(ROOT / "build" / "tools" / "bin")))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PATH": path}) as process:

        def follow() -> None:
            assert process.stdout
            for line in process.stdout:
                ledger.lines.append(json.loads(line))

        follower = threading.Thread(target=follow)
        follower.start()
        try:
            yield ledger
        finally:
            kubectl("exec", "client", "--", "touch", "/tmp/stop")
            follower.join()
    assert process.returncode == 0


@pytest.fixture(scope="module")
def cluster(photo: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait")
    run("kubectl", "create", "namespace", NAMESPACE)
    file = tmp_path_factory.mktemp("client") / "photo.jpg"
    file.write_bytes(photo)
    try:
        script = HERE / "cluster_load.py"
        kubectl("create", "configmap", "client", f"--from-file={script}", f"--from-file=photo.jpg={file}")
        kubectl("apply", "-f", str(HERE / "kubernetes" / "prometheus.yaml"))
        kubectl("apply", "-f", str(HERE / "kubernetes" / "client.yaml"))
        kubectl("apply", "-f", str(HERE / "kubernetes" / "clients.yaml"))
        kubectl("wait", "--for=condition=Ready", "pod/client", "pod/clients", "--timeout=120s")
        kubectl("rollout", "status", "deployment/prometheus", "--timeout=120s")
        yield
    finally:
        run("kubectl", "delete", "namespace", NAMESPACE, "--wait")


@pytest.fixture(scope="module")
def release(cluster: None, report: Report) -> None:
    begin = time.monotonic()
    helm("install", str(CHART), "--values", str(HERE / "kubernetes" / "values.yaml"), "--wait", "--timeout=10m")
    report(f"kubernetes: installed and ready in {time.monotonic() - begin:.0f} s")


def test_a_photo_is_read(release: None, report: Report) -> None:
    command = ["sluiceway", "run", "--json", "--address", SERVICE, "/files/photo.jpg"]
    answer = json.loads(kubectl("exec", "client", "--", *command))
    assert answer["status"] == "ok"
    assert answer["regions"]
    report(f"kubernetes: first photo, {len(answer['regions'])} regions")


POST = """
import json, ssl, sys, urllib.error, urllib.request
url, host, token, ca = sys.argv[1:]
body = open("/files/photo.jpg", "rb").read()
headers = {"Content-Type": "image/jpeg"} | ({"Host": host} if host else {})
headers |= {"Authorization": f"Bearer {token}"} if token else {}
try:
    context = ssl.create_default_context(cafile=ca) if ca else None
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60, context=context) as answer:
        print(json.dumps([answer.status, [json.loads(line) for line in answer]]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""


def post(url: str, *, host: str = "", token: str = "", ca: str = "") -> tuple[int, Any]:
    status, answer = in_client(POST, url, host, token, ca)
    return int(status), answer


def test_a_photo_is_read_through_the_http_port(release: None) -> None:
    url = f"http://{ORCHESTRATOR}.{NAMESPACE}.svc:8080/v1/process"
    status, events = post(url)
    assert status == 200
    assert events[-1]["job_done"]["succeeded"] == 1
    assert any("values" in event for event in events)
    # A name that nobody gave it: a web page may have pointed it here.
    assert post(url, host="elsewhere.example.org")[0] == 421


def delete_one(component: str, until: Until) -> None:
    before = ready(component)
    kubectl("delete", "pod", before[0], "--wait=false")
    until(f"{component} without {before[0]}", lambda: before[0] not in ready(component), 60)
    until(f"{component} complete again", lambda: len(ready(component)) >= len(before), 180)


def more_results(ledger: Ledger, until: Until) -> None:
    done = ledger.done
    until("further results", lambda: ledger.done >= done + 8, 120)


def test_the_release_tests_itself(release: None) -> None:
    assert "Succeeded" in helm("test", "--timeout=3m")


# One client process of the library, one channel. It waits until every server of the name is connected.
ASK = """
import asyncio, json, sys
from sluiceway.client import AsyncClient
from sluiceway.errors import SluicewayError
async def main(address, calls):
    failed = 0
    async with AsyncClient(address) as client:
        for _ in range(calls):
            try:
                await client.describe()
            except SluicewayError as error:
                print(error, file=sys.stderr)
                failed += 1
    print(json.dumps(failed))
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""
CALLS = 300
COUNTED = re.compile(
    r'^rpc_server_call_duration_seconds_count\{[^}]*PipelineService/Describe"[^}]*\} (\S+)$', re.MULTILINE
)


def described() -> dict[str, float]:
    """How often each orchestrator was asked for its description, by its own count."""
    found = {}
    for name in ready("orchestrator"):
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}:9051/proxy/metrics"
        found[name] = sum(map(float, COUNTED.findall(kubectl("get", "--raw", path))))
    return found


def shares(ask: Callable[[], Any]) -> list[float]:
    """What part of the calls each orchestrator got; all of them are answered."""
    before = described()
    assert int(ask()) == 0
    after = described()
    assert set(after) == set(before), "an orchestrator came or went"
    counts = [after[name] - before[name] for name in after]
    assert sum(counts) == CALLS
    return sorted(count / CALLS for count in counts)


def test_orchestrators_share_the_calls_of_one_client(release: None, report: Report, until: Until) -> None:
    values = str(HERE / "kubernetes" / "values.yaml")
    helm("upgrade", str(CHART), "--values", values, "--set", "orchestrator.replicas=3", "--wait")
    until("3 orchestrators", lambda: len(ready("orchestrator")) == len(pods("orchestrator")) == 3, 120)
    clients: dict[str, Callable[[str], Any]] = {
        "the library": lambda address: in_client(ASK, address, str(CALLS)),
        "grpc-js": lambda address: kubectl("exec", "clients", "--", "node", "spread.mjs", address, str(CALLS)),
        "Go": lambda address: kubectl("exec", "clients", "--", "./spread", address, str(CALLS)),
    }
    headless = SERVICE.replace(ORCHESTRATOR, f"{ORCHESTRATOR}-headless")
    found = {
        (client, kind): shares(lambda ask=ask, address=address: ask(address))  # type: ignore[misc]
        for kind, address in (("headless", headless), ("ClusterIP", SERVICE))
        for client, ask in clients.items()
    }
    for (client, kind), parts in found.items():
        report(f"kubernetes: 3 orchestrators, {client}, {kind}: {', '.join(f'{part:.0%}' for part in parts)}")
    for client in clients:
        assert 0.2 <= min(found[client, "headless"]) <= max(found[client, "headless"]) <= 0.5, client


def test_deleted_pods_fail_nothing(release: None, report: Report, until: Until) -> None:
    with load(clients=4) as ledger:
        until("first results", lambda: ledger.done >= 4, 120)
        for component in ("detection", "recognition", "orchestrator"):
            delete_one(component, until)
            more_results(ledger, until)
    report(f"kubernetes: {ledger.done} requests while pods were deleted, {len(ledger.failures)} failed")
    assert ledger.failures == []


def test_scaled_by_its_own_queue_time(release: None, report: Report, until: Until) -> None:
    values = str(HERE / "kubernetes" / "values.yaml")
    with load() as ledger:
        until("results of one pod", lambda: len(ledger.lines) >= 20 and ledger.done >= 10, 180)
        alone = ledger.rate(15)
    helm("upgrade", str(CHART), "--values", values, "--set", "detection.autoscaling.enabled=true", "--wait")
    scaler = json.loads(kubectl("get", "hpa", DETECTION, "-o", "json"))
    query = scaler["metadata"]["annotations"]["sluiceway.dev/query"]
    answer_metric(query)

    def queue_s() -> float:
        path = f"/api/v1/namespaces/{NAMESPACE}/services/prometheus:9090/proxy/api/v1/query"
        answer = json.loads(kubectl("get", "--raw", f"{path}?query={urllib.parse.quote(query)}"))
        [series] = answer["data"]["result"]
        return float(series["value"][1])

    assert len(ready("detection")) == 1
    begin = time.monotonic()

    def note(event: str, rate: float = 0.0) -> None:
        report(
            f"kubernetes: {time.monotonic() - begin:4.0f} s  {event}: queue time {queue_s():.2f} s, "
            f"{len(ready('detection'))} pods, {rate:.1f} images/s"
        )

    note("before the load")
    with load() as ledger:
        crossed_s = until("the target crossed", lambda: queue_s() > TARGET_S, 60, 0.2)
        report(
            f"kubernetes: the metric crossed its target {crossed_s:.1f} s after the load began, as Prometheus saw it"
        )
        until("2 pods", lambda: len(ready("detection")) >= 2, 240, 1)
        note("load", ledger.rate(5))
        until("3 pods", lambda: len(ready("detection")) == 3, 240, 1)
        note("load", ledger.rate(5))
        wanted = wanted_for(STEADY_S)
        note("load, steady", ledger.rate(15))
        scaled = ledger.rate(15)
    report(f"kubernetes: {alone:.1f} images/s with 1 pod, {scaled:.1f} with 3; {len(ledger.failures)} failed")
    assert wanted == {3}, "it flaps"
    assert ledger.failures == []
    assert scaled > 1.3 * alone


def wanted_for(seconds: float) -> set[int]:
    """How many pods of detection were asked for during this time."""
    end_s, found = time.monotonic() + seconds, set()
    while time.monotonic() < end_s:
        found.add(int(kubectl("get", "deployment", DETECTION, "--output=jsonpath={.spec.replicas}")))
        time.sleep(0.5)
    return found


def test_switching_autoscaling_on_loses_no_pod(release: None, report: Report, until: Until) -> None:
    upgrade = ("upgrade", str(CHART), "--values", str(HERE / "kubernetes" / "values.yaml"), "--wait")
    helm(*upgrade, "--set", "detection.replicas=3")
    with load(clients=4) as ledger:
        until("first results", lambda: ledger.done >= 4, 120)
        on = ("--set", "detection.autoscaling.enabled=true")
        helm(*upgrade, *on)
        # The autoscaler looks every few seconds.
        assert wanted_for(20) == {3}
        more_results(ledger, until)
    assert ledger.failures == []
    # On its way down it has to be patient by default.
    helm(*upgrade, *on, "--set", "detection.autoscaling.behavior.scaleDown.stabilizationWindowSeconds=10")
    took_s = until("1 pod again", lambda: len(pods("detection")) == 1, 400, 1)
    report(f"kubernetes: from 3 pods to 1, a pod a minute, in {took_s:.0f} s without load")


def answer_metric(query: str) -> None:
    """Let the external metric be what Prometheus in this namespace answers to the chart's query."""
    file = os.environ.get("EXTERNAL_METRICS")
    if file:
        proxy = f"/api/v1/namespaces/{NAMESPACE}/services/prometheus:9090/proxy/api/v1/query"
        Path(file).write_text(json.dumps({METRIC: f"{proxy}?query={urllib.parse.quote(query)}"}))


def tag_next(*images: str) -> None:
    """The images of the next version are those of this one under another tag: what is tested is the exchange."""
    for name in images:
        run("docker", "tag", f"sluiceway/{name}:{VERSION}", f"sluiceway/{name}:{NEXT}")


def test_upgraded_under_load(release: None, report: Report, until: Until) -> None:
    tag_next("orchestrator", "detection", "recognition-cpu")
    values = str(HERE / "kubernetes" / "values.yaml")
    with load(clients=4) as ledger:
        until("first results", lambda: ledger.done >= 4, 120)
        begin = time.monotonic()
        # Other regions, other classes: a source stays with the version that it began with.
        other = ("--set", "detection.config.model=text-nano")
        helm("upgrade", str(CHART), "--values", values, "--set", f"image.tag={NEXT}", *other, "--wait", "--timeout=10m")
        took_s = time.monotonic() - begin
        more_results(ledger, until)
    names = ("orchestrator", "detection", "recognition")
    until("the old pods gone", lambda: all(len(pods(name)) == len(ready(name)) for name in names), 120)
    images = {pod["spec"]["containers"][0]["image"] for name in names for pod in pods(name)}
    assert {image.rsplit(":", 1)[1] for image in images} == {NEXT}
    models = ledger.lines[-1]["versions"]
    report(f"kubernetes: upgraded in {took_s:.0f} s, {ledger.done} requests, {len(ledger.failures)} failed: {models}")
    assert ledger.failures == []
    assert {name.split()[0] for name in models} >= {"ppocrv6-tiny-det", "text-nano"}


def test_uninstalled_without_a_trace(release: None, until: Until) -> None:
    helm("uninstall", "--wait")
    kinds = "all,configmap,secret,serviceaccount,networkpolicy,poddisruptionbudget,horizontalpodautoscaler"

    def left() -> list[str]:
        output = kubectl("get", kinds, "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name")
        releases = kubectl("get", "secret", "-l", f"owner=helm,name={RELEASE}", "-o", "name")
        return (output + releases).split()

    until("clean namespace", lambda: left() == [], 120, 1)


@pytest.fixture(scope="module")
def secure(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A release with certificates, tokens and a canary; the client in the cluster has the authority and a token."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    names = [f"{SECURE}-sluiceway-{name}.{NAMESPACE}.svc" for name in ("orchestrator", "detection", "recognition")]
    certificate = authority.issue_cert(*names)
    (folder / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (folder / "tls.key").write_bytes(certificate.private_key_pem.bytes())
    authority.cert_pem.write_to_path(folder / "ca.crt")
    kubectl("create", "secret", "generic", "certificates", f"--from-file={folder}")
    kubectl("create", "secret", "generic", "tokens", "--from-literal=shop=open-sesame")
    into = ("exec", "--stdin", "client", "--", "sh", "-c")
    for name, text in (
        ("ca.pem", (folder / "ca.crt").read_text()),
        ("client.pem", (folder / "tls.crt").read_text()),
        ("client.key", (folder / "tls.key").read_text()),
        ("token", "open-sesame"),
    ):
        kubectl(*into, f"cat > /tmp/{name}", stdin=text)
    tag_next("detection")
    files = [str(HERE / "kubernetes" / name) for name in ("values.yaml", "secure.yaml")]
    values = [argument for file in files for argument in ("--values", file)]
    helm("install", str(CHART), *values, "--wait", "--timeout=10m", release=SECURE)
    yield
    helm("uninstall", "--wait", release=SECURE)


def test_certificates_and_tokens(secure: None) -> None:
    url = f"https://{SECURE}-sluiceway-orchestrator.{NAMESPACE}.svc:8080/v1/process"
    status, events = post(url, token="open-sesame", ca="/tmp/ca.pem")
    assert (status, events[-1]["job_done"]["succeeded"]) == (200, 1)
    status, problem = post(url, token="a-guess", ca="/tmp/ca.pem")
    assert (status, problem["code"]) == (401, "UNAUTHENTICATED")


def test_a_pod_without_a_limit_plans_for_the_cpus_it_was_promised(secure: None) -> None:
    [name] = ready("recognition", SECURE)
    # The request of 100m, rounded up, and not the cores of the node.
    assert kubectl("exec", name, "--", "printenv", "SLUICEWAY_RECOGNITION__CPUS").strip() == "1"
    assert "pool recognition: 1 workers are ready" in kubectl("logs", name)


# Asks a stage itself, with and without a certificate of the authority.
DESCRIBE = """
import json, sys, grpc
from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc
read = lambda name: open(f"/tmp/{name}", "rb").read()
found = []
for own in ((), (read("client.key"), read("client.pem"))):
    with grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials(read("ca.pem"), *own)) as channel:
        try:
            detection_pb2_grpc.DetectionServiceStub(channel).Describe(detection_pb2.DescribeRequest(), timeout=10)
            found.append("OK")
        except grpc.RpcError as error:
            found.append(error.code().name)
print(json.dumps(found))
"""


def test_a_stage_wants_a_certificate(secure: None) -> None:
    assert in_client(DESCRIBE, f"{SECURE}-sluiceway-detection.{NAMESPACE}.svc:50052") == ["UNAVAILABLE", "OK"]


def test_a_canary_gets_its_share(secure: None, report: Report, until: Until) -> None:
    with load(clients=4, service=f"{SECURE}-sluiceway-orchestrator.{NAMESPACE}.svc:50051") as ledger:
        until("enough results", lambda: ledger.done >= 240, 240)
    versions = ledger.lines[-1]["versions"]
    [canary] = [count for name, count in versions.items() if name.startswith("text-nano ")]
    share = canary / ledger.done
    report(f"kubernetes: with TLS and tokens, {ledger.done} requests, {len(ledger.failures)} failed")
    report(f"kubernetes: a canary of 1 in 3 pods (share: 33) gave {share:.0%} of the answers")
    assert ledger.failures == []
    # Each goes to the less busy of two pods that are drawn: equal pods get equal work, up to the luck of the draw.
    assert 0.23 < share < 0.43
