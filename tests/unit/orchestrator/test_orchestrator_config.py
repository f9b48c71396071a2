"""Faults of the configuration are found at start, all at once, by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.stages.resolver import Resolution, Target, system_lookup
from sluiceway_runtime.config import load_section
from sluiceway_runtime.errors import ConfigurationError


def test_the_section_reads_lists_and_tables_from_the_environment() -> None:
    environment = {
        "SLUICEWAY_ORCHESTRATOR__URL_ALLOW_HOSTS": '["a.org"]',
        "SLUICEWAY_ORCHESTRATOR__HTTP": '{"port": 8081, "allow_hosts": ["a.example"]}',
    }
    config = load_section(OrchestratorConfig, "orchestrator", tables={}, environment=environment)
    assert config.url_allow_hosts == ("a.org",)
    assert (config.http.port, config.http.allow_hosts) == (8081, ("a.example",))


@pytest.mark.parametrize("keys", [{"max_message_bytes": 2**20}, {"max_image_bytes": 2**27}, {"url_allow_cidrs": ["x"]}])
def test_limits_that_contradict_each_other(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="orchestrator"):
        load_section(OrchestratorConfig, "orchestrator", tables={"orchestrator": keys}, environment={})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"fetch_bytes": 2**30}, ("fetch_bytes", "memory_bytes")),
        (
            {"routes": {"*": "none", "line": ["default", "logos"]}},
            ("pipelines.read", 'classes = ["line"] }', 'classes = ["line"], model = "logos"'),
        ),
    ],
)
def test_keys_of_before_say_what_has_become_of_them(keys: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_section(OrchestratorConfig, "orchestrator", tables={"orchestrator": keys}, environment={})
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("dns:///detection:50052", [("detection", 50052)]),
        ("localhost:1", [("localhost", 1)]),
        ("127.0.0.1:1,127.0.0.1:2", [("127.0.0.1", 1), ("127.0.0.1", 2)]),
        ("ipv4:10.0.0.1:5,10.0.0.2:5", [("10.0.0.1", 5), ("10.0.0.2", 5)]),
        ("[::1]:50052", [("::1", 50052)]),
        ("unix:/run/detection.sock", []),
        ("file:/run/detection", []),
        ("xds:///detection", []),
    ],
)
async def test_targets(text: str, names: list[tuple[str, int]]) -> None:
    assert list(Target.parse(text).names) == names


@pytest.mark.parametrize(
    "text", ["", "file:", "localhost", "localhost:", ":50052", "http://a:1", "a:0", "a:70000", "a:1,,b:2"]
)
def test_targets_that_cannot_be(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Target.parse(text)


async def test_a_file_says_where_the_replicas_are_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "detection"
    target = Target.parse(f"file:{file}")
    assert not target.passed_on
    assert not (await target.resolve(system_lookup)).complete
    file.write_text("# ours\n127.0.0.1:1\n\n[::1]:2\n")
    assert set((await target.resolve(system_lookup)).addresses) == {"127.0.0.1:1", "[::1]:2"}
    file.write_text("127.0.0.1:3\n")
    found = await target.resolve(system_lookup)
    assert (set(found.addresses), found.complete) == ({"127.0.0.1:3"}, True)
    # None is there on purpose; what nobody can read changes nothing.
    file.write_text("")
    assert await target.resolve(system_lookup) == Resolution({}, complete=True)
    for nonsense in (b"127.0.0.1", b"\xff\xfe:1"):
        file.write_bytes(nonsense)
        assert not (await target.resolve(system_lookup)).complete


async def test_a_name_that_cannot_be_resolved_does_not_hide_the_others() -> None:
    async def lookup(name: str, _port: int) -> tuple[str, ...]:
        if name == "gone.test":
            raise OSError
        return ("10.0.0.1", "fd00::1")

    found = await Target.parse("gone.test:1,here.test:2,[::1]:3").resolve(lookup)
    assert not found.complete
    assert dict(found.addresses) == {"10.0.0.1:2": "here.test:2", "[fd00::1]:2": "here.test:2", "[::1]:3": "::1:3"}
