"""Reading CPUs, topology and control groups from /proc and /sys, here made of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sluiceway_runtime.cores import CpuFacts, isa, parse_cpu_list, read_cpu_facts


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., CpuFacts]:
    """Writes the files and reads the facts from them."""

    def build(files: dict[str, str], allowed: tuple[int, ...] = (0, 1, 2, 3)) -> CpuFacts:
        for name, text in ({"sys/devices/system/cpu/online": "0-3"} | files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return read_cpu_facts(proc=tmp_path / "proc", sys=tmp_path / "sys", allowed=allowed)

    return build


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0", (0,)), ("0-3", (0, 1, 2, 3)), ("3,0-1,8-9\n", (0, 1, 3, 8, 9)), ("", ()), ("5,5,4-5", (4, 5))],
)
def test_cpu_lists(text, cpus):
    assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize("text", ["a", "1-", "-1", "0-b", "3-1", "0,5-4"])
def test_what_is_no_cpu_list(text):
    with pytest.raises(ValueError, match=r"invalid literal|end is before its beginning"):
        parse_cpu_list(text)


def test_a_machine_that_says_nothing_has_a_core_per_cpu_and_no_limit(read):
    facts = read({})
    assert facts.allowed == facts.online == (0, 1, 2, 3)
    assert (facts.quota_cpus, facts.exclusive, facts.physical_cores, facts.nodes) == (None, False, 4, (0,))


def test_siblings_and_nodes(read):
    files = {}
    for cpu, (package, core) in enumerate([(0, 0), (1, 0), (0, 0), (1, 0)]):
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"] = str(package)
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/core_id"] = str(core)
    files |= {"sys/devices/system/node/node0/cpulist": "0,2", "sys/devices/system/node/node1/cpulist": "1,3"}
    facts = read(files)
    assert facts.physical_cores == 2
    assert facts.nodes == (0, 1)
    assert [cpu.node for cpu in facts.topology] == [0, 1, 0, 1]


def test_affinity_narrows_the_topology(read):
    facts = read({}, allowed=(2, 3))
    assert facts.allowed == (2, 3)
    assert [cpu.cpu for cpu in facts.topology] == [2, 3]
    assert facts.physical_cores == 2


V2 = {"proc/self/cgroup": "0::/kube/pod/main"}
GROUPS = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({f"{GROUPS}/kube/pod/main/cpu.max": "max 100000"}, None),
        ({f"{GROUPS}/kube/pod/main/cpu.max": "150000 100000"}, 1.5),
        # The tightest of the parents counts.
        ({f"{GROUPS}/kube/pod/main/cpu.max": "max 100000", f"{GROUPS}/kube/cpu.max": "50000 100000"}, 0.5),
        ({f"{GROUPS}/kube/pod/main/cpu.max": "400000 100000", f"{GROUPS}/kube/pod/cpu.max": "200000 100000"}, 2.0),
        # A container that sees the host's path, but only its own part of the tree.
        ({f"{GROUPS}/cpu.max": "300000 100000"}, 3.0),
    ],
)
def test_quota_of_control_groups_version_2(read, files, quota):
    assert read(V2 | files).quota_cpus == quota


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu,cpuacct/job/cpu.cfs_quota_us": "250000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, 2.5),
        ({"cpu/job/cpu.cfs_quota_us": "100000", "cpu/job/cpu.cfs_period_us": "50000"}, 2.0),
        ({"cpu,cpuacct/job/cpu.cfs_quota_us": "-1", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, None),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 0.5),
    ],
)
def test_quota_of_control_groups_version_1(read, files, quota):
    files = {f"{GROUPS}/{name}": text for name, text in files.items()}
    facts = read({"proc/self/cgroup": "4:memory:/job\n3:cpu,cpuacct:/job\n2:cpuset:/job"} | files)
    assert facts.quota_cpus == quota


@pytest.mark.parametrize(
    ("files", "exclusive"),
    [
        # Part of the machine, no more is said: others may have been given the same part.
        ({"cpuset.cpus.effective": "2-3"}, False),
        ({"cpuset.cpus.effective": "2-3", "cpuset.cpus.partition": "member"}, False),
        ({"cpuset.cpus.effective": "2-3", "cpuset.cpus.partition": "root"}, True),
        ({"cpuset.cpus.effective": "2-3", "cpuset.cpus.partition": "isolated"}, True),
        ({"cpuset.cpus.effective": "2-3", "cpuset.cpus.partition": "root invalid (x)"}, False),
        # As Kubernetes' static CPU manager makes it for whole CPUs.
        ({"cpuset.cpus.effective": "2-3", "cpu.max": "200000 100000"}, True),
        ({"cpuset.cpus.effective": "2-3", "cpu.max": "150000 100000"}, False),
        # The quota is of our size, but the cpuset is not ours.
        ({"cpuset.cpus.effective": "0-3", "cpu.max": "200000 100000"}, False),
    ],
)
def test_which_cpusets_look_exclusive(read, files, exclusive):
    files = {f"{GROUPS}/kube/pod/main/{name}": text for name, text in files.items()}
    assert read(V2 | files, allowed=(2, 3)).exclusive is exclusive


@pytest.mark.parametrize(
    "shared",
    [
        {"cpuset.cpus": "2-3", "cpuset.cpus.effective": "2-3", "cpu.max": "200000 100000"},
        {"cpuset.cpus": "2-3", "cpuset.cpus.effective": "2-3", "cpuset.cpus.partition": "root"},
    ],
)
@pytest.mark.parametrize("quota", ["max 100000", "200000 100000"])
def test_what_a_parent_has_alone_it_shares_with_its_other_children(read, shared, quota):
    files = {f"{GROUPS}/kube/pod/{name}": text for name, text in shared.items()}
    own = {"cpuset.cpus": "", "cpuset.cpus.effective": "2-3", "cpuset.cpus.partition": "member", "cpu.max": quota}
    files |= {f"{GROUPS}/kube/pod/main/{name}": text for name, text in own.items()}
    assert not read(V2 | files, allowed=(2, 3)).exclusive


def test_the_whole_machine_never_looks_exclusive(read):
    files = {f"{GROUPS}/kube/pod/main/cpuset.cpus.effective": "0-3", f"{GROUPS}/kube/pod/main/cpu.max": "400000 100000"}
    assert not read(V2 | files).exclusive


def test_an_exclusive_cpuset_of_version_1(read):
    files = {f"{GROUPS}/cpuset/job/cpuset.cpus": "0-1", f"{GROUPS}/cpuset/job/cpuset.cpu_exclusive": "1"}
    facts = read({"proc/self/cgroup": "2:cpuset:/job"} | files, allowed=(0, 1))
    assert facts.exclusive


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu avx2 fma amx_bf16 avx512_bf16 sse2\n",
            {"avx2", "fma", "amx_bf16", "avx512_bf16"},
        ),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", {"asimd", "bf16", "i8mm"}),
        ("processor\t: 0\n", set()),
    ],
)
def test_instruction_sets(tmp_path, cpuinfo, found):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert isa(proc=tmp_path) == found


def test_this_machine_can_be_read():
    facts = read_cpu_facts()
    assert 1 <= facts.physical_cores <= len(facts.allowed) <= len(facts.online)
    assert facts.quota_cpus is None or facts.quota_cpus > 0
