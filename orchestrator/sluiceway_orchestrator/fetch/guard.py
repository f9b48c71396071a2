"""Where requests may go. A URL comes from a stranger: it must not make this server talk to its own network.

Three checks, none of which trusts the one before: the text of the URL, the address that a name stands for (the very
one that is then connected to, so a name that changes its mind between two look-ups gains nothing), and the same again
for every redirect.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult
from sluiceway_runtime.errors import UrlNotAllowed
from sluiceway_runtime.http.origin import NO_URL
from yarl import URL

from sluiceway_orchestrator.fetch.url_text import split_url

__all__ = ["GuardedResolver", "LookUp", "UrlPolicy", "host_of", "system_look_up"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LookUp = Callable[[str, int], Awaitable[Sequence[str]]]

_MAX_URL = 8192
# A look-up holds a thread for as long as a name server keeps silent, whoever still waits for it. Names of strangers
# have threads of their own: in the loop's few they would hold up the names of the stages.
_LOOK_UPS = ThreadPoolExecutor(64, thread_name_prefix="look-up")
# Anything that one parser may read otherwise than another; white space only in the host.
_CONFUSING = re.compile(r"[\x00-\x1f\x7f\\]")
# Forms that resolvers of the C library take for IPv4 addresses: 2130706433, 0x7f.1, 017700000001, 127.1.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*\.?", re.IGNORECASE)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# All of IPv6 that is given out for hosts of the public; what is elsewhere is local, or stands for an IPv4 address.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Besides what the standard library knows as not global; some of it differs between releases of Python.
_NEVER_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier NAT; some clouds keep their metadata here
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own services, at an address that looks public
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/3",  # multicast and reserved
        "2001::/23",  # Teredo and other protocol assignments
        "2002::/16",  # 6to4: hosts behind an IPv4 address, which may be one of this very network
    )
)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that is connected to when an IPv6 address is, if it stands for one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not any(address in network for network in _NEVER_PUBLIC)


class UrlPolicy:
    """Which URLs are allowed. An address is if it lies in `allow_cidrs`, or is public and its host is in `allow_hosts`.

    `trusted_host` is the host of an API that the operator configured: it may be anywhere.
    """

    def __init__(
        self, allow_hosts: Sequence[str], allow_cidrs: Sequence[str], *, trusted_host: str | None = None
    ) -> None:
        self._trusted = trusted_host
        self._any_host = "*" in allow_hosts
        self._hosts = frozenset(_sent_name(host) for host in allow_hosts if not host.startswith("*"))
        self._domains = tuple(f".{_sent_name(host[2:])}" for host in allow_hosts if host.startswith("*."))
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(text) for text in allow_cidrs)

    def __repr__(self) -> str:
        hosts = "*" if self._any_host else sorted((*self._hosts, *(f"*{domain}" for domain in self._domains)))
        return f"<UrlPolicy hosts={hosts} networks={[str(network) for network in self._networks]}>"

    def parse(self, text: str) -> URL:
        """Check the text of a URL and give back what may be requested: path and query byte for byte as written.

        Raises:
            UrlNotAllowed: it is no plain http or https URL, or its host can be refused without a look-up.
        """
        text = text.strip()
        if len(text) > _MAX_URL:
            raise UrlNotAllowed(f"the URL is longer than {_MAX_URL} characters")
        if _CONFUSING.search(text):
            raise UrlNotAllowed("the URL holds a backslash or control characters")
        try:
            written = split_url(text)
        except ValueError as error:
            raise UrlNotAllowed("only http and https URLs are fetched, with their host") from error
        if written.scheme not in ("http", "https"):
            raise UrlNotAllowed("only http and https URLs are fetched")
        if not written.authority:
            raise UrlNotAllowed("the URL names no host")
        # In the text itself, since the parser forgets an empty user name.
        if "@" in written.authority:
            raise UrlNotAllowed("a URL with a user name is not fetched")
        if any(character.isspace() for character in written.authority):
            raise UrlNotAllowed("the host of the URL holds white space")
        try:
            origin = URL(f"{written.scheme}://{written.authority}")
            host, port = origin.raw_host, origin.port
        except NO_URL as error:
            raise UrlNotAllowed("the URL cannot be read") from error
        if not host or port is None:
            raise UrlNotAllowed("the URL names no host")
        self.check_host(host)
        # Path and query in one: apart, the library forgets a question mark with nothing behind it.
        return URL.build(
            scheme=written.scheme, authority=_authority(host, origin.explicit_port), path=written.target, encoded=True
        )

    def check_host(self, host: str) -> None:
        """Check a host as it stands in a URL, before any look-up.

        Raises:
            UrlNotAllowed: it is an address that is not allowed, one in a disguise, or a name that cannot be allowed.
        """
        if host == self._trusted:
            return
        address = _literal(host)
        if address is not None:
            self.check_address(host, address)
        elif _NUMERIC.fullmatch(host):
            raise UrlNotAllowed("an address must be written in its usual form")
        elif not self._networks and not self._listed(host):
            raise UrlNotAllowed("the operator does not allow this host")

    def check_address(self, host: str, address: Address) -> None:
        """Check an address that is about to be connected to for a host.

        Raises:
            UrlNotAllowed: it is neither in an allowed network nor the public address of an allowed host.
        """
        if host == self._trusted:
            return
        if getattr(address, "scope_id", None):
            raise UrlNotAllowed("an address with a zone is not fetched from")
        plain = _unwrapped(address)
        if any(plain in network or address in network for network in self._networks):
            return
        if not _is_public(plain):
            raise UrlNotAllowed("the address is not public")
        if not self._listed(host):
            raise UrlNotAllowed("the operator does not allow this host")

    def _listed(self, host: str) -> bool:
        if self._any_host:
            return True
        name = host.lower().rstrip(".")
        return name in self._hosts or any(name.endswith(domain) for domain in self._domains)


def host_of(url: str) -> str:
    """The host of a URL as policies are asked for it.

    Raises:
        ValueError: it has none.
    """
    try:
        written = split_url(url)
        host = URL(f"{written.scheme}://{written.authority or ''}").raw_host
    except IndexError as error:
        raise ValueError("no URL") from error
    if not host:
        raise ValueError("no host")
    return host


async def system_look_up(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, look_up)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedResolver(AbstractResolver):
    """Gives the HTTP client only addresses that are allowed; it connects to exactly these.

    A name that stands for an allowed and a refused address at once is refused: somebody is trying something.
    """

    def __init__(self, policy: UrlPolicy, look_up: LookUp = system_look_up) -> None:
        self._policy = policy
        self._look_up = look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look a name up.

        Raises:
            OSError: it cannot be resolved.
            UrlNotAllowed: an address that it stands for is refused.
        """
        results = []
        for text in await self._look_up(host, port):
            address = ipaddress.ip_address(text)
            self._policy.check_address(host, address)
            found = socket.AF_INET if address.version == 4 else socket.AF_INET6
            if family in (socket.AF_UNSPEC, found):
                results.append(
                    ResolveResult(
                        hostname=host,
                        host=text,
                        port=port,
                        family=found,
                        proto=0,
                        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                    )
                )
        if not results:
            raise OSError(None, f"no address for {host}")
        return results

    async def close(self) -> None:
        """Nothing is held."""


def _authority(host: str, port: int | None) -> str:
    written = f"[{host}]" if ":" in host else host
    return written if port is None else f"{written}:{port}"


def _sent_name(host: str) -> str:
    """A name as it is looked up: of what is not ASCII, the form of the name system."""
    try:
        return (URL.build(scheme="http", host=host).raw_host or host).lower().rstrip(".")
    except NO_URL:
        return host.lower().rstrip(".")


def _literal(host: str) -> Address | None:
    """The address that a host is, if it is one in a form that every parser reads alike."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
