"""What real servers show when they are scraped: from the first moment of a start, and nothing but what is declared."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import pytest
from ledger_client import calling
from ports import free_ports
from prometheus_client.parser import text_string_to_metric_families
from server_processes import Fleet
from sluiceway_orchestrator.metrics.catalogue import ORCHESTRATOR
from sluiceway_runtime.metrics.catalogue import EVERY_SERVER, STAGES
from sluiceway_runtime.metrics.instruments import Family
from waiting import wait_until

# There only with a GPU, with TLS, or under a quota.
AT_TIMES = ("hw_", "sluiceway_gpu_", "sluiceway_certificate_", "sluiceway_cgroup_")
# prometheus-client's own.
OTHERS = ("process_", "python_")


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ("detection", {"DETECTOR": "ledger_models:LoadingDetector", "WORKERS": "1"}),
        ("recognition", {"MODELS": '["ppocrv6-tiny"]', "WORKERS": "1"}),
    ],
)
def test_metrics_of_a_server_that_starts(tmp_path: Path, section: str, setting: dict[str, str]) -> None:
    with Fleet(tmp_path) as fleet:
        member = fleet.add(section, setting).start(wait=False)
        codes: list[int] = []
        seen: list[str] = []

        def starting() -> bool:
            code, text = member.get("/metrics")
            codes.append(code)
            if code == 200:
                seen.append(text)
            return f'sluiceway_worker_state{{stage="{section}",state="starting",worker="0"}} 1.0' in text

        wait_until(starting, what="a worker is seen starting", state=lambda: codes[-5:])
        assert set(codes) <= {0, 200}, "it does not listen yet, or it answers"
        assert 'sluiceway_state{state="starting"} 1.0' in seen[-1]
        assert "sluiceway_ready 0.0" in seen[-1]
        if section == "detection":
            # Its only worker never ends its setup: it is stopped while it starts.
            assert member.stop() == 0
        else:
            member.wait_ready()
            assert "sluiceway_ready 1.0" in member.get("/metrics")[1]


def shown(text: str) -> dict[str, set[tuple[str, ...]]]:
    """Labels of each family of a scrape, those of its samples; without the bounds of histograms."""
    return {
        family.name: {tuple(name for name in sample.labels if name != "le") for sample in family.samples}
        for family in text_string_to_metric_families(text)
        if not family.name.startswith(OTHERS)
    }


def test_servers_show_what_is_declared_and_nothing_else(tmp_path: Path) -> None:
    ports = dict(zip(("orchestrator", "detection", "recognition"), free_ports(3), strict=True))
    settings = {name: {"HTTP__ENABLED": "true", "HTTP__PORT": str(port)} for name, port in ports.items()}
    with Fleet(tmp_path) as fleet:
        [detection], [recognition], orchestrator = fleet.cluster(settings=settings)

        async def ask() -> None:
            async with calling(orchestrator.address) as caller:
                await caller.expect_soon(1)

        asyncio.run(ask())
        for port in ports.values():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/live", timeout=10) as answer:
                assert answer.status == 200
        scrapes = {
            "orchestrator": ((*EVERY_SERVER, *ORCHESTRATOR), orchestrator.get("/metrics")),
            "detection": ((*EVERY_SERVER, *STAGES), detection.get("/metrics")),
            "recognition": ((*EVERY_SERVER, *STAGES), recognition.get("/metrics")),
        }
    for server, (families, (code, text)) in scrapes.items():
        assert code == 200
        declared: dict[str, Family] = {family.name: family for family in families}
        found = shown(text)
        assert found.keys() <= declared.keys(), server
        missing = {name for name in declared.keys() - found.keys() if not name.startswith(AT_TIMES)}
        assert missing == set(), server
        for name, labels in found.items():
            assert {tuple(sorted(names)) for names in labels} <= {tuple(sorted(declared[name].labels))}, name
            assert labels, f"{name} has no sample"
