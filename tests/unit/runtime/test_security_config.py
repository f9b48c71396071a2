"""What a `[security]` block may not say, and tokens as variables hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import ValidationError
from sluiceway_runtime.errors import ConfigurationError, StartupError, Unauthenticated
from sluiceway_runtime.server.security import Security, SecurityConfig, _Files, load_security

FILES = {"certificate": "server.pem", "key": "server.key"}


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (FILES | {"mutual": ["orchestrator"]}, "mutual needs ca"),
        ({"ca": "ca.pem"}, "ca does nothing without certificate and key"),
        ({"certificate": "server.pem"}, "belong together"),
        # What sha256sum gives where the variable of the token is not set: whoever sends "Bearer" would be let in.
        ({"clients": {"eye": {"token_sha256": hashlib.sha256(b"").hexdigest()}}}, "of an empty token"),
    ],
)
def test_what_would_leave_a_door_open_is_refused(block: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        SecurityConfig.model_validate(block)


def test_mutual_names_servers_that_exist() -> None:
    block = FILES | {"ca": "ca.pem"}
    stages = {"plates": {"kind": "recognition"}}
    tables = {"security": block | {"mutual": ["detecton", "plates", "orchestrator", "cars"]}, "stages": stages}
    with pytest.raises(ConfigurationError) as caught:
        load_security(tables, {})
    known = "known are detection, recognition, plates, orchestrator"
    assert str(caught.value).splitlines() == [
        f"security.mutual.0: no server is called 'detecton'; {known}",
        f"security.mutual.3: no server is called 'cars'; {known}",
    ]
    tables["security"] = block | {"mutual": ["plates", "orchestrator"]}
    assert load_security(tables, {}).mutual == ("plates", "orchestrator")


def test_nobody_is_asked_for_a_certificate_where_the_list_is_empty() -> None:
    assert SecurityConfig.model_validate(FILES | {"mutual": []}).mutual == ()


def test_the_end_of_line_of_a_token_is_no_part_of_it() -> None:
    """Secrets made with `echo` have one."""
    config = SecurityConfig.model_validate({"clients": {"eye": {"token_env": "EYE"}}, "stage_token_env": "STAGE"})
    security = Security(config, {"EYE": "abc\n", "STAGE": "xyz\r\n"})
    assert security.access.client_of("Bearer abc") == "eye"
    assert security.call_metadata() == (("authorization", "Bearer xyz"),)


def test_a_token_that_is_no_text_is_refused_like_any_other() -> None:
    """HTTP headers are bytes, which arrive as surrogates where they are not UTF-8."""
    security = Security(SecurityConfig.model_validate({"clients": {"eye": {"token_env": "EYE"}}}), {"EYE": "abc"})
    with pytest.raises(Unauthenticated):
        security.access.client_of("Bearer \udcff")


@pytest.fixture
def tls(tmp_path: Path) -> SecurityConfig:
    """Files as they should be."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    return SecurityConfig(
        certificate=tmp_path / "server.pem", key=tmp_path / "server.key", ca=tmp_path / "ca.pem", mutual=("detection",)
    )


def test_what_an_open_server_is_told_to_set_is_what_it_lacks(tls: SecurityConfig) -> None:
    """An authority alone closes the stages, not the orchestrator."""
    with pytest.raises(StartupError, match=r'"orchestrator" in security\.mutual'):
        Security(tls).require_safe("orchestrator", "0.0.0.0")
    Security(tls.model_copy(update={"mutual": ("orchestrator",)})).require_safe("orchestrator", "0.0.0.0")


def test_a_further_stage_wants_certificates_like_the_default_ones_unless_the_list_leaves_it_out(
    tls: SecurityConfig,
) -> None:
    files = tls.model_dump(include={"certificate", "key", "ca"})
    by_default = Security(SecurityConfig(**files))
    for stage in ("detection", "recognition", "plates"):
        by_default.require_safe(stage, "0.0.0.0")
    with pytest.raises(StartupError, match=r"orchestrator\.host"):
        by_default.require_safe("orchestrator", "0.0.0.0")
    with pytest.raises(StartupError, match=r"plates\.host"):
        Security(tls).require_safe("plates", "0.0.0.0")


def write_another_key(tls: SecurityConfig) -> None:
    assert tls.key is not None
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(tls.key)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda tls: tls.certificate.write_text("not PEM"), r"security\.certificate, security\.key: "),
        (write_another_key, r"security\.certificate, security\.key: "),
        (lambda tls: tls.ca.write_text("not PEM"), r"security\.ca: "),
    ],
    ids=["no PEM", "the key of another", "no authority"],
)
def test_files_that_cannot_be_used_are_told_by_key(
    tls: SecurityConfig, spoil: Callable[[SecurityConfig], object], fault: str
) -> None:
    Security(tls)
    spoil(tls)
    with pytest.raises(ConfigurationError, match=fault):
        Security(tls)


def test_a_renewal_that_cannot_be_used_is_told_and_not_said_to_be_in_use(
    tls: SecurityConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    files = _Files(tls)
    assert tls.key is not None
    former = tls.key.read_bytes()
    write_another_key(tls)
    assert not files.changed()
    assert "certificates stay as they are" in caplog.text
    assert "were read again" not in caplog.text
    tls.key.write_bytes(former)
    assert files.changed()


@pytest.mark.parametrize("value", ["", " \n"])
def test_an_empty_variable_holds_no_token(value: str) -> None:
    with pytest.raises(ConfigurationError, match="EYE is not set"):
        Security(SecurityConfig.model_validate({"clients": {"eye": {"token_env": "EYE"}}}), {"EYE": value})
    with pytest.raises(ConfigurationError, match="EYE is not set"):
        Security(SecurityConfig.model_validate({"stage_token_env": "EYE"}), {"EYE": value})
