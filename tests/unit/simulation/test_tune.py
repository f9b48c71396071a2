"""Tuning in a model whose figures can be worked out by hand."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from sluiceway_simulation.profiles.model import Workers, cluster_of
from sluiceway_simulation.profiles.profile import PipelineProfile, ProfileFault, StageProfile
from sluiceway_simulation.tune.climb import climb, recommended
from sluiceway_simulation.tune.files import compose_override, helm_values
from sluiceway_simulation.tune.goal import Aim, Goal
from sluiceway_simulation.tune.picture import frontier, in_words, to_svg

# An image is 100 ms of a detector and 4 ms of a reader.
PROFILE = PipelineProfile(
    "a machine of the test",
    cores=3,
    pipeline="read",
    stages={
        "detection": StageProfile("detection", {1: ((1.0, 100.0),), 2: ((1.0, 60.0),)}, front_ms=1.0, memory_mb=300),
        "recognition": StageProfile("recognition", {1: ((4.0, 4.0),)}, front_ms=1.0, memory_mb=200, max_batch=32),
    },
    orchestrator_ms=1.0,
    client_ms=0.0,
    regions=(4,),
    spread=0.0,
)


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    PROFILE.write(tmp_path / "profile.json")
    assert PipelineProfile.read(tmp_path / "profile.json") == PROFILE
    known = replace(PROFILE, error=(0.1, 0.2))
    known.write(tmp_path / "profile.json")
    assert PipelineProfile.read(tmp_path / "profile.json") == known


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing", "is no profile"),
        ("{}", "format None"),
        ('{"format": 1, "stages": {"detection": {"batch_ms": {}}}}', "has no points"),
        ('{"format": 1, "stages": {}}', "not detection and recognition"),
    ],
)
def test_what_is_no_profile_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(ProfileFault, match=told):
        PipelineProfile.read(tmp_path / "profile.json")
    with pytest.raises(ProfileFault, match="cannot read"):
        PipelineProfile.read(tmp_path / "missing.json")


def test_batches_smaller_than_any_that_was_seen_cost_their_share() -> None:
    plan = cluster_of(PROFILE, {kind: Workers() for kind in PROFILE.stages}, cores=3)
    curve = plan.stages["recognition"][1].profile.batch_ms
    assert [curve.at(size) for size in (1, 2, 4)] == pytest.approx([1, 2, 4])


def test_the_way_up_adds_what_is_short_and_ends_where_nothing_gains() -> None:
    seen = []
    steps, points = climb(PROFILE, Goal(Aim.MAX_THROUGHPUT), seen.append)
    assert seen == points
    assert steps[0].point.setting == (("detection", Workers()), ("recognition", Workers()))
    # Detection is nearly all of it: three workers on three cores, with readers between them.
    assert dict(steps[-1].point.setting)["detection"] == Workers(3, 1)
    assert steps[0].point.prediction.per_s == pytest.approx(10, rel=0.1)
    assert steps[-1].point.prediction.per_s > 2.2 * steps[0].point.prediction.per_s
    assert all(step.gain > 0 for step in steps[1:])
    assert recommended(Goal(Aim.MAX_THROUGHPUT), steps, points) is steps[-1].point


def test_a_goal_that_is_met_is_met_with_the_least_memory() -> None:
    goal = Goal(Aim.RATE, 5.0, 1000.0)
    steps, points = climb(PROFILE, goal)
    assert [step.what for step in steps] == ["the smallest"]
    assert recommended(goal, steps, points).memory_mb == 500
    out_of_reach = Goal(Aim.RATE, 5.0, 20.0)
    steps, points = climb(PROFILE, out_of_reach)
    assert not out_of_reach.met_by(recommended(out_of_reach, steps, points).prediction)


def test_least_memory_is_enough_and_no_more() -> None:
    goal = Goal(Aim.LEAST_MEMORY)
    steps, points = climb(PROFILE, goal)
    chosen = recommended(goal, steps, points)
    best = max(point.prediction.per_s for point in points)
    assert chosen.prediction.per_s >= 0.8 * best
    assert all(p.memory_mb >= chosen.memory_mb for p in points if p.prediction.per_s >= 0.8 * best)


def test_the_frontier_is_drawn_and_what_is_written_can_be_read() -> None:
    goal = Goal(Aim.RATE, 5.0)
    steps, points = climb(PROFILE, goal)
    drawn = ET.fromstring(to_svg(points, steps, steps[-1].point, f"Settings for {goal} & more"))
    assert len(drawn.findall("{*}circle")) == len(points)
    assert frontier(points)[0].memory_mb == min(point.memory_mb for point in points)
    assert in_words((("detection", Workers(2, 1)),)) == "detection 2 x 1"
    workers = {"detection": Workers(2, 1), "recognition": Workers(1, 1)}
    services = yaml.safe_load(compose_override(PROFILE, workers))["services"]
    assert services["detection"]["environment"]["SLUICEWAY_DETECTION__WORKERS"] == "2"
    assert services["detection"]["cpus"] == "2.0"
    values = yaml.safe_load(helm_values(PROFILE, workers))
    assert values["detection"]["config"] == {"threads_per_worker": 1}
    assert values["recognition"]["resources"]["limits"]["cpu"] == "1"
