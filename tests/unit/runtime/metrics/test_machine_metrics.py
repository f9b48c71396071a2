"""What is read of the machine: CPU quota, certificate, GPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from prometheus_client import CollectorRegistry
from sluiceway_runtime.metrics.certificate import CertificateCollector, not_after_s
from sluiceway_runtime.metrics.cgroup import CgroupCollector
from sluiceway_runtime.metrics.gpu import GpuCollector
from sluiceway_runtime.metrics.nvml import GpuReading, open_gpus


def cgroup(tmp_path: Path, line: str, files: dict[str, str]) -> CollectorRegistry:
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(line)
    for name, text in files.items():
        path = sys / "fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    registry = CollectorRegistry()
    registry.register(CgroupCollector(proc, sys))
    return registry


def test_throttling_of_this_group_and_of_those_around_it(tmp_path: Path) -> None:
    quota = "usage_usec 5\nnr_periods {}\nnr_throttled {}\nthrottled_usec {}\n"
    files = {
        "cpu.stat": "usage_usec 9\n",
        "pod/cpu.stat": quota.format(100, 7, 2_500_000),
        "pod/it/cpu.stat": quota.format(40, 2, 500_000),
    }
    registry = cgroup(tmp_path, "0::/pod/it\n", files)
    assert registry.get_sample_value("sluiceway_cgroup_cpu_periods_total") == 140
    assert registry.get_sample_value("sluiceway_cgroup_cpu_throttled_periods_total") == 9
    assert registry.get_sample_value("sluiceway_cgroup_cpu_throttled_seconds_total") == 3.0


def test_throttling_by_the_first_version_of_control_groups(tmp_path: Path) -> None:
    files = {"cpu,cpuacct/box/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 1500000000\n"}
    registry = cgroup(tmp_path, "4:cpu,cpuacct:/box\n", files)
    assert registry.get_sample_value("sluiceway_cgroup_cpu_throttled_seconds_total") == 1.5


def test_a_hierarchy_that_is_mounted_under_one_name_is_counted_once(tmp_path: Path) -> None:
    registry = cgroup(tmp_path, "4:cpu:/box\n", {"cpu/box/cpu.stat": "nr_periods 10\nnr_throttled 4\n"})
    assert registry.get_sample_value("sluiceway_cgroup_cpu_periods_total") == 10


def test_without_a_quota_there_is_nothing_to_show(tmp_path: Path) -> None:
    registry = cgroup(
        tmp_path, "0::/\n", {"cpu.stat": "usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"}
    )
    assert not list(registry.collect())


def test_the_end_of_a_certificate_is_read_and_followed(tmp_path: Path) -> None:
    authority, path = trustme.CA(), tmp_path / "chain.pem"

    def issue(until: datetime) -> None:
        certificate = authority.issue_cert("localhost", not_after=until)
        fresh = tmp_path / "fresh.pem"
        fresh.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        fresh.replace(path)

    registry = CollectorRegistry()
    registry.register(CertificateCollector(path))
    assert not list(registry.collect()), "there is none yet"
    for year in (2031, 2055):  # written in two digits, and in four
        until = datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC)
        issue(until)
        assert registry.get_sample_value("sluiceway_certificate_expiry_timestamp_seconds") == until.timestamp()


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_told(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each fault of a file has words of its own
        not_after_s(text)


@dataclass
class FakeGpu:
    """One that can be taken away."""

    uuid: str = "GPU-1"
    name: str = "Test"
    reading: GpuReading | None = field(default_factory=lambda: GpuReading(0.5, 3, 10))

    def read(self) -> GpuReading | None:
        return self.reading


def test_a_gpu_that_answers_no_more_is_told_and_its_old_numbers_are_not() -> None:
    gpu, registry = FakeGpu(), CollectorRegistry()
    registry.register(GpuCollector(lambda: [gpu]))
    labels = {"hw_id": "GPU-1", "hw_name": "Test"}

    def state(name: str) -> float | None:
        return registry.get_sample_value("hw_status", labels | {"hw_type": "gpu", "hw_state": name})

    assert (state("ok"), state("failed")) == (1, 0)
    assert registry.get_sample_value("hw_gpu_utilization_ratio", labels) == 0.5
    assert registry.get_sample_value("hw_gpu_memory_usage_bytes", labels) == 3
    assert registry.get_sample_value("hw_gpu_memory_limit_bytes", labels) == 10
    gpu.reading = None
    assert (state("ok"), state("failed")) == (0, 1)
    assert registry.get_sample_value("hw_gpu_utilization_ratio", labels) is None


@pytest.mark.cuda
def test_the_driver_tells_of_a_real_gpu() -> None:
    gpus = open_gpus()
    assert gpus
    for gpu in gpus:
        reading = gpu.read()
        assert gpu.uuid.startswith("GPU-")
        assert gpu.name
        assert reading is not None
        assert 0 < reading.used_bytes < reading.total_bytes
