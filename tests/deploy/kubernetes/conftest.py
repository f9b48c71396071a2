"""A namespace of a real cluster, with clients and a Prometheus in it, and releases of the chart.

Needs KUBECONFIG, a cluster whose nodes have the images sluiceway/*:0.1.0, sluiceway/recognition-cpu:0.1.0-next (another
reader), and sluiceway-test/{prometheus,clients}:1 (the engine of a one-node cluster that builds them has), and helm and
kubectl. For the autoscaler the cluster must answer the external metric sluiceway_detection_queue_seconds with the query
that the chart writes beside its autoscaler. EXTERNAL_METRICS may name a JSON file of metrics, {name: URL of a query of
Prometheus, or its path on the API server}, which is then filled in; without it the cluster's own adapter must have been
told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from kubernetes_release import DEPLOY, MANIFESTS, NAMESPACE, NEXT, VERSION, Release, kubectl, run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if MANIFESTS in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def cluster(photo: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait")
    run("kubectl", "create", "namespace", NAMESPACE)
    file = tmp_path_factory.mktemp("client") / "photo.jpg"
    file.write_bytes(photo)
    try:
        scripts = [f"--from-file={DEPLOY / name}" for name in ("cluster_load.py", "cluster_calls.py")]
        kubectl("create", "configmap", "client", *scripts, f"--from-file=photo.jpg={file}")
        for name in ("prometheus", "client", "clients"):
            kubectl("apply", "-f", str(MANIFESTS / f"{name}.yaml"))
        kubectl("wait", "--for=condition=Ready", "pod/client", "pod/clients", "--timeout=120s")
        kubectl("rollout", "status", "deployment/prometheus", "--timeout=120s")
        yield
    finally:
        run("kubectl", "delete", "namespace", NAMESPACE, "--wait")


@pytest.fixture(scope="session")
def next_version() -> str:
    """A tag: the reader under it is another one, and what else there is, is this version's under another name."""
    for name in ("orchestrator", "detection"):
        run("docker", "tag", f"sluiceway/{name}:{VERSION}", f"sluiceway/{name}:{NEXT}")
    return NEXT


@pytest.fixture(scope="module")
def release(cluster: None, report: Callable[[str], None], until: Callable[..., float]) -> Iterator[Release]:
    """One that is installed for the tests of a module, and leaves nothing behind."""
    release = Release("eye")
    begin = time.monotonic()
    release.install()
    report(f"kubernetes: installed and ready in {time.monotonic() - begin:.0f} s")
    yield release
    release.helm("uninstall", "--wait")
    until("clean namespace", lambda: release.left() == [], 120, 1)
