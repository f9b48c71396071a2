"""From the target of a stage to the addresses of its replicas."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from sluiceway_runtime.errors import ConfigurationError

__all__ = ["Lookup", "Resolution", "Target", "system_lookup"]

# Name and port in, addresses out (numeric, without the port); raises OSError when the name cannot be resolved now.
Lookup = Callable[[str, int], Awaitable[tuple[str, ...]]]

# These go to gRPC as they are: it balances (xds) or there is nothing to balance.
_PASSED_ON = ("xds:", "unix:", "unix-abstract:", "vsock:")


async def system_lookup(name: str, port: int) -> tuple[str, ...]:
    """Ask the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    # A dual-stack name gives two addresses for each replica, which counted as two would get twice its share.
    families = {entry[0] for entry in found}
    family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found if entry[0] == family))


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a target stands for at the moment.

    Attributes:
        addresses: `host:port`, ready for a channel, to `name:port`, which certificates are issued for.
        complete: False if a name could not be resolved; replicas known from before are then kept.
    """

    addresses: Mapping[str, str]
    complete: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A stage's target, taken apart.

    Attributes:
        text: as configured.
        names: name and port of each entry; empty if the target is passed on to gRPC.
    """

    text: str
    names: tuple[tuple[str, int], ...]

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `dns:///name:port`, `name:port`, `ipv4:…`, a comma-separated list of these, or what is gRPC's own.

        Raises:
            ConfigurationError: it is none of these.
        """
        if text.startswith(_PASSED_ON):
            return cls(text, ())
        names = []
        for entry in text.split(","):
            plain = entry.strip()
            for prefix in ("dns:///", "dns:", "ipv4:///", "ipv4:", "ipv6:///", "ipv6:"):
                plain = plain.removeprefix(prefix)
            name, separator, port = plain.rpartition(":")
            name = name.removeprefix("[").removesuffix("]")
            if not separator or not name or "/" in name or not port.isdigit() or not 0 < int(port) < 2**16:
                raise ConfigurationError(f"{text!r}: wants name:port, dns:///name:port, unix:PATH or xds:///NAME")
            names.append((name, int(port)))
        return cls(text, tuple(names))

    @property
    def passed_on(self) -> bool:
        """Whether gRPC itself resolves and balances it."""
        return not self.names

    async def resolve(self, lookup: Lookup) -> Resolution:
        """Look up every name."""
        addresses: dict[str, str] = {}
        complete = True
        for name, port in self.names:
            try:
                found = (str(ipaddress.ip_address(name)),)
            except ValueError:
                try:
                    found = await lookup(name, port)  # type: ignore[assignment]  # one address above, any number here
                except OSError:
                    complete = False
                    continue
            for address in found:
                addresses[f"[{address}]:{port}" if ":" in address else f"{address}:{port}"] = f"{name}:{port}"
        return Resolution(addresses, complete)
