"""Addresses of servers, as people write them."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from typing import NamedTuple

from sluiceway.errors import InvalidOption

__all__ = [
    "Place",
    "authority_of",
    "is_local",
    "place_of",
    "places_of",
    "require_address",
    "spreads_itself",
    "target_of",
]

DEFAULT_PORT = 50051
# What gRPC resolves by itself. Of the first group the rest is `host:port`, after an authority or none.
_HOSTS = ("dns", "ipv4", "ipv6", "passthrough")
# Variables by which gRPC goes through a proxy, which is given the name.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_OTHERS = ("unix", "unix-abstract", "vsock", "xds", "google-c2p")


def require_address(text: str) -> str:
    """Return an address that `target_of` can make a target of.

    Args:
        text: `host:port`, several of them with commas between, or a name of gRPC such as `dns:///host:port`,
            `unix:/path` and `xds:///name`.

    Raises:
        InvalidOption: it is none; the message says what it may be.
    """
    scheme, rest = _split(text)
    if scheme in ("http", "https"):
        tls = " and --tls, or tls=Tls() in Python" if scheme == "https" else ""
        raise InvalidOption(
            f"{text} is a URL; the address of a cluster is host:port, here {_with_port(rest.strip('/'))}{tls} "
            "(HTTP has a port of its own)"
        )
    if scheme in _OTHERS:
        return text
    if scheme and scheme not in _HOSTS:
        raise InvalidOption(f"{text}: an address is host:port, or one of gRPC's with {', '.join((*_HOSTS, *_OTHERS))}")
    for place in rest.rpartition("/")[2].split(","):
        host, port = _place(place.strip())
        if not host or (not port and scheme != "dns"):
            raise InvalidOption(f"{text} has no port; is it {_with_port(text)}?")
        if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
            raise InvalidOption(f"{text}: {port} is no port; one is a number from 1 to 65535")
    if not scheme and "," in text:
        target_of(text)
    return text


def target_of(address: str) -> str:
    """What gRPC calls the servers of an address.

    Args:
        address: one that `require_address` has taken.

    Raises:
        InvalidOption: a list has names, or addresses of both kinds. gRPC looks up one name, with all its addresses.
    """
    scheme, _ = _split(address)
    if scheme or "," not in address:
        return address
    places = [_place(place.strip()) for place in address.split(",")]
    try:
        hosts = [ipaddress.ip_address("127.0.0.1" if host == "localhost" else host) for host, _ in places]
    except ValueError:
        raise InvalidOption(
            f"{address}: a list is of IP addresses; a name that stands for several servers is given alone"
        ) from None
    versions = {host.version for host in hosts}
    if len(versions) > 1:
        raise InvalidOption(f"{address}: a list is of addresses of IPv4 or of IPv6, not of both")
    named = (f"[{host}]" if host.version == 6 else str(host) for host in hosts)
    return f"ipv{versions.pop()}:" + ",".join(f"{host}:{port}" for host, (_, port) in zip(named, places, strict=True))


class Place(NamedTuple):
    """One server of an address.

    Attributes:
        address: of it alone.
        name: by which it was found, whose certificate it has; None where it was given by its own address.
    """

    address: str
    name: str | None = None


async def places_of(address: str) -> list[Place]:
    """Every server that an address stands for, by looking it up.

    Args:
        address: one that `require_address` has taken. What gRPC resolves in ways of its own stays as it is, and so does
            a name that the proxy looks up.

    Raises:
        OSError: the name is not known.
    """
    scheme, rest = _split(address)
    if scheme not in ("", "dns"):
        return [Place(address)]
    places = []
    for text in rest.rpartition("/")[2].split(","):
        host, port = _place(text.strip())
        if not _is_ip(host) and not is_local(address) and any(map(os.environ.get, _PROXIES)):
            places.append(Place(f"{host}:{port or DEFAULT_PORT}"))
            continue
        found = await asyncio.get_running_loop().getaddrinfo(host, int(port or DEFAULT_PORT), type=socket.SOCK_STREAM)
        for family, _, _, _, socket_address in found:
            ip, number = str(socket_address[0]), int(socket_address[1])
            place = f"[{ip}]:{number}" if family == socket.AF_INET6 else f"{ip}:{number}"
            places.append(Place(place, None if ip == host else host))
    return list(dict.fromkeys(places))


def authority_of(address: str) -> str | None:
    """What servers are called by, and certificates compared with: of a list its first; None where gRPC knows better."""
    scheme, rest = _split(address)
    if scheme not in ("", "dns"):
        return None
    return rest.rpartition("/")[2].partition(",")[0].strip() or None


def spreads_itself(address: str) -> bool:
    """Whether what is behind an address is gRPC's own affair: a balancer's, or one socket's."""
    return _split(address)[0] in _OTHERS


def place_of(address: str) -> tuple[str, int] | None:
    """Host and port of an address, of a list those of the first; None for what only gRPC can resolve."""
    scheme, rest = _split(address)
    if scheme and scheme not in _HOSTS:
        return None
    host, port = _place(rest.rpartition("/")[2].partition(",")[0].strip())
    return (host, int(port or DEFAULT_PORT)) if host else None


def is_local(address: str) -> bool:
    """Whether an address can only be on this machine, so that no proxy could reach it."""
    scheme, rest = _split(address)
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme and scheme not in _HOSTS:
        return False
    return all(_is_loopback(_place(place.strip())[0]) for place in rest.rpartition("/")[2].split(","))


def _split(address: str) -> tuple[str, str]:
    """Part the scheme off; empty where there is none."""
    scheme, colon, rest = address.partition(":")
    if colon and (rest.startswith("//") or scheme in (*_HOSTS, *_OTHERS)):
        return scheme.lower(), rest
    return "", address


def _place(text: str) -> tuple[str, str]:
    """Part host and port; an address of IPv6 without brackets has none."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, port.removeprefix(":")
    if text.count(":") > 1:
        return text, ""
    host, _, port = text.partition(":")
    return host, port


def _with_port(text: str) -> str:
    host, port = _place(text)
    return f"{f'[{host}]' if ':' in host else host or 'localhost'}:{port or DEFAULT_PORT}"


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return _is_ip(name) and ipaddress.ip_address(name.partition("%")[0]).is_loopback


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
