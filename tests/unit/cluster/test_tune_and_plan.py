"""`sluiceway plan` from a profile, and what both commands say of wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from sluiceway_cluster.tuning.measuring import settings_of
from sluiceway_simulation.profiles.model import Workers
from sluiceway_simulation.profiles.profile import PipelineProfile, StageProfile
from typer.testing import CliRunner

from sluiceway.cli.app import app


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the autoscaler does is the matter of other tests."""
    monkeypatch.setattr("sluiceway_simulation.planning.autoscaler.FULL_S", 2.0)
    monkeypatch.setattr("sluiceway_simulation.planning.autoscaler.CALM_S", 2.0)


@pytest.fixture
def profile(tmp_path: Path) -> str:
    """Of a machine on which an image is 50 ms of a detector and 4 ms of a reader."""
    path = tmp_path / "profile.json"
    PipelineProfile(
        "a machine of the test",
        cores=2,
        pipeline="read",
        stages={
            "detection": StageProfile("detection", {1: ((1.0, 50.0),)}, front_ms=1.0, memory_mb=300, start_s=3.0),
            "recognition": StageProfile("recognition", {1: ((4.0, 4.0),)}, 1.0, 200, start_s=3.0, max_batch=32),
        },
        orchestrator_ms=2.0,
        client_ms=0.0,
        regions=(4,),
        error=(0.04, 0.12),
    ).write(path)
    return str(path)


def test_a_plan_is_shown_and_written(profile: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    arguments = ["plan", "--profile", profile, "--rate", "10/s", "--p99", "400ms", "--values", str(values)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "1 detection (2 x 1)" in done.output
    assert "4% (images a second) and 12% (p99)" in done.output
    written = yaml.safe_load(values.read_text())
    assert written["detection"]["replicas"] == written["detection"]["autoscaling"]["maxReplicas"] == 1
    assert written["recognition"]["autoscaling"]["cpuPercent"] in (50, 65, 80)


def test_a_trace_is_planned_for_its_peak(profile: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    # One a second, and ten a second for ten of them.
    times = [*range(100), *(50 + number / 10 for number in range(100))]
    trace.write_text("\n".join(map(str, sorted(times))) + "\n")
    arguments = ["plan", "--profile", profile, "--trace", str(trace), "--p99", "0.4s", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["wanted"] == {"rate_per_s": pytest.approx(11, abs=1), "p99_ms": 400}
    assert found["plans"][0]["replicas"] == {"detection": 1, "recognition": 1}
    assert found["error"] == [0.04, 0.12]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["plan", "--p99", "300ms"], "one of --rate and --trace"),
        (["plan", "--p99", "soon", "--rate", "1"], "--p99 must be a number above 0"),
        (["plan", "--p99", "300ms", "--rate", "-1/s"], "--rate must be a number above 0"),
        (["tune", "x.png", "--rate", "1/s", "--max-throughput"], "one of --rate, --max-throughput and --least-memory"),
        (["tune", "x.png", "--p99", "1s"], "--p99 belongs to --rate"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], told: str, profile: str) -> None:
    done = CliRunner().invoke(app, [*arguments, *(["--profile", profile] if arguments[0] == "plan" else [])])
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())


def test_what_no_servers_can_do_fails(profile: str) -> None:
    done = CliRunner().invoke(app, ["plan", "--profile", profile, "--rate", "2", "--p99", "10ms"])
    assert done.exit_code == 1
    assert "no number of these servers keeps 10 ms" in " ".join(done.output.split())


@pytest.mark.parametrize(("cores", "pinned", "found"), [
    ((0, 1), True, {"detection.cores=0", "recognition.cores=1"}),
    ((0,), True, {"detection.cores=0", "recognition.cores=0"}),
    ((0, 1), False, set()),
])  # fmt: skip
def test_stages_have_cores_of_their_own_where_there_are_enough(
    cores: tuple[int, ...], pinned: bool, found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluiceway_cluster.tuning.measuring.machine_cores", lambda: (cores, pinned))
    settings = settings_of({"detection": Workers(1, 1), "recognition": Workers(1, 1)})
    assert {setting for setting in settings if "cores" in setting} == found
    assert "detection.workers=1" in settings
