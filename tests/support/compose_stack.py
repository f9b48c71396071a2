"""The stack of docker-compose.yml as tests start it: a project of its own, on ports of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import docker
from docker.models.containers import Container

__all__ = ["ADDRESS", "HTTP_PORT", "OPERATIONS_PORT", "PROJECT", "PROMETHEUS_PORT", "ROOT", "Compose", "replicas"]

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "sluiceway-test"
PORT, OPERATIONS_PORT, HTTP_PORT, PROMETHEUS_PORT = 50951, 9951, 8981, 9990
ADDRESS = f"localhost:{PORT}"


class Compose:
    """One compose project.

    Args:
        overlays: of deploy/compose, by name.
        files: more of them, anywhere.
        environment: for what the files leave open.
    """

    def __init__(self, *overlays: str, files: Sequence[Path] = (), **environment: str) -> None:
        known = [ROOT / "docker-compose.yml", *(ROOT / "deploy" / "compose" / f"{name}.yml" for name in overlays)]
        self._command = ["docker", "compose", "--project-name", PROJECT]
        for file in (*known, *files):
            self._command += ["--file", str(file)]
        ports = {
            "SLUICEWAY_PORT": PORT,
            "SLUICEWAY_OPERATIONS_PORT": OPERATIONS_PORT,
            "PROMETHEUS_PORT": PROMETHEUS_PORT,
            "SLUICEWAY_HTTP_PORT": HTTP_PORT,
        }
        self._environment = os.environ | {key: str(value) for key, value in ports.items()} | environment

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def down(self) -> None:
        """Remove everything of the project."""
        self("down", "--volumes", "--remove-orphans")


def replicas(engine: docker.DockerClient, service: str) -> list[Container]:
    """The containers of a service that run."""
    labels = [f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}"]
    found: list[Container] = engine.containers.list(filters={"label": labels})
    return found
