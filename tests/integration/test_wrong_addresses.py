"""A client at the door of another kind of server: told in words, and no traceback in anybody's log."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest
from ledger_models import draw
from ports import free_ports
from pseudo_terminal import COMMAND
from server_processes import Fleet, Member
from waiting import wait_until

from sluiceway import Client, errors


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses by what is there; in the end nobody has logged a traceback."""
    folder = tmp_path_factory.mktemp("servers")
    [http] = free_ports(1)
    with Fleet(folder) as fleet:
        [detection], [recognition], orchestrator = fleet.cluster(
            settings={"orchestrator": {"HTTP__ENABLED": "true", "HTTP__PORT": str(http)}}
        )
        yield {
            "detection": detection.address,
            "recognition": recognition.address,
            "http": f"127.0.0.1:{http}",
            "operations": f"127.0.0.1:{orchestrator.operations_port}",
            "orchestrator": orchestrator.address,
        }
        members: list[Member] = [detection, recognition, orchestrator]
        wait_until(lambda: "it is no HTTP/1" in orchestrator.log, state=lambda: orchestrator.log)
        for member in members:
            assert "Traceback" not in member.log, member.log


WRONG = {
    "detection": "is no orchestrator",
    "recognition": "is no orchestrator",
    "http": "speaks HTTP and no gRPC",
    "operations": "speaks HTTP and no gRPC",
}


@pytest.mark.parametrize(("kind", "said"), WRONG.items())
def test_the_library_says_what_is_there(kind: str, said: str, servers: dict[str, str]) -> None:
    with Client(servers[kind]) as client:
        for call in (lambda: client.process(draw(1, 1)), client.describe, lambda: list(client.process_many([b"x"]))):
            with pytest.raises(errors.SluicewayError, match=f"{servers[kind]} {said}"):
                call()


@pytest.mark.parametrize(("kind", "said"), WRONG.items())
def test_the_command_says_it_too(kind: str, said: str, servers: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(draw(1, 1))
    command = [*COMMAND, "run", str(tmp_path / "1.png"), "--json", "--address", servers[kind]]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert said in json.loads(done.stdout)["error"]["message"]
    assert b"Traceback" not in done.stderr


def test_an_address_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(draw(1, 1))
    for address, said in (("http://localhost:50051", "is a URL"), ("localhost", "has no port")):
        command = [*COMMAND, "run", str(tmp_path / "1.png"), "--json", "--address", address]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.returncode == 2
        assert done.stdout == b""
        assert said in done.stderr.decode()
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["orchestrator", "detection"])
def test_http_to_a_port_of_grpc_ends(kind: str, servers: dict[str, str]) -> None:
    """gRPC sends frames of HTTP/2, which no client of HTTP/1 can read; it does not wait for them."""
    with pytest.raises((OSError, HTTPException)):
        urllib.request.urlopen(f"http://{servers[kind]}/v1/process", timeout=10)
