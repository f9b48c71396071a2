"""The pure parts of fetching: breaker, pointers, first bytes, policies."""

from __future__ import annotations

import ipaddress

import pytest
from sluiceway_orchestrator.fetch.breaker import Breaker, BreakerState
from sluiceway_orchestrator.fetch.content import is_image, resolve_pointer
from sluiceway_orchestrator.fetch.guard import UrlPolicy
from sluiceway_orchestrator.fetch.load import load_caller
from sluiceway_runtime.errors import ConfigurationError, UrlNotAllowed


def test_a_breaker_opens_tries_one_and_closes() -> None:
    breaker = Breaker(failures=3, open_s=10)
    for now in range(3):
        assert breaker.admit(now) is None
        breaker.failed(now)
    assert breaker.admit(5) == pytest.approx(7)
    assert breaker.admit(12) is None
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admit(12.5) is not None, "one at a time"
    breaker.failed(13)
    assert breaker.admit(20) is not None
    assert breaker.admit(23) is None
    breaker.succeeded()
    assert breaker.admit(23) is None
    assert breaker.state is BreakerState.CLOSED


def test_failures_have_to_be_in_a_row() -> None:
    breaker = Breaker(failures=2, open_s=10)
    for _ in range(5):
        breaker.failed(0)
        breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_a_trial_whose_caller_left_does_not_block_the_next() -> None:
    breaker = Breaker(failures=1, open_s=10)
    breaker.failed(0)
    assert breaker.admit(11) is None
    breaker.abandoned()
    assert breaker.admit(11.5) is None


DOCUMENT = {"a": {"b/c": [10, {"d~e": None}]}, "": 5, "0": "zero"}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [("", DOCUMENT), ("/a/b~1c/0", 10), ("/a/b~1c/1/d~0e", None), ("/", 5), ("/0", "zero")],
)
def test_pointers(pointer: str, value: object) -> None:
    assert resolve_pointer(DOCUMENT, pointer) == value


@pytest.mark.parametrize("pointer", ["/x", "/a/b", "/a/b~1c/2", "/a/b~1c/-1", "/a/b~1c/-", "/0/0"])
def test_pointers_to_nothing(pointer: str) -> None:
    with pytest.raises(KeyError):
        resolve_pointer(DOCUMENT, pointer)


@pytest.mark.parametrize(
    ("data", "image"),
    [
        (b"\xff\xd8\xff\xe0", True), (b"\x89PNG\r\n\x1a\n...", True), (b"RIFF\x00\x00\x00\x00WEBPVP8 ", True),
        (b"BM....", True), (b"II*\x00", True), (b"MM\x00*", True), (b"II+\x00", True), (b"GIF89a", True),
        (b"\0\0\0\x20ftypavif\0\0\0\0", True), (b"\0\0\0\x20ftypmif1\0\0\0\0heicmif1", True),
        (b"\xff\x4f\xff\x51", True), (b"\0\0\0\x20ftypisom\0\0\0\0mp42", False),
        (b"", False), (b"RIFF\x00\x00\x00\x00WAVE", False), (b"<html>", False), (b"%PDF", False),
    ],
)  # fmt: skip
def test_first_bytes(data: bytes, image: bool) -> None:
    assert is_image(data) is image
    assert is_image(memoryview(data)) is image


def allowed(policy: UrlPolicy, host: str, address: str) -> bool:
    try:
        policy.check_host(host)
        policy.check_address(host, ipaddress.ip_address(address))
    except UrlNotAllowed:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("example.org", "93.184.216.34", True),
        ("EXAMPLE.org.", "93.184.216.34", True),
        ("www.example.org", "93.184.216.34", False),
        ("a.b.example.net", "2606:2800:220:1::1", True),
        ("example.net", "93.184.216.34", False),
        ("notexample.net", "93.184.216.34", False),
        ("example.org", "10.0.0.5", False),
        ("anything.internal", "10.1.2.3", True),
        ("anything.internal", "10.2.2.3", False),
        ("example.org", "::ffff:10.1.2.3", True),
        ("example.org", "64:ff9b::a01:203", True),
        ("example.org", "64:ff9b::a02:203", False),
        ("93.184.216.34", "93.184.216.34", False),
        ("10.1.2.3", "10.1.2.3", True),
    ],
)
def test_hosts_and_networks(host: str, address: str, expected: bool) -> None:
    policy = UrlPolicy(["example.org", "*.example.net"], ["10.1.0.0/16"])
    assert allowed(policy, host, address) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("::ffff:8.8.8.8", True),  # mapped: the system connects to the IPv4 address itself
        ("::ffff:10.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::808:808", True),  # NAT64: how a network without IPv4 reaches the rest of the world
        ("64:ff9b::a00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::808:808", False),  # NAT64 with a prefix of the network's own
        ("2002:808:808::1", False),  # 6to4: hosts of whoever has that address, or of this very network
        ("2002:a00:1::1", False),
        ("2002:7f00:1::", False),
        ("2001:0:808:808::1", False),  # Teredo
        ("::ffff:0:a00:1", False),  # translated, as stateless translators route it
        ("::ffff:0:808:808", False),
        ("::10.0.0.1", False),  # compatible
        ("4000::1", False),  # nobody's
        ("2606:2800:220:1::1", True),
    ],
)
def test_an_address_within_an_address_is_no_way_inside(address: str, expected: bool) -> None:
    assert allowed(UrlPolicy(["*"], []), "example.org", address) is expected
    assert allowed(UrlPolicy(["*"], []), f"[{address}]", address) is expected


def test_a_network_that_the_operator_allows_is_not_reached_through_another_host() -> None:
    """A 6to4 host that tunnels behind 10.1.2.3 is not 10.1.2.3."""
    assert not allowed(UrlPolicy([], ["10.0.0.0/8"]), "example.org", "2002:a01:203::1")
    assert allowed(UrlPolicy([], ["2002:a01::/32"]), "example.org", "2002:a01:203::1")


@pytest.mark.parametrize("name", ["no.such.module:Thing", "sluiceway_orchestrator:Thing", "unregistered", "json:dumps"])
def test_a_caller_that_cannot_be_loaded_names_its_key(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"api\.x\.caller"):
        load_caller(name, key="api.x.caller")


class Whole:
    params = ("id",)

    async def setup(self, session: object, config: object) -> None:
        pass

    async def __call__(self, call: object) -> object:
        return call


class OldSetup(Whole):
    async def setup(self, session: object) -> None:  # type: ignore[override]
        pass


class OldCall(Whole):
    async def __call__(self) -> object:  # type: ignore[override]
        return None


class OneParam(Whole):
    params = "id"  # type: ignore[assignment]


class NumberParams(Whole):
    params = (1,)  # type: ignore[assignment]


def test_a_caller_as_the_protocol_says_is_loaded() -> None:
    assert isinstance(load_caller(f"{__name__}:Whole", key="api.x.caller"), Whole)


@pytest.mark.parametrize(
    ("caller", "words"),
    [
        ("OldSetup", r"setup of .* must take \(session, config\)"),
        ("OldCall", r"__call__ of .* must take \(call\)"),
        ("OneParam", "params of .* must be a list of names"),
        ("NumberParams", "params of .* must be a list of names"),
    ],
)
def test_a_caller_that_takes_something_else_is_a_fault_by_key(caller: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^api\.x\.caller: {words}"):
        load_caller(f"{__name__}:{caller}", key="api.x.caller")
