"""The chart in a real cluster, as tests use it: kubectl and helm, what stands there, and a load from inside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "CHART",
    "DEPLOY",
    "MANIFESTS",
    "NAMESPACE",
    "NEXT",
    "VERSION",
    "TOOLS",
    "Ledger",
    "Release",
    "in_client",
    "kubectl",
    "run",
]

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "tests" / "deploy"
MANIFESTS = DEPLOY / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "sluiceway"
NAMESPACE = "sluiceway-test"
VERSION, NEXT = "0.1.0", "0.1.0-next"
TOOLS = os.pathsep.join((os.environ["PATH"], str(ROOT / "build" / "tools" / "bin")))


def run(*command: str, check: bool = True, stdin: str | None = None) -> str:
    """Run a program of this machine or of build/tools, and return what it printed."""
    program = shutil.which(command[0], path=TOOLS)
    assert program, f"no {command[0]}"
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False, input=stdin)
    assert done.returncode == 0 or not check, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def kubectl(*arguments: str, check: bool = True, stdin: str | None = None) -> str:
    """Run kubectl in the namespace of the tests."""
    return run("kubectl", "--namespace", NAMESPACE, *arguments, check=check, stdin=stdin)


def in_client(script: str, *arguments: str) -> Any:
    """Run a Python script in the client's pod; what it prints is JSON."""
    return json.loads(kubectl("exec", "--stdin", "client", "--", "python", "-", *arguments, stdin=script))


@dataclass
class Ledger:
    """The client's own account, as it stands and, in the end, as it closed."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> int:
        return int(self.lines[-1]["done"]) if self.lines else 0

    @property
    def failures(self) -> list[str]:
        """Requests that failed, and answers with regions or texts missing."""
        return list(self._account["failures"])

    @property
    def versions(self) -> Counter[str]:
        """How many answers each version of each model had a part in."""
        return Counter(self._account["versions"])

    @property
    def regions(self) -> dict[str, list[int]]:
        """What numbers of regions the answers of each version of each model had."""
        return dict(self._account["regions"])

    @property
    def _account(self) -> dict[str, Any]:
        assert "failures" in self.lines[-1], "the client did not end well"
        return self.lines[-1]

    def rate(self, seconds: int) -> float:
        last = [line["rate"] for line in self.lines if "rate" in line][-seconds:]
        return float(sum(last) / len(last))


@dataclass(frozen=True)
class Release:
    """One release of the chart.

    Attributes:
        name: that helm knows it by.
        values: files of tests/deploy/kubernetes, the later ones on top.
    """

    name: str
    values: tuple[str, ...] = ("values.yaml",)

    def named(self, component: str) -> str:
        """Deployment and service of a component."""
        return f"{self.name}-sluiceway-{component}"

    def host(self, component: str) -> str:
        """Name of a component in the cluster."""
        return f"{self.named(component)}.{NAMESPACE}.svc"

    @property
    def address(self) -> str:
        """Where clients in the cluster find the orchestrators: a ClusterIP."""
        return f"{self.host('orchestrator')}:50051"

    @property
    def headless(self) -> str:
        """A name with an address for each of them."""
        return f"{self.host('orchestrator-headless')}:50051"

    def helm(self, command: str, *arguments: str) -> str:
        """Run helm on this release."""
        return run("helm", command, self.name, "--namespace", NAMESPACE, *arguments)

    def install(self) -> None:
        self.helm("install", str(CHART), *self._files, "--wait", "--timeout=10m")

    def upgrade(self, *values: str) -> None:
        """Bring the release to its files and these values, and wait."""
        sets = [argument for value in values for argument in ("--set", value)]
        self.helm("upgrade", str(CHART), *self._files, *sets, "--wait", "--timeout=10m")

    @property
    def _files(self) -> list[str]:
        return [argument for name in self.values for argument in ("--values", str(MANIFESTS / name))]

    def pods(self, component: str) -> list[dict[str, Any]]:
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"
        items: list[dict[str, Any]] = json.loads(kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return items

    def ready(self, component: str) -> list[str]:
        """Names of the pods that serve and are to stay."""
        return [
            pod["metadata"]["name"]
            for pod in self.pods(component)
            if "deletionTimestamp" not in pod["metadata"]
            and any(
                item["type"] == "Ready" and item["status"] == "True" for item in pod["status"].get("conditions", [])
            )
        ]

    def operations(self, pod: str, path: str, port: int = 9051) -> str:
        """What a pod's operations port answers."""
        return kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{port}/proxy/{path}")

    def left(self) -> list[str]:
        """Whatever of it is in the namespace."""
        kinds = "all,configmap,secret,serviceaccount,networkpolicy,poddisruptionbudget,horizontalpodautoscaler"
        output = kubectl("get", kinds, "-l", f"app.kubernetes.io/instance={self.name}", "-o", "name")
        releases = kubectl("get", "secret", "-l", f"owner=helm,name={self.name}", "-o", "name")
        return (output + releases).split()

    @contextmanager
    def load(self, clients: int) -> Iterator[Ledger]:
        """Keep up load from inside the cluster; on leaving, every request is waited for."""
        kubectl("exec", "client", "--", "rm", "-f", "/tmp/stop")
        ledger = Ledger()
        command = ["kubectl", "--namespace", NAMESPACE, "exec", "client", "--"]
        command += ["python", "/files/cluster_load.py", self.address, "/files/photo.jpg", str(clients)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PATH": TOOLS}) as process:

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
