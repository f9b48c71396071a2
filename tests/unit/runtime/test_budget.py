"""How many bytes a server may hold: by its configuration, its control group, or its queue."""

from __future__ import annotations

from pathlib import Path

import pytest
from sluiceway_runtime.account import Phase
from sluiceway_runtime.config import ServerConfig, StageConfig
from sluiceway_runtime.control_groups import memory_limit_bytes
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.budget import memory_budget

GIB = 2**30


def machine(folder: Path, groups: str, files: dict[str, str]) -> dict[str, Path]:
    """The proc and sys file systems of a machine of 8 GiB."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(groups)
    (folder / "proc/meminfo").write_text(f"MemTotal:       {8 * GIB // 1024} kB\nMemFree:        1 kB\n")
    for name, text in files.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return {"proc": folder / "proc", "sys": folder / "sys"}


@pytest.mark.parametrize(
    ("groups", "files", "limit_bytes"),
    [
        ("", {}, 8 * GIB),
        ("0::/\n", {"memory.max": str(GIB)}, GIB),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": str(2 * GIB)}, 2 * GIB),
        ("0::/a/b\n", {"a/b/memory.max": str(GIB), "a/memory.max": str(2 * GIB)}, GIB),
        # Of a container that sees the host's path and its own part of the tree.
        ("0::/host/pod\n", {"memory.max": str(GIB)}, GIB),
        ("0::/\n", {"memory.max": str(64 * GIB)}, 8 * GIB),
        ("4:memory:/pod\n1:cpu:/pod\n", {"memory/pod/memory.limit_in_bytes": str(GIB)}, GIB),
        # Version 1 has no word for no limit.
        ("4:memory:/pod\n", {"memory/pod/memory.limit_in_bytes": "9223372036854771712"}, 8 * GIB),
    ],
)
def test_the_memory_that_may_be_used_is_the_least_of_all_that_limits_it(
    tmp_path: Path, groups: str, files: dict[str, str], limit_bytes: int
) -> None:
    assert memory_limit_bytes(**machine(tmp_path, groups, files)) == limit_bytes


def test_a_stage_has_its_queue_and_a_margin_and_an_orchestrator_a_share_of_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sluiceway_runtime.server.budget.memory_limit_bytes", lambda: GIB)
    stage = memory_budget(StageConfig(port=0, operations_port=0, queue_bytes=GIB))
    assert stage.total_bytes == GIB + 64 * 2**20
    # All that a stage is sent comes by the door, and fills its queue.
    assert stage.limit_bytes(Phase.DOOR, Priority.INTERACTIVE) == stage.total_bytes
    default = memory_budget(StageConfig(port=0, operations_port=0))
    assert default.limit_bytes(Phase.DOOR, Priority.NORMAL) >= 256 * 2**20
    orchestrator = memory_budget(ServerConfig(port=0, operations_port=0))
    assert orchestrator.total_bytes == int(0.4 * GIB)
    assert orchestrator.limit_bytes(Phase.DOOR, Priority.INTERACTIVE) < orchestrator.total_bytes


def test_what_is_configured_is_used_and_told_where_it_is_little(caplog: pytest.LogCaptureFixture) -> None:
    assert memory_budget(ServerConfig(port=0, operations_port=0, memory_bytes=GIB)).total_bytes == GIB
    assert not caplog.records
    assert memory_budget(ServerConfig(port=0, operations_port=0, memory_bytes=2**20)).total_bytes == 2**20
    assert "max_message_bytes = 67108864" in caplog.text
    assert "memory_bytes = 1048576" in caplog.text
