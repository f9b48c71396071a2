"""Logging: one line an event, to standard error, as text for people or JSON for collectors, with the request id."""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import time
from dataclasses import dataclass

__all__ = ["NO_REQUEST", "LogStyle", "configure_logging", "current_request_id"]

# What logs show outside of requests.
NO_REQUEST = "-"
current_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default=NO_REQUEST)


@dataclass(frozen=True, slots=True)
class LogStyle:
    """How a process logs.

    Attributes:
        service: name of the server or worker, in every line.
        level: debug, info, warning or error.
        format: text or json.
    """

    service: str
    level: str = "info"
    format: str = "text"


class _RequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_request_id.get()
        return True


class _NoHttp(logging.Filter):
    """What somebody sends to an HTTP port and is no HTTP is no fault of the server: a line, and no traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        if kind is not None and kind.__module__ == "aiohttp.http_exceptions":
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.msg, record.exc_info = f"{record.getMessage()}: it is no HTTP/1 (gRPC has a port of its own)", None
            record.args = ()
        return True


class _Json(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(style: LogStyle) -> None:
    """Set up the root logger of a process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_RequestId())
    handler.setFormatter(
        _Json(style.service)
        if style.format == "json"
        else logging.Formatter(f"%(asctime)s %(levelname)-7s {style.service} [%(request_id)s] %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=style.level.upper(), handlers=[handler], force=True)
    # aiohttp and grpc tell at info what a server tells by itself.
    for name in ("aiohttp", "grpc", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    http = logging.getLogger("aiohttp.server")
    http.filters[:] = [_NoHttp()]
