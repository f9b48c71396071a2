"""Addresses as people write them: taken, or refused in words; and what no proxy is asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from sluiceway import errors
from sluiceway.client import AsyncClient, RetryPolicy
from sluiceway.client.addresses import Place, authority_of, is_local, places_of, require_address, target_of
from sluiceway.client.convert import error_from_rpc


@pytest.mark.parametrize(
    "address",
    [
        "localhost:50051",
        "127.0.0.1:1",
        "[::1]:50051",
        "example.org:65535",
        "dns:///example.org:50051",
        "dns://1.1.1.1/example.org:50051",
        "dns:example.org:50051",
        "ipv4:127.0.0.1:1,127.0.0.2:2",
        "ipv6:[::1]:1",
        "unix:/run/sluiceway.sock",
        "unix:///run/sluiceway.sock",
        "xds:///sluiceway",
        "127.0.0.1:50051,127.0.0.1:50055",
        "localhost:50051, 10.0.0.1:50051",
        "[::1]:1,[::1]:2",
    ],
)
def test_addresses_that_are_taken(address: str) -> None:
    assert require_address(address) == address


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://localhost:50051", "is a URL; the address of a cluster is host:port, here localhost:50051"),
        ("HTTP://localhost", "here localhost:50051"),
        ("https://example.org:443/", "here example.org:443 and --tls"),
        ("grpc://localhost:50051", "an address is host:port"),
        ("localhost", "localhost has no port; is it localhost:50051?"),
        ("localhost:", "has no port; is it localhost:50051?"),
        ("127.0.0.1", "is it 127.0.0.1:50051?"),
        ("::1", r"is it \[::1\]:50051\?"),
        ("[::1]", r"is it \[::1\]:50051\?"),
        (":50051", "is it localhost:50051"),
        ("", "has no port; is it localhost:50051"),
        ("localhost:http", "http is no port"),
        ("localhost:70000", "70000 is no port"),
        ("localhost:0", "0 is no port"),
    ],
)
def test_addresses_that_are_none(address: str, said: str) -> None:
    with pytest.raises(errors.InvalidOption, match=said):
        require_address(address)


async def test_a_client_refuses_them() -> None:
    with pytest.raises(errors.InvalidOption, match="is a URL"):
        AsyncClient("http://localhost:50051")


async def test_the_address_of_the_environment(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICEWAY_ADDRESS", server.address)
    async with AsyncClient() as client:
        assert client.address == server.address
        assert (await client.process(b"x")).ok
    async with AsyncClient("127.0.0.1:1") as client:
        assert client.address == "127.0.0.1:1"
    monkeypatch.delenv("SLUICEWAY_ADDRESS")
    async with AsyncClient() as client:
        assert client.address == "localhost:50051"


@pytest.mark.parametrize(
    "address", ["localhost:1", "127.1.2.3:1", "[::1]:1", "dns:///LOCALHOST.:1", "unix:/a", "a.localhost:1"]
)
def test_places_on_this_machine(address: str) -> None:
    assert is_local(address)


@pytest.mark.parametrize(
    "address", ["10.0.0.1:1", "example.org:1", "xds:///a", "ipv4:127.0.0.1:1,10.0.0.1:1", "localhost.example.org:1"]
)
def test_places_elsewhere(address: str) -> None:
    assert not is_local(address)


async def asked_by(address: str) -> tuple[str, bytes]:
    """A proxy that serves nobody; returns its address, and what the first one asked of it."""
    asked: asyncio.Queue[bytes] = asyncio.Queue()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("grpc_proxy", "https_proxy", "no_proxy", "no_grpc_proxy"):
            patch.delenv(name, raising=False)
        patch.setenv("http_proxy", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        async with proxy, AsyncClient(address, retry=RetryPolicy(attempts=1)) as client:
            try:
                await client.describe(timeout_s=10)
            except errors.SluicewayError as error:
                said = str(error)
            else:
                said = "served"
    return said, b"" if asked.empty() else asked.get_nowait()


async def test_a_proxy_is_not_asked_for_this_machine(server: Any) -> None:
    """Nor would it know what to do."""
    assert await asked_by(server.address) == ("served", b"")
    assert await asked_by(server.address.replace("127.0.0.1", "localhost")) == ("served", b"")


async def test_a_proxy_is_asked_for_what_is_outside() -> None:
    said, asked = await asked_by("cluster.example.org:50051")
    assert asked.startswith(b"CONNECT cluster.example.org:50051 ")
    assert "cannot reach cluster.example.org:50051" in said


def ended(code: grpc.StatusCode, details: str) -> errors.SluicewayError:
    return error_from_rpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details), "host:1")


HTTP = (
    "failed to connect to all addresses; last error: INTERNAL: (Trying to connect an http1.x server (HTTP status {}))"
)


def test_servers_of_another_kind_are_told_in_words_and_not_asked_again() -> None:
    stage = ended(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    assert "host:1 is no orchestrator" in stage.message
    page = ended(grpc.StatusCode.UNAVAILABLE, HTTP.format(400))
    assert "host:1 speaks HTTP and no gRPC" in page.message
    assert not isinstance(page, errors.Unavailable)
    # A proxy whose server is away.
    assert isinstance(ended(grpc.StatusCode.UNAVAILABLE, HTTP.format(502)), errors.Unavailable)


@pytest.mark.parametrize("said", ["Stream removed", "Received RST_STREAM with error code 2"])
@pytest.mark.parametrize("code", [grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL])
def test_a_connection_that_broke_is_unavailable(code: grpc.StatusCode, said: str) -> None:
    assert isinstance(ended(code, said), errors.Unavailable)


@pytest.mark.parametrize(
    ("address", "target", "authority"),
    [
        ("localhost:50051", "localhost:50051", "localhost:50051"),
        ("dns:///eye.shop.svc:50051", "dns:///eye.shop.svc:50051", "eye.shop.svc:50051"),
        ("ipv4:127.0.0.1:1,127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2", None),
        ("localhost:50051, 127.0.0.1:50055", "ipv4:127.0.0.1:50051,127.0.0.1:50055", "localhost:50051"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2", "[::1]:1"),
    ],
)
def test_lists_become_what_grpc_calls_them(address: str, target: str, authority: str | None) -> None:
    assert target_of(require_address(address)) == target
    assert authority_of(address) == authority


@pytest.mark.parametrize("address", ["one:1,two:2", "127.0.0.1:1,[::1]:2"])
def test_lists_that_grpc_could_not_follow_are_refused_in_words(address: str) -> None:
    with pytest.raises(errors.InvalidOption, match="a list is of"):
        require_address(address)


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
async def test_a_name_that_the_proxy_looks_up_is_one_place(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "http://proxy.invalid:3128")
    assert await places_of("eye.invalid:50052") == [Place("eye.invalid:50052")]
    assert await places_of("dns:///eye.invalid") == [Place("eye.invalid:50051")]
    assert await places_of("10.0.0.1:1,10.0.0.2:2") == [Place("10.0.0.1:1"), Place("10.0.0.2:2")]
    # No proxy reaches what is on this machine.
    assert Place("127.0.0.1:3", "localhost") in await places_of("localhost:3")
