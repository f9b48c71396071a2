"""Whether a server that does not answer wants to be spoken to in another way."""

from __future__ import annotations

import asyncio
import ssl

__all__ = ["speaks_tls"]

# For a handshake; nobody waits longer to hear why a call failed.
HANDSHAKE_S = 1.0


async def speaks_tls(host: str, port: int) -> bool:
    """Whether a server answers a TLS handshake, whatever its certificate.

    It is asked with nothing but a greeting, after a call in the clear was cut off.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Not to be trusted, only to be recognised: nothing is sent.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Servers of gRPC refuse whoever does not know this.
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        # One that wants a certificate of the client says so in TLS; others send what is none.
        return "CERTIFICATE" in (error.reason or "")
    except (OSError, TimeoutError):
        return False
    # Saying goodbye may take longer than anybody waits.
    writer.transport.abort()
    return True
