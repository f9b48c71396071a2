"""Makes channels, each of which is one connection to one server."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
import grpc.aio

from sluiceway.client.addresses import Place, authority_of, is_local, target_of
from sluiceway.client.options import Tls
from sluiceway.errors import InvalidOption

__all__ = ["ChannelMaker"]

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # The server's limits decide; its refusal says which one was exceeded.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A cluster that is just starting should be found within a second, not after a minute of back-off.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # What a server may send before it is asked for. Otherwise the window follows the speed of the connection, and to
    # find that out each message costs a ping and its answer, which wake both sides.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 * 2**20),
    # A machine that vanished says nothing, and calls without a deadline, as those of `process_many`, would wait on.
    # These are long, because on a slow line a ping stands behind the images that are being sent.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 60_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Retries are this library's: it knows the server's pushback and what can be repeated.
    ("grpc.enable_retries", 0),
    # One connection for each channel: calls are spread over channels, by what is at the other end of each. Of several
    # addresses any may be tried first, so that many clients do not begin with the same server.
    ("grpc.service_config", '{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}'),
    # And one of its own: by default two channels to one address share theirs.
    ("grpc.use_local_subchannel_pool", 1),
)


class ChannelMaker:
    """Opens channels to the servers of one address.

    Args:
        address: one that `require_address` has taken.
        tls: for encrypted connections.
        name: that the certificate is for, where the address is that of one server behind it.

    Raises:
        InvalidOption: the address, or what TLS needs, cannot be used.
    """

    def __init__(self, address: str, *, tls: Tls | None, name: str | None = None) -> None:
        self._target = target_of(address)
        self._options = list(_OPTIONS)
        if is_local(address):
            # As everybody expects of curl's `localhost`; gRPC would ask the proxy for it. Elsewhere gRPC goes by
            # `grpc_proxy`, `https_proxy`, `http_proxy` and `no_grpc_proxy`, `no_proxy`.
            self._options.append(("grpc.enable_http_proxy", 0))
        if (authority := name or authority_of(address)) is not None:
            # Wherever a channel leads, what is between goes by this, and so do certificates.
            self._options.append(("grpc.default_authority", authority))
        self._credentials = None
        if tls is not None:
            self._credentials = _credentials(tls)
            if (certified := tls.server_name or name) is not None:
                self._options.append(("grpc.ssl_target_name_override", certified))

    def open(self, place: Place | None = None) -> grpc.aio.Channel:
        """A channel to one place of the address, or to whichever of them answers first."""
        target = place.address if place is not None else self._target
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options=self._options)
        return grpc.aio.secure_channel(target, self._credentials, options=self._options)


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    if tls.ca:
        try:
            # What gRPC cannot use it tells its own log, and the caller that nobody answers.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(tls.ca)
        except ssl.SSLError as error:
            raise InvalidOption(f"there are no certificates in {tls.ca} (PEM): {error.reason}") from error
        except OSError as error:
            raise InvalidOption(f"cannot read {tls.ca}: {error.strerror}") from error
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.ca), private_key=_read(tls.key), certificate_chain=_read(tls.certificate)
    )


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise InvalidOption(f"cannot read {path}: {error.strerror}") from error
