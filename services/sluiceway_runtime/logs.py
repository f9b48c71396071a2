"""Logging: one line an event, to standard error, as text for people or JSON for collectors, with the request id."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import fcntl
import json
import logging
import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from typing import BinaryIO, TextIO

__all__ = [
    "NO_REQUEST",
    "LogStyle",
    "capture_output",
    "configure_logging",
    "current_request_id",
    "message_of",
    "of_request",
]

# How each line of JSON begins: those of a worker are passed on as they are.
_JSON_BEGINS = b'{"time": "'
# How each line of text begins: when, how grave, who, and of which request.
_TEXT_BEGINS = re.compile(r"\d\d:\d\d:\d\d [A-Z]+ +\S+ \[\S+\] ")
# Room for what is written past the log, so that whoever writes need not wait for the thread that reads it. As much as
# any user may have by default.
_PIPE_BYTES = 2**20
_LAST_WORDS_S = 1.0
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
        # Whoever speaks of a request from outside of its task names it.
        if not hasattr(record, "request_id"):
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
            "request_id": getattr(record, "request_id", NO_REQUEST),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def message_of(line: str) -> str:
    """What a line of a text log says, without what it begins with; a line of another form as it is."""
    begins = _TEXT_BEGINS.match(line)
    return line[begins.end() :] if begins else line


def of_request(request_id: str) -> dict[str, str] | None:
    """The `extra` of a line about a request that is told outside of its task; None without a name, which it then has
    from there.
    """
    return {"request_id": request_id} if request_id else None


def configure_logging(style: LogStyle, stream: TextIO | None = None) -> None:
    """Set up the root logger of a process.

    Args:
        style: how it logs.
        stream: where to; standard error by default.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
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


def capture_output(style: LogStyle) -> None:
    """Log as JSON alone, whatever else writes to this process's output: C libraries, a crash, workers that inherit it.

    Standard output and error become a pipe that a thread of this process reads. A line of JSON, which only a worker
    writes there, goes on as it is; each other line becomes the message of one. What a process of ours writes as it
    crashes is read as well, as the pipe is another's.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    out = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", buffering=1)
    configure_logging(style, out)
    reading, writing = os.pipe()
    with contextlib.suppress(OSError):  # a user may have no more room for pipes; a smaller one does as well
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    for standard in (1, 2):
        os.dup2(writing, standard)
    os.close(writing)
    reader = threading.Thread(target=_pass_on, args=(os.fdopen(reading, "rb"), out), name="output", daemon=True)
    reader.start()

    def finish() -> None:
        """Let what was written last be read to its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for standard in (1, 2):
            os.dup2(nowhere, standard)
        os.close(nowhere)
        reader.join(_LAST_WORDS_S)

    atexit.register(finish)


def _pass_on(lines: BinaryIO, out: TextIO) -> None:
    log = logging.getLogger("output")
    for line in lines:
        if line.startswith(_JSON_BEGINS):
            # In one piece, as the log's own lines are written.
            out.write(line.decode("utf-8", "replace"))
        elif text := line.decode("utf-8", "replace").rstrip():
            log.warning("%s", text)
