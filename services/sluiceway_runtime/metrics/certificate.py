"""When the certificate of a server expires."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.registry import Collector

from sluiceway_runtime.metrics.instruments import Family, gauge

__all__ = ["EXPIRY", "CertificateCollector", "not_after_s"]

EXPIRY = Family(
    "sluiceway_certificate_expiry_timestamp_seconds",
    "gauge",
    "When the server's certificate expires, the first of its chain, in seconds since 1970; there only with TLS.",
)
_END = "-----END CERTIFICATE-----"
_SEQUENCE, _CONTEXT_0, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


class CertificateCollector(Collector):
    """Reads the file again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, int] | None = None
        self._expiry_s: float | None = None

    def collect(self) -> Iterable[Metric]:
        """Nothing while the file cannot be read: what was read before may not hold."""
        try:
            facts = self._path.stat()
            if (stamp := (facts.st_mtime_ns, facts.st_ino)) != self._read:
                self._expiry_s, self._read = not_after_s(self._path.read_text(encoding="ascii")), stamp
        except (OSError, ValueError):
            return
        if self._expiry_s is not None:
            yield gauge(EXPIRY, self._expiry_s)


def not_after_s(pem: str) -> float:
    """The end of the validity of the first certificate of a chain, in seconds since 1970.

    Python shows this of a certificate of a connection or of an authority only. In a certificate (RFC 5280, 4.1) it is
    the second time of the fifth field, the fourth where no version is given.

    Raises:
        ValueError: there is no certificate, or it cannot be read.
    """
    head, end, _ = pem.partition(_END)
    der = ssl.PEM_cert_to_DER_cert(head[head.find("-----BEGIN CERTIFICATE-----") :] + end)
    certificate, _ = _enter(der, _SEQUENCE)
    fields, _ = _enter(certificate, _SEQUENCE)
    if fields[:1] == bytes((_CONTEXT_0,)):
        _, fields = _enter(fields, _CONTEXT_0)
    for _ in range(3):  # serial number, algorithm, issuer
        _, _, fields = _split(fields)
    validity, _ = _enter(fields, _SEQUENCE)
    _, _, rest = _split(validity)
    tag, text, _ = _split(rest)
    form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}.get(tag)
    if form is None:
        raise ValueError("the certificate says in no known way when it expires")
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC).timestamp()


def _enter(data: bytes, wanted: int) -> tuple[bytes, bytes]:
    tag, value, rest = _split(data)
    if tag != wanted:
        raise ValueError("this is no certificate")
    return value, rest


def _split(data: bytes) -> tuple[int, bytes, bytes]:
    """The first element of DER: its tag, its value, and what comes after it."""
    if len(data) < 2:
        raise ValueError("the certificate is cut off")
    size, begin = data[1], 2
    if size & 0x80:
        begin += size & 0x7F
        size = int.from_bytes(data[2:begin], "big")
    if len(data) < begin + size:
        raise ValueError("the certificate is cut off")
    return data[0], data[begin : begin + size], data[begin + size :]
