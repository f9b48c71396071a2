"""What a `[security]` block may not say, and tokens as variables hold them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from sluiceway_runtime.errors import ConfigurationError
from sluiceway_runtime.server.security import Security, SecurityConfig

FILES = {"certificate": "server.pem", "key": "server.key"}


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (FILES | {"ca": "ca.pem", "mutual": ["detecton"]}, "mutual"),
        (FILES | {"mutual": ["orchestrator"]}, "mutual needs ca"),
        ({"ca": "ca.pem"}, "ca does nothing without certificate and key"),
        ({"certificate": "server.pem"}, "belong together"),
    ],
)
def test_what_would_leave_a_door_open_is_refused(block: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        SecurityConfig.model_validate(block)


def test_nobody_is_asked_for_a_certificate_where_the_list_is_empty() -> None:
    assert SecurityConfig.model_validate(FILES | {"mutual": []}).mutual == ()


def test_the_end_of_line_of_a_token_is_no_part_of_it() -> None:
    """Secrets made with `echo` have one."""
    config = SecurityConfig.model_validate({"clients": {"eye": {"token_env": "EYE"}}, "stage_token_env": "STAGE"})
    security = Security(config, {"EYE": "abc\n", "STAGE": "xyz\r\n"})
    assert security.access.client_of("Bearer abc") == "eye"
    assert security.call_metadata() == (("authorization", "Bearer xyz"),)


@pytest.mark.parametrize("value", ["", " \n"])
def test_an_empty_variable_holds_no_token(value: str) -> None:
    with pytest.raises(ConfigurationError, match="EYE is not set"):
        Security(SecurityConfig.model_validate({"clients": {"eye": {"token_env": "EYE"}}}), {"EYE": value})
    with pytest.raises(ConfigurationError, match="EYE is not set"):
        Security(SecurityConfig.model_validate({"stage_token_env": "EYE"}), {"EYE": value})
