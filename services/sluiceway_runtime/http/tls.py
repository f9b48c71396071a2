"""The certificate of the HTTP port: the same files as gRPC's, read again when they change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from sluiceway_runtime.server.security import SecurityConfig

__all__ = ["server_context"]

log = logging.getLogger(__name__)


def server_context(config: SecurityConfig, *, mutual: bool) -> ssl.SSLContext | None:
    """Make the context of a server.

    Args:
        config: names the files.
        mutual: whether clients have to show a certificate.

    Returns:
        The context; None without TLS.
    """
    if config.certificate is None or config.key is None:
        return None
    chain, key = config.certificate, config.key
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain, key)
    if mutual and config.ca is not None:
        context.load_verify_locations(config.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    stamp = _stamp(chain, key)

    def refresh(_: ssl.SSLObject, __: str | None, context: ssl.SSLContext) -> None:
        # At each handshake; what is loaded counts from the next one on.
        nonlocal stamp
        try:
            now = _stamp(chain, key)
            if now != stamp:
                # Tried first: a certificate without its key, which may not be written yet, would end the former pair.
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
                context.load_cert_chain(chain, key)
                stamp = now
        except OSError as error:
            log.warning("the HTTP port's certificate stays as it is: %s", error)

    context.sni_callback = refresh
    return context


def _stamp(*paths: Path) -> tuple[tuple[int, int], ...]:
    return tuple((status.st_mtime_ns, status.st_ino) for status in (path.stat() for path in paths))
