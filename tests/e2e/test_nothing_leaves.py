"""Nothing leaves the machine unasked, and a proxy that the environment names is asked for nothing on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pseudo_terminal import COMMAND
from sluiceway_runtime import weights


class Proxy:
    """Notes what is asked of it, and refuses."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def variables(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "grpc_proxy")
        return dict.fromkeys(names, url) | dict.fromkeys(("no_proxy", "NO_PROXY", "no_grpc_proxy"), "")

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    self.asked.append(connection.recv(300).split(b"\r\n")[0])
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                except OSError as error:
                    self.asked.append(repr(error).encode())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


@pytest.fixture
def variables(proxy: Proxy, tmp_path: Path) -> dict[str, str]:
    """A new user's environment: nobody has declined anything yet, and nothing says that this is a test."""
    signs = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "TRAVIS")
    return (
        {name: value for name, value in os.environ.items() if name not in signs}
        | {"HOME": str(tmp_path), "SLUICEWAY_CACHE": str(weights.cache_folder())}
        | proxy.variables
    )


def test_a_cluster_and_its_client_ask_no_proxy(
    start_up: Any, samples: Path, proxy: Proxy, variables: dict[str, str]
) -> None:
    up = start_up(**variables)
    command = [*COMMAND, "run", str(samples / "page.png"), "--json", "--address"]
    for address in (up.address, up.address.replace("127.0.0.1", "localhost")):
        done = subprocess.run([*command, address], env=variables, capture_output=True, timeout=110, check=False)
        assert done.returncode == 0, done.stderr.decode()
    assert up.stop() == 0
    assert proxy.asked == []


@pytest.mark.parametrize(
    "arguments", [["run", "page.png", "--json"], ["doctor"], ["models", "list"]], ids=lambda words: words[0]
)
def test_commands_ask_no_proxy(arguments: list[str], samples: Path, proxy: Proxy, variables: dict[str, str]) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments], env=variables, cwd=samples, capture_output=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert proxy.asked == []


@pytest.mark.parametrize(
    "module",
    [
        "sluiceway_detection.backends.openvino",
        "sluiceway_detection.calibration",
        "sluiceway_recognition.backends.openvino",
        "training.text_detector.inference",
    ],
)
def test_a_library_that_reports_is_kept_from_it_before_it_is_imported(
    module: str, proxy: Proxy, variables: dict[str, str]
) -> None:
    code = f"import sys, {module}, openvino\nassert sys.modules.get('openvino_telemetry') is None"
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert proxy.asked == []
