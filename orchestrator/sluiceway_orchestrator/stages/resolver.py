"""From the target of a stage to the addresses of its replicas."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sluiceway_runtime.errors import ConfigurationError

__all__ = ["Lookup", "Resolution", "Target", "system_lookup"]

# Name and port in, addresses out (numeric, without the port); raises OSError when the name cannot be resolved now.
Lookup = Callable[[str, int], Awaitable[tuple[str, ...]]]

# These go to gRPC as they are: it balances (xds) or there is nothing to balance.
_PASSED_ON = ("xds:", "unix:", "unix-abstract:", "vsock:")
# A file that somebody keeps up to date, an entry a line.
_FILE = "file:"


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
        complete: False if a name could not be resolved, or the file not read; replicas known from before are then kept.
    """

    addresses: Mapping[str, str]
    complete: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A stage's target, taken apart.

    Attributes:
        text: as configured.
        names: name and port of each entry; empty if the target is passed on to gRPC, or stands in a file.
        file: where the entries stand, if they are not here.
    """

    text: str
    names: tuple[tuple[str, int], ...]
    file: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `dns:///name:port`, `name:port`, `ipv4:…`, a list of these with commas, `file:PATH`, or what is gRPC's.

        Raises:
            ConfigurationError: it is none of these.
        """
        if text.startswith(_PASSED_ON):
            return cls(text, ())
        if text.startswith(_FILE) and text != _FILE:
            return cls(text, (), Path(text.removeprefix(_FILE)))
        names = []
        for entry in text.split(","):
            plain = entry.strip()
            for prefix in ("dns:///", "dns:", "ipv4:///", "ipv4:", "ipv6:///", "ipv6:"):
                plain = plain.removeprefix(prefix)
            name, separator, port = plain.rpartition(":")
            name = name.removeprefix("[").removesuffix("]")
            if not separator or not name or "/" in name or not port.isdigit() or not 0 < int(port) < 2**16:
                raise ConfigurationError(
                    f"{text!r}: wants name:port, dns:///name:port, file:PATH, unix:PATH or xds:///NAME"
                )
            names.append((name, int(port)))
        return cls(text, tuple(names))

    @property
    def passed_on(self) -> bool:
        """Whether gRPC itself resolves and balances it."""
        return not self.names and self.file is None

    async def resolve(self, lookup: Lookup) -> Resolution:
        """Look up every name."""
        addresses: dict[str, str] = {}
        complete = True
        try:
            # A few lines, of a machine's own disk: nobody waits for them.
            names = self.names if self.file is None else _read(self.file)
        except (OSError, UnicodeDecodeError, ConfigurationError):
            return Resolution({}, complete=False)
        for name, port in names:
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


def _read(file: Path) -> tuple[tuple[str, int], ...]:
    lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    return Target.parse(",".join(entries)).names if entries else ()
