"""Where workers are put: numbers, threads, pinning, and who owns the cores."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from sluiceway_runtime.config import StageConfig
from sluiceway_runtime.cores import CpuFacts, LogicalCpu, apply_thread_caps, os_threads, plan, thread_environment
from sluiceway_runtime.errors import StartupError


def machine(
    cpus: int = 4, *, siblings: bool = False, nodes: int = 1, quota: float | None = None, exclusive: bool = False
) -> CpuFacts:
    """With siblings, CPU n and n + cpus/2 share a core, as Linux numbers them."""
    cores = cpus // 2 if siblings else cpus
    topology = tuple(LogicalCpu(cpu, 0, cpu % cores, (cpu % cores) * nodes // cores) for cpu in range(cpus))
    everything = tuple(range(cpus))
    return CpuFacts(everything, everything, quota, exclusive, topology)


def place(facts: CpuFacts, devices: tuple[str, ...] = ("cpu",), **config: Any) -> tuple[Any, ...]:
    return plan(StageConfig(port=0, operations_port=0, **config), devices, facts)


@pytest.mark.parametrize(
    ("facts", "config", "workers", "threads"),
    [
        (machine(4), {}, 4, 1),
        (machine(4), {"goal": "latency"}, 1, 4),
        (machine(16, nodes=2), {"goal": "latency"}, 2, 8),
        (machine(4, quota=1.0), {}, 1, 1),
        (machine(4, quota=2.0), {}, 2, 1),
        (machine(4, quota=1.5), {}, 2, 1),
        (machine(4, quota=0.33), {}, 1, 1),
        (machine(4, quota=8.0), {}, 4, 1),
        (machine(8, quota=3.5), {"goal": "latency"}, 1, 3),
        # What a pod is told counts where it is the least; it never grants more than there is.
        (machine(16), {"cpus": 2.0}, 2, 1),
        (machine(16), {"cpus": 3.0, "goal": "latency"}, 1, 3),
        (machine(16, quota=1.5), {"cpus": 2.0}, 2, 1),
        (machine(4), {"cpus": 64.0}, 4, 1),
        (machine(8), {"workers": 2}, 2, 4),
        (machine(8), {"workers": 3}, 3, 2),
        (machine(8), {"threads_per_worker": 3}, 2, 3),
        (machine(2), {"threads_per_worker": 8}, 1, 8),
        (machine(2), {"workers": 8}, 8, 1),
        (machine(4), {"workers": 4, "threads_per_worker": 4}, 4, 4),
    ],
)
def test_numbers_of_workers_and_threads(facts, config, workers, threads):
    placements = place(facts, **config)
    assert len(placements) == workers
    assert {placement.threads for placement in placements} == {threads}
    assert [placement.index for placement in placements] == list(range(workers))
    assert {placement.device for placement in placements} == {"cpu"}


@pytest.mark.parametrize(
    ("facts", "config", "pinned"),
    [
        (machine(4), {}, False),
        (machine(4, quota=2.0), {}, False),
        (machine(4, exclusive=True), {}, True),
        (machine(4), {"cores": "0-3"}, True),
        (machine(4, quota=2.0), {"cores": "0-1"}, True),
    ],
)
def test_workers_are_pinned_only_to_cores_of_their_own(facts, config, pinned):
    assert all((placement.cores is not None) is pinned for placement in place(facts, **config))


def test_assigned_cores_are_used_and_no_others():
    placements = place(machine(8), cores="2-3,6")
    assert sorted(placement.cores for placement in placements) == [(2,), (3,), (6,)]


def test_cores_that_are_not_allowed_are_refused_by_name():
    with pytest.raises(StartupError, match=r"may not run on \[9\]"):
        place(machine(4), cores="0,9")


def test_workers_get_disjoint_cores():
    placements = place(machine(8), cores="0-7", workers=2)
    assert [placement.cores for placement in placements] == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_physical_cores_come_before_their_siblings():
    placements = place(machine(8, siblings=True), cores="0-7", workers=4, threads_per_worker=1)
    assert sorted(placement.cores for placement in placements) == [(0,), (1,), (2,), (3,)]


def test_a_worker_with_many_threads_gets_whole_cores():
    placements = place(machine(8, siblings=True), cores="0-7", workers=2)
    assert [placement.cores for placement in placements] == [(0, 1, 4, 5), (2, 3, 6, 7)]


@pytest.mark.parametrize(
    ("facts", "config"),
    [
        (machine(16, siblings=True, nodes=2), {"goal": "latency"}),
        # A node has room for more threads than one worker's, but not for those of two.
        (machine(8, nodes=2), {"threads_per_worker": 3}),
        (machine(8, nodes=2, quota=6.0), {"goal": "latency"}),
        (machine(16, siblings=True, nodes=2), {"threads_per_worker": 3, "workers": 2}),
        (machine(16, siblings=True, nodes=2), {"threads_per_worker": 5, "workers": 2}),
    ],
)
def test_no_worker_spans_two_nodes_if_it_need_not(facts, config):
    node_of = {cpu.cpu: cpu.node for cpu in facts.topology}
    placements = place(facts, cores=f"0-{len(facts.allowed) - 1}", **config)
    assert len(placements) == 2
    for placement in placements:
        assert len({node_of[cpu] for cpu in placement.cores}) == 1
    dealt = [cpu for placement in placements for cpu in placement.cores]
    assert len(set(dealt)) == len(dealt)


def test_too_many_workers_are_spread_evenly_and_warned_about(caplog):
    placements = place(machine(2), cores="0-1", workers=8)
    assert [placement.cores for placement in placements] == [(0,), (1,)] * 4
    assert "8 workers with 1 threads each are more than the 2 cores" in caplog.text


def test_a_fitting_plan_warns_of_nothing(caplog):
    place(machine(4))
    place(machine(4, quota=1.5))
    assert caplog.text == ""


def test_workers_on_gpus_take_turns_over_devices_and_are_not_pinned():
    placements = place(machine(16), devices=("cuda:0", "cuda:1"), workers_per_device=2)
    assert [placement.device for placement in placements] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert {placement.cores for placement in placements} == {None}
    assert {placement.threads for placement in placements} == {4}


@pytest.mark.parametrize(("cpus", "config", "threads"), [(2, {}, 1), (64, {}, 4), (64, {"threads_per_worker": 9}, 9)])
def test_host_threads_of_gpu_workers(cpus, config, threads):
    placements = place(machine(cpus), devices=("cuda:0",), **config, workers_per_device=2)
    assert {placement.threads for placement in placements} == {threads}


@pytest.mark.parametrize(("cpus", "threads"), [(16, 12), (8, 8), (1, 1)])
def test_a_stage_that_works_on_the_host_as_well_may_have_more_threads(cpus, threads):
    config = StageConfig(port=0, operations_port=0)
    (placement,) = plan(config, ("cuda:0",), machine(cpus), host_threads_max=12)
    assert placement.threads == threads


def test_thread_environment_caps_every_library_and_waits_passively():
    environment = thread_environment(3)
    for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
        assert environment[f"{library}_NUM_THREADS"] == "3"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["KMP_BLOCKTIME"] == environment["GOMP_SPINCOUNT"] == "0"
    with pytest.raises(ValueError, match="at least one"):
        thread_environment(0)


def test_caps_are_applied_to_what_is_loaded_and_read_back():
    """In a process of its own: caps on this one would last."""
    code = (
        "import cv2; from sluiceway_runtime.cores import apply_thread_caps;"
        "cv2.setNumThreads(7); caps = apply_thread_caps(2); assert cv2.getNumThreads() == 2;"
        "assert caps['opencv'] == 2, caps; print('fine')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert answer.stdout.strip() == "fine", answer.stderr


def test_an_openmp_runtime_is_found_capped_and_read_back():
    code = (
        "import ctypes; gomp = ctypes.CDLL('libgomp.so.1'); gomp.omp_set_num_threads(5);"
        "from sluiceway_runtime.cores import apply_thread_caps; caps = apply_thread_caps(2);"
        "assert [caps[name] for name in caps if name.startswith('openmp:libgomp')] == [2], caps;"
        "assert gomp.omp_get_max_threads() == 2; print('fine')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    # It comes with compilers and with torch; where neither is, there is no runtime to cap.
    if "cannot open shared object" in answer.stderr:
        pytest.skip("this machine has no libgomp")
    assert answer.stdout.strip() == "fine", answer.stderr


def test_a_library_of_matrices_is_capped_too():
    """NumPy brings one, and starts a thread for each core with it, whatever OpenMP is told."""
    code = (
        "import numpy; from sluiceway_runtime.cores import apply_thread_caps; caps = apply_thread_caps(2);"
        "import threadpoolctl; told = [item for item in threadpoolctl.threadpool_info() if item['user_api'] == 'blas'];"
        "assert told and all(item['num_threads'] <= 2 for item in told), told;"
        "assert [value for name, value in caps.items() if name.startswith('blas:')], caps; print('fine')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert answer.stdout.strip() == "fine", answer.stderr


def test_nothing_is_imported_for_the_sake_of_a_cap():
    before = set(sys.modules)
    apply_thread_caps(1)
    assert not {"cv2", "torch"} & (set(sys.modules) - before)
    assert os_threads() >= 1
