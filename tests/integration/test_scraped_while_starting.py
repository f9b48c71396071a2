"""A server is scraped from the first moment of its start, with its workers in the state that they are in."""

from __future__ import annotations

from pathlib import Path

import pytest
from server_processes import Fleet, wait_until


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

        wait_until(starting, 60, f"no worker was seen starting: {codes[-5:]}")
        assert set(codes) <= {0, 200}, "it does not listen yet, or it answers"
        assert 'sluiceway_state{state="starting"} 1.0' in seen[-1]
        assert "sluiceway_ready 0.0" in seen[-1]
        if section == "detection":
            # Its only worker never ends its setup: it is stopped while it starts.
            assert member.stop() == 0
        else:
            member.wait_ready()
            assert "sluiceway_ready 1.0" in member.get("/metrics")[1]
