"""Lines of a text log, and what they say."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sluiceway_runtime.logs import message_of

LOG = """
import logging
from sluiceway_runtime.logs import LogStyle, configure_logging, current_request_id
configure_logging(LogStyle("recognition"))
logging.getLogger("x").warning("compiled 3 of 12 graphs")
current_request_id.set("night.1")
logging.getLogger("x").info("[-] of a request")
"""


def test_what_a_line_says() -> None:
    done = subprocess.run([sys.executable, "-c", LOG], capture_output=True, text=True, timeout=60, check=True)
    assert [message_of(line) for line in done.stderr.splitlines()] == ["compiled 3 of 12 graphs", "[-] of a request"]


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", '{"time": "12:00:00"}', "12:00:00 later", ""])
def test_other_lines_stay_as_they_are(line: str) -> None:
    assert message_of(line) == line
