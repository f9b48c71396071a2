"""A client in the clear at the door of a server that speaks TLS: told so at once, by the library and every command."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from pseudo_terminal import COMMAND

from sluiceway import AsyncClient, errors
from sluiceway.client import Tls
from sluiceway.client.addresses import place_of
from sluiceway.client.encryption import speaks_tls

SAID = r"speaks TLS, and was called in the clear: --tls"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=[False, True], ids=["TLS", "mutual TLS"])
async def address(authority: trustme.CA, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A server that speaks TLS, and has nothing to say."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    roots = authority.cert_pem.bytes() if request.param else None
    credentials = grpc.ssl_server_credentials(
        [(issued.private_key_pem.bytes(), chain)], roots, require_client_auth=request.param
    )
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def first(items: Any) -> Any:
    async with aclosing(items):
        return await anext(items)


CALLS: dict[str, Callable[[AsyncClient], Any]] = {
    "process": lambda client: client.process(b"image"),
    "events": lambda client: first(client.events(b"image")),
    "describe": lambda client: client.describe(),
    "watch": lambda client: first(client.watch()),
    "process_many": lambda client: first(aiter(client.process_many([b"image"]))),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_the_library_says_so(address: str, call: Callable[[AsyncClient], Any]) -> None:
    async with AsyncClient(address) as client, asyncio.timeout(30):
        with pytest.raises(errors.SluicewayError, match=SAID) as failed:
            await call(client)
    assert failed.value.code == "FAILED_PRECONDITION"


@pytest.mark.parametrize(
    "arguments", [["run", "a.png"], ["bench", "a.png", "--in-flight", "1"], ["top", "--once"], ["doctor"]]
)
async def test_the_commands_say_so(address: str, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"image")

    def run() -> subprocess.CompletedProcess[str]:
        words = [*COMMAND, *arguments, "--address", address]
        return subprocess.run(words, capture_output=True, text=True, timeout=90, check=False, cwd=tmp_path)

    done = await asyncio.to_thread(run)
    # The doctor tells what it finds, and has done what it was asked for.
    assert (done.returncode != 0) == (arguments[0] != "doctor")
    told = " ".join((done.stdout + done.stderr).split())
    assert "speaks TLS, and was called in the clear" in told, told
    assert "Traceback" not in told


async def test_with_tls_it_is_as_before(address: str, authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with AsyncClient(address, tls=Tls(ca=tmp_path / "ca.pem"), timeout_s=1) as client:
        with pytest.raises(errors.SluicewayError) as failed:
            await client.describe()
    assert "in the clear" not in str(failed.value)


async def test_other_servers_do_not_speak_tls() -> None:
    """One that speaks gRPC in the clear, one that cuts everybody off, one that says nothing, and none."""
    plain = grpc.aio.server()
    port = plain.add_insecure_port("127.0.0.1:0")
    await plain.start()
    assert not await speaks_tls("127.0.0.1", port)
    await plain.stop(None)
    assert not await speaks_tls("127.0.0.1", port)

    for silent in (False, True):
        left = asyncio.Event()

        async def behave(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            silent: bool = silent,
            left: asyncio.Event = left,
        ) -> None:
            with contextlib.suppress(ConnectionError):
                if silent:
                    await reader.read()
                writer.close()
                await writer.wait_closed()
            left.set()

        async with await asyncio.start_server(behave, "127.0.0.1", 0) as server:
            assert not await speaks_tls(*server.sockets[0].getsockname()[:2])
            await left.wait()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("localhost:50051", ("localhost", 50051)),
        ("[::1]:7", ("::1", 7)),
        ("10.0.0.1:1,10.0.0.2:2", ("10.0.0.1", 1)),
        ("dns:///vision.example.org", ("vision.example.org", 50051)),
        ("dns://8.8.8.8/vision.example.org:9", ("vision.example.org", 9)),
        ("unix:/run/s.sock", None),
        ("xds:///vision", None),
    ],
)
def test_where_a_server_can_be_looked_at(address: str, place: tuple[str, int] | None) -> None:
    assert place_of(address) == place
