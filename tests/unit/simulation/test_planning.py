"""Predictions that can be worked out by hand, and a search that finds what they lead to."""

import gc
import random
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from sluiceway_runtime.pool import PoolLimits
from sluiceway_simulation.cluster import ClusterPlan
from sluiceway_simulation.load import BURST_PART, CYCLE_S, Kind, Load, arrivals
from sluiceway_simulation.planning.predict import Prediction, predict
from sluiceway_simulation.planning.search import Goal, NoPlan, cheapest
from sluiceway_simulation.stages.profile import Curve, Profile
from sluiceway_simulation.stages.service import StagePlan


def plan_of(detectors: int = 1, readers: int = 1, *, detect_ms: float = 50.0, read_ms: float = 1.0) -> ClusterPlan:
    detection = StagePlan(Profile(Curve(((1, detect_ms),)), spread=0.0))
    reading = Profile(Curve(((1, read_ms), (16, 16 * read_ms))), spread=0.0)
    recognition = StagePlan(reading, limits=PoolLimits(max_batch=16))
    return ClusterPlan(
        {"detection": ("detection", detection), "recognition": ("recognition", recognition)},
        {"detection": detectors, "recognition": readers},
    )


def test_arrivals_have_the_rate_that_was_asked_for() -> None:
    load = Load(50, regions=10, burst=3)
    came = list(arrivals(load, 400, random.Random(1)))
    assert len(came) == pytest.approx(400 * 50, rel=0.05)
    in_bursts = sum(at_s % CYCLE_S < BURST_PART * CYCLE_S for at_s, _ in came)
    assert in_bursts / len(came) == pytest.approx(3 * BURST_PART, rel=0.05)
    assert sum(picture.regions for _, picture in came) / len(came) == pytest.approx(10, rel=0.05)


def test_an_idle_cluster_takes_the_time_of_its_workers() -> None:
    found = predict(plan_of(), Load(1, regions=0), lasts_s=60)
    assert found.p50_ms == pytest.approx(50, abs=3)
    assert found.failed == 0
    assert found.busy["detection"] == pytest.approx(0.05, abs=0.03)


def test_a_stage_that_is_too_slow_bounds_the_throughput() -> None:
    # Two workers of 50 ms do 40 images a second.
    found = predict(plan_of(2), Load(80, regions=0), lasts_s=15, timeout_s=2)
    assert found.per_s == pytest.approx(40, rel=0.1)
    assert found.busy["detection"] > 0.95
    assert found.failed > 0


def test_a_front_is_one_thread() -> None:
    # Ten workers of 50 ms do 200 images a second, and a front that takes 20 ms for each does 50.
    plan = plan_of()
    kind, stage = plan.stages["detection"]
    fronted = replace(plan, stages={**plan.stages, "detection": (kind, replace(stage, workers=10, front_ms=20.0))})
    found = predict(fronted, Load(100, regions=0), lasts_s=15, timeout_s=2)
    assert found.per_s == pytest.approx(50, rel=0.1)
    assert found.busy["detection"] > 0.95


def test_given_arrivals_are_played() -> None:
    load = Load(1, kinds=(Kind(0, 640, 60), Kind(8, 640, 60)))
    alone = predict(plan_of(read_ms=10.0), load, lasts_s=10, due=[(float(at_s), 1) for at_s in range(10)])
    # Those of the first two seconds are the warm-up.
    assert alone.asked == 8
    assert alone.p50_ms == pytest.approx(50 + 80, abs=5)
    crowd = predict(plan_of(read_ms=10.0), load, lasts_s=10, due=[(5.0, 0)] * 4, warm_up_part=0.0)
    assert (crowd.asked, crowd.per_s) == (4, 0.4)
    assert crowd.p99_ms == pytest.approx(200, abs=5)


def test_the_same_seed_predicts_the_same() -> None:
    assert predict(plan_of(), Load(10), lasts_s=5) == predict(plan_of(), Load(10), lasts_s=5)


def test_images_that_are_done_leave_no_rubbish_to_look_for() -> None:
    """Looking for it takes time, in a simulation and in what is served, and until then it lies in the way."""
    left: list[int] = []
    found = predict(plan_of(5), Load(50), lasts_s=10, look=lambda _: left.append(gc.collect()))
    # A start leaves some.
    assert left[0] < 3 * found.asked


def test_the_cheapest_plan_grows_what_is_busy_and_nothing_else() -> None:
    # 70 images a second of 50 ms are the time of 3.5 workers; five regions of 1 ms are a third of one reader's.
    goal = Goal(p99_ms=300, price={"detection": 1.0, "recognition": 4.0})
    options = cheapest(plan_of(), Load(70, regions=5), goal, lasts_s=6)
    assert options[0].replicas["detection"] in (4, 5)
    assert options[0].replicas["recognition"] == 1
    assert options[0].prediction.meets(300)
    assert [option.price for option in options] == sorted(option.price for option in options)
    assert options[0].price == options[0].replicas["detection"] + 4


def test_what_is_too_much_is_taken_away_in_few_tries() -> None:
    tried: list[int] = []

    def tell(plan: ClusterPlan, *arguments: Any, **options: Any) -> Prediction:
        tried.append(plan.replicas["detection"])
        return predict(plan, *arguments, **options)

    with patch("sluiceway_simulation.planning.search.predict", tell):
        goal = Goal(p99_ms=300, price={"detection": 1.0, "recognition": 4.0})
        options = cheapest(plan_of(40), Load(70, regions=1), goal, lasts_s=3)
    assert options[0].replicas["detection"] in (4, 5)
    assert len(tried) <= 8


def test_what_no_cluster_can_do_is_said() -> None:
    with pytest.raises(NoPlan, match="p99 is still"):
        cheapest(plan_of(), Load(5), Goal(20, {"detection": 1.0, "recognition": 1.0}, most=3), lasts_s=4)
