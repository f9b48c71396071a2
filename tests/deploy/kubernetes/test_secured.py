"""A release with certificates and tokens in a real cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from kubernetes_release import Release, in_client, kubectl

Report = Callable[[str], None]
Until = Callable[..., float]

FILES = ("ca.pem", "client.pem", "client.key", "token")


@pytest.fixture(scope="module")
def secure(cluster: None, until: Until, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """The client in the cluster has the authority and a token."""
    release = Release("safe", ("values.yaml", "secure.yaml"))
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    names = [release.host(name) for name in ("orchestrator", "detection", "recognition")]
    certificate = authority.issue_cert(*names)
    (folder / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (folder / "tls.key").write_bytes(certificate.private_key_pem.bytes())
    authority.cert_pem.write_to_path(folder / "ca.crt")
    kubectl("create", "secret", "generic", "certificates", f"--from-file={folder}")
    kubectl("create", "secret", "generic", "tokens", "--from-literal=shop=open-sesame")
    into = ("exec", "--stdin", "client", "--", "sh", "-c")
    texts = [(folder / name).read_text() for name in ("ca.crt", "tls.crt", "tls.key")]
    for name, text in zip(FILES, (*texts, "open-sesame"), strict=True):
        kubectl(*into, f"cat > /tmp/{name}", stdin=text)
    release.install()
    yield release
    release.helm("uninstall", "--wait")
    until("clean namespace", lambda: release.left() == [], 120, 1)
    kubectl("delete", "secret", "certificates", "tokens")
    kubectl("exec", "client", "--", "rm", *(f"/tmp/{name}" for name in FILES))


POST = """
import json, ssl, sys, urllib.error, urllib.request
url, token = sys.argv[1:]
body = open("/files/photo.jpg", "rb").read()
headers = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {token}"}
try:
    context = ssl.create_default_context(cafile="/tmp/ca.pem")
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60, context=context) as answer:
        print(json.dumps([answer.status, [json.loads(line) for line in answer]]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""


def test_certificates_and_tokens(secure: Release) -> None:
    url = f"https://{secure.host('orchestrator')}:8080/v1/process"
    answers: list[tuple[int, Any]] = [in_client(POST, url, token) for token in ("open-sesame", "a-guess")]
    (status, events), (refused, problem) = answers
    assert (status, events[-1]["job_done"]["succeeded"]) == (200, 1)
    assert (refused, problem["code"]) == (401, "UNAUTHENTICATED")


def test_a_pod_without_a_limit_plans_for_the_cpus_it_was_promised(secure: Release) -> None:
    [name] = secure.ready("recognition")
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


def test_a_stage_wants_a_certificate(secure: Release) -> None:
    assert in_client(DESCRIBE, f"{secure.host('detection')}:50052") == ["UNAVAILABLE", "OK"]


def test_a_load_with_a_token_over_tls_fails_nowhere(secure: Release, report: Report, until: Until) -> None:
    with secure.load(clients=4) as ledger:
        until("results", lambda: ledger.done >= 40, 240)
    report(f"kubernetes: with TLS and tokens, {ledger.done} requests, {len(ledger.failures)} failed")
    assert ledger.failures == []
