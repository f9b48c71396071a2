"""Logging: one line an event, to standard error, as text for people or JSON for collectors, with the request id."""

from __future__ import annotations

import json
import logging
import sys
import time

from sluiceway_runtime.server.calls import current_request_id

__all__ = ["configure_logging"]


class _RequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_request_id.get()
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


def configure_logging(service: str, level: str, style: str) -> None:
    """Set up the root logger of a server process.

    Args:
        service: name of the server, in every line.
        level: debug, info, warning or error.
        style: text or json.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_RequestId())
    handler.setFormatter(
        _Json(service)
        if style == "json"
        else logging.Formatter(f"%(asctime)s %(levelname)-7s {service} [%(request_id)s] %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # aiohttp and grpc tell at info what a server tells by itself.
    for name in ("aiohttp", "grpc", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
