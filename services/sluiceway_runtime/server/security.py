"""Who may talk to a server, and how a server proves itself: TLS, mutual TLS, bearer tokens, limits for each client.

One `[security]` block serves all servers of a cluster. Certificates are read again whenever their files change;
tokens are kept as SHA-256 only.
"""

from __future__ import annotations

import contextvars
import hashlib
import ipaddress
import logging
import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.config import DEFAULT_STAGES, load_section, load_stages
from sluiceway_runtime.errors import ConfigurationError, QueueFull, StartupError, Unauthenticated

__all__ = ["Access", "ClientConfig", "Security", "SecurityConfig", "current_client", "is_loopback", "load_security"]

log = logging.getLogger(__name__)

ANONYMOUS = "anonymous"
ORCHESTRATOR = "orchestrator"
# Name of the client whose call is being served; decides fairness and limits.
current_client: contextvars.ContextVar[str] = contextvars.ContextVar("client", default=ANONYMOUS)


class ClientConfig(BaseModel):
    """One client that may call: `[security.clients.NAME]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the token, hexadecimal.")
    token_env: str | None = Field(None, description="Environment variable that holds the token.")
    rate_per_s: float | None = Field(None, gt=0, description="Calls a second; more are refused with RetryInfo.")
    max_concurrent: int | None = Field(None, ge=1, description="Calls at a time; more are refused with RetryInfo.")

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if (self.token_sha256 is None) == (self.token_env is None):
            raise ValueError("give either token_sha256 or token_env")
        if self.token_sha256 == _digest("").hex():
            raise ValueError("token_sha256 is that of an empty token, which anybody can show")
        return self


class SecurityConfig(BaseModel):
    """The `[security]` block."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Path | None = Field(None, description="PEM chain that servers show, and stages' clients where asked.")
    key: Path | None = Field(None, description="PEM private key of the certificate.")
    ca: Path | None = Field(None, description="PEM authorities that signed the servers' and clients' certificates.")
    mutual: tuple[str, ...] = Field(
        DEFAULT_STAGES,
        description="Servers that want a certificate of their clients, where `ca` is set; by default every stage.",
    )
    clients: dict[str, ClientConfig] = Field(default_factory=dict, description="Who may call; none means no tokens.")
    stage_token_env: str | None = Field(None, description="Variable with the token that the orchestrator shows stages.")
    health_without_token: bool = Field(False, description="Answer grpc.health.v1 without a token.")
    allow_unauthenticated: bool = Field(
        False, description="Listen beyond loopback although neither tokens nor client certificates are asked for."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.ca is not None and self.certificate is None:
            raise ValueError("ca does nothing without certificate and key")
        if self.mutual and "mutual" in self.model_fields_set and self.ca is None:
            raise ValueError("mutual needs ca, by which certificates of clients are told from any others")
        return self


def load_security(tables: Mapping[str, Any], environment: Mapping[str, str]) -> SecurityConfig:
    """Read the `[security]` block of an installation, whose servers it names.

    Args:
        tables: what `read_file` returned.
        environment: normally `os.environ`.

    Raises:
        ConfigurationError: the block is faulty, or one of the stages is.
    """
    config = load_section(SecurityConfig, "security", tables=tables, environment=environment)
    known = (*load_stages(tables, environment), ORCHESTRATOR)
    lines = [
        f"security.mutual.{index}: no server is called {name!r}; known are {', '.join(known)}"
        for index, name in enumerate(config.mutual)
        if name not in known
    ]
    if lines:
        raise ConfigurationError("\n".join(lines))
    return config


def is_loopback(host: str) -> bool:
    """Whether a listening address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass
class _Allowance:
    """What one client has used of its limits. A token bucket that holds one second's worth, at least one call."""

    config: ClientConfig
    tokens: float = field(init=False)
    refilled_s: float = field(default_factory=monotonic)
    running: int = 0

    def __post_init__(self) -> None:
        self.tokens = self._depth

    @property
    def _depth(self) -> float:
        return max(1.0, self.config.rate_per_s or 1.0)

    def take(self) -> None:
        limit = self.config.max_concurrent
        if limit is not None and self.running >= limit:
            raise QueueFull("too many calls at a time", metadata={"max_concurrent": str(limit)}, retry_after_s=0.1)
        rate = self.config.rate_per_s
        if rate is not None:
            now = monotonic()
            self.tokens = min(self._depth, self.tokens + (now - self.refilled_s) * rate)
            self.refilled_s = now
            if self.tokens < 1:
                raise QueueFull(
                    "too many calls a second",
                    metadata={"rate_per_s": f"{rate:g}"},
                    retry_after_s=(1 - self.tokens) / rate,
                )
            self.tokens -= 1
        self.running += 1


class Access:
    """Knows the clients by the hash of their token and counts what they use."""

    def __init__(self, clients: Mapping[str, ClientConfig], environment: Mapping[str, str]) -> None:
        self._names: dict[bytes, str] = {}
        self._allowances: dict[str, _Allowance] = {}
        for name, client in clients.items():
            if client.token_sha256 is not None:
                digest = bytes.fromhex(client.token_sha256)
            elif token := _token(environment, client.token_env or ""):
                digest = _digest(token)
            else:
                raise ConfigurationError(f"security.clients.{name}.token_env: {client.token_env} is not set")
            if digest in self._names:
                raise ConfigurationError(f"security.clients.{name}: has the token of {self._names[digest]}")
            self._names[digest] = name
            self._allowances[name] = _Allowance(client)

    @property
    def wants_token(self) -> bool:
        """Whether calls need a token at all."""
        return bool(self._names)

    def client_of(self, authorization: str | None) -> str:
        """Name of the client behind an `authorization` header or metadata value.

        Raises:
            Unauthenticated: tokens are wanted and this is none of them.
        """
        if not self._names:
            return ANONYMOUS
        scheme, _, token = (authorization or "").partition(" ")
        # A lookup by hash takes the same time whether a token is nearly right or not at all.
        name = self._names.get(_digest(token.strip()))
        if scheme.lower() != "bearer" or name is None:
            raise Unauthenticated("a valid bearer token is needed")
        return name

    def enter(self, client: str) -> Callable[[], None]:
        """Count one call of a client; returns what ends it.

        Raises:
            QueueFull: the client's own limit is reached; carries the delay after which it is not.
        """
        allowance = self._allowances.get(client)
        if allowance is None:
            return lambda: None
        allowance.take()

        def leave() -> None:
            allowance.running -= 1

        return leave


class Security:
    """The `[security]` block, ready for use.

    Args:
        config: the block.
        environment: where tokens named by variable are found.

    Raises:
        ConfigurationError: a file cannot be read, is not what it should be, or a token is missing.
    """

    def __init__(self, config: SecurityConfig | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.config = config or SecurityConfig()
        environment = environment or {}
        self.access = Access(self.config.clients, environment)
        self._stage_token = None
        if (name := self.config.stage_token_env) is not None:
            self._stage_token = _token(environment, name)
            if not self._stage_token:
                raise ConfigurationError(f"security.stage_token_env: {name} is not set")
        for key in ("certificate", "key", "ca"):
            path = getattr(self.config, key)
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigurationError(f"security.{key}: {path} cannot be read")
        if self.tls:
            _check_files(self.config)

    @property
    def tls(self) -> bool:
        """Whether servers speak TLS."""
        return self.config.certificate is not None

    def require_safe(self, section: str, host: str, key: str = "") -> None:
        """Refuse to be open to a network by accident.

        Args:
            section: of the server, by its name.
            host: what it is about to listen on.
            key: that says so; by default that of the gRPC port.

        Raises:
            StartupError: `host` is reachable from elsewhere and nothing tells one caller from another.
        """
        checked = self.access.wants_token or (self.tls and self.wants_certificate(section))
        if not (checked or self.config.allow_unauthenticated or is_loopback(host)):
            raise StartupError(
                f"{key or f'{section}.host'}: {host} can be reached from other machines, and no token or client "
                f'certificate is asked for; set security.clients, or security.ca with "{section}" in security.mutual, '
                "or security.allow_unauthenticated = true where a network policy protects it"
            )

    def server_credentials(self, section: str) -> grpc.ServerCredentials | None:
        """Credentials of a server, which follow their files; None without TLS."""
        if not self.tls:
            return None
        files = _Files(self.config)
        mutual = self.wants_certificate(section)

        def configuration() -> grpc.ServerCertificateConfiguration:
            key, chain, ca = files.contents
            return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=ca if mutual else None)

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            # Called by gRPC at each handshake; None keeps what is in use.
            return configuration() if files.changed() else None

        return grpc.dynamic_ssl_server_credentials(
            configuration(),
            fetch,  # type: ignore[arg-type]  # the stubs leave out that None keeps the certificates
            require_client_authentication=mutual,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """Credentials for calls to stages, read from the files as they are now; None without TLS."""
        if not self.tls:
            return None
        key, chain, ca = _Files(self.config).contents
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=chain)

    def stamp(self) -> object:
        """Something that changes when a certificate file does: the sign to open channels anew."""
        if not self.tls:
            return None
        try:
            return _stamps((self.config.key, self.config.certificate, self.config.ca))
        except OSError:
            # One of them is just being replaced.
            return None

    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """What calls to stages carry."""
        return () if self._stage_token is None else (("authorization", f"Bearer {self._stage_token}"),)

    def wants_certificate(self, section: str) -> bool:
        """Whether clients of a server have to show one."""
        config = self.config
        # A stage that is added later is no open door.
        by_default = section not in ("", ORCHESTRATOR) and "mutual" not in config.model_fields_set
        return config.ca is not None and (by_default or section in config.mutual)


def _token(environment: Mapping[str, str], name: str) -> str:
    """A token without the end of line that secrets made by `echo` have; empty if there is none."""
    return environment.get(name, "").strip()


def _digest(token: str) -> bytes:
    # Headers and variables that are not UTF-8 hold surrogates for their bytes, which are no reason to fail.
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _check_files(config: SecurityConfig) -> None:
    """Find what gRPC would not tell: of files that it cannot use it says only that it cannot listen.

    Raises:
        ConfigurationError: they are no PEM, the key is of another certificate, or it has a password.
    """
    assert config.certificate is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # What is strong enough is for gRPC to say.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    try:
        context.load_cert_chain(config.certificate, config.key, password="")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"security.certificate, security.key: {config.certificate} and {config.key} are not a PEM certificate and "
            f"its key without a password: {error}"
        ) from error
    try:
        if config.ca is not None:
            context.load_verify_locations(config.ca)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"security.ca: {config.ca} holds no PEM certificate: {error}") from error


class _Files:
    """The certificate files' contents, read again when one of them changed."""

    def __init__(self, config: SecurityConfig) -> None:
        assert config.key is not None
        assert config.certificate is not None
        self._config = config
        self._paths: tuple[Path, Path, Path | None] = (config.key, config.certificate, config.ca)
        self._stamp: Any = self._stamps()
        self.contents = self._read()

    def changed(self) -> bool:
        """Read again if needed; a half-written or unreadable set keeps the old one in use until the next handshake."""
        try:
            stamp = self._stamps()
            if stamp == self._stamp:
                return False
            _check_files(self._config)
            self.contents = self._read()
        except (ConfigurationError, OSError) as error:
            log.warning("certificates stay as they are: %s", error)
            return False
        self._stamp = stamp
        log.info("certificates were read again")
        return True

    def _stamps(self) -> tuple[tuple[int, int] | None, ...]:
        return _stamps(self._paths)

    def _read(self) -> tuple[bytes, bytes, bytes | None]:
        key, chain, ca = self._paths
        return key.read_bytes(), chain.read_bytes(), ca.read_bytes() if ca else None


def _stamps(paths: Iterable[Path | None]) -> tuple[tuple[int, int] | None, ...]:
    # Inode as well as time: secrets mounted by Kubernetes are swapped as links.
    return tuple((s.st_mtime_ns, s.st_ino) if p and (s := p.stat()) else None for p in paths)
