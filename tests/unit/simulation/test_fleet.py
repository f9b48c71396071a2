"""Plans for a load, and an autoscaler whose decisions can be worked out by hand."""

import math

import pytest
from sluiceway_simulation.planning.autoscaler import Autoscaler, Scaling, over_a_day, try_scalings
from sluiceway_simulation.planning.fleet import Cell, Prices, Wanted, fleets, needed
from sluiceway_simulation.planning.search import NoPlan
from sluiceway_simulation.profiles.model import Workers
from sluiceway_simulation.profiles.profile import PipelineProfile, StageProfile, shipped

PROFILE = PipelineProfile(
    "a machine of the test",
    cores=2,
    pipeline="read",
    stages={
        "detection": StageProfile("detection", {1: ((1.0, 100.0),)}, front_ms=1.0, memory_mb=300, start_s=4.0),
        "recognition": StageProfile("recognition", {1: ((4.0, 4.0),)}, 1.0, 200, start_s=4.0, max_batch=32),
    },
    orchestrator_ms=2.0,
    client_ms=0.0,
    regions=(4,),
)
SERVERS = {"detection": Workers(2, 1), "recognition": Workers(2, 1)}


def test_what_an_image_costs_says_how_many_servers_are_needed() -> None:
    # 40 images of 100 ms are 4 s of work a second; two workers that are busy for 0.8 do 1.6.
    assert needed(PROFILE, "detection", SERVERS["detection"], 40) == 3
    assert needed(PROFILE, "recognition", SERVERS["recognition"], 40) == 1


def test_the_cheapest_plan_costs_less_than_all_stages_alike() -> None:
    found = fleets(PROFILE, Wanted(30, 500), Prices(core=1.0, gpu=10.0))
    assert 1 <= len(found) <= 3
    best = found[0]
    assert best.replicas["recognition"] == 1
    assert best.replicas["detection"] in (2, 3)
    # Two fronts compute for a millisecond an image each.
    assert best.price == pytest.approx(best.orchestrators + 2 * (best.replicas["detection"] + 1) + 30 * 0.002)
    assert best.cores == math.ceil(best.price)
    assert best.gpus == 0
    assert best.price < best.alike_price
    # Machines that share their two cores between both stages lose nothing by being alike.
    assert best.machines_price is not None
    assert best.price >= best.machines_price
    assert best.prediction.meets(500)
    assert [fleet.price for fleet in found] == sorted(fleet.price for fleet in found)


def test_a_large_load_is_planned_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluiceway_simulation.planning.fleet.CELL_PER_S", 10.0)
    monkeypatch.setattr("sluiceway_simulation.planning.fleet.CELL_SERVERS", 0)
    large = fleets(PROFILE, Wanted(60, 600), Prices(core=1.0), count=1)[0]
    assert large.cells == 6
    assert large.replicas == {"detection": 6, "recognition": 6}
    assert large.price == pytest.approx(6 * 5 + 60 * 0.002)


def test_no_cell_has_a_server_that_could_serve_many_of_them() -> None:
    # A reader's server does 500 images a second, a detector's 20; each is to be busy for 0.8 of its time.
    assert Cell(PROFILE, Wanted(400, 600), SERVERS).count == 1
    large = Cell(PROFILE, Wanted(5000, 600), SERVERS)
    assert large.count == 6
    assert needed(PROFILE, "recognition", SERVERS["recognition"], large.rate_per_s) == 3


@pytest.mark.timeout(600)
def test_for_a_pipeline_with_a_gpu_stages_by_themselves_cost_three_fifths_of_all_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A tenth of the images that a plan is made with, which is enough to tell what costs half.
    monkeypatch.setattr("sluiceway_simulation.planning.fleet.IMAGES", 300)
    monkeypatch.setattr("sluiceway_simulation.planning.fleet.LASTS_S", (0.3, 10.0))
    profile = PipelineProfile.read(shipped()["xeon16-h100-text-small"])
    best = fleets(profile, Wanted(1000, 400), Prices(), count=1)[0]
    assert best.prediction.meets(400)
    assert best.price <= 0.6 * best.alike_price
    assert best.machines_price is not None
    assert best.price <= 0.6 * best.machines_price


def test_what_is_shipped_says_where_it_comes_from() -> None:
    for path in shipped().values():
        assert PipelineProfile.read(path).source


def test_what_no_number_of_servers_can_do_is_told() -> None:
    with pytest.raises(NoPlan, match="idle for most"):
        fleets(PROFILE, Wanted(2, 20), Prices())


def test_the_autoscaler_decides_as_that_of_kubernetes() -> None:
    scaler = Autoscaler(Scaling(0.5, 60.0), least=1, most=10)
    assert scaler.decide(0, 2, 0.9) == 4
    assert scaler.decide(15, 4, 0.54) == 4, "within a tenth nothing happens"
    assert scaler.decide(30, 4, 1.0) == 8
    assert scaler.decide(45, 8, 1.0) == 10, "there is a most"
    assert scaler.decide(60, 10, 0.1) == 10, "more was wanted within the window"
    assert scaler.decide(106, 10, 0.1) == 2
    assert scaler.decide(181, 2, 0.0) == 1


def test_a_day_takes_more_cores_where_less_is_let_in() -> None:
    careful, _ = over_a_day(PROFILE, SERVERS, 100, Scaling(0.5, 300))
    tight, short = over_a_day(PROFILE, SERVERS, 100, Scaling(0.8, 60))
    assert careful > 1.2 * tight
    assert short < 24
    flat, never = over_a_day(PROFILE, SERVERS, 100, Scaling(0.8, 60), [1.0])
    assert never == 0
    assert flat == pytest.approx(24 * 2 * (needed(PROFILE, "detection", SERVERS["detection"], 100) + 1), rel=0.1)


def test_settings_are_tried_against_a_step_of_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FULL_S", 30.0), ("STEP_SERVERS", 2), ("TARGETS", (0.5, 0.8))):
        monkeypatch.setattr(f"sluiceway_simulation.planning.autoscaler.{name}", value)
    tried = try_scalings(PROFILE, SERVERS, Wanted(30, 500))
    assert len(tried) == 4
    assert all(0 <= one.late <= 1 and one.settled_s <= 30 for one in tried)
    assert any(one.late > 0 for one in tried), "nobody is there before it is wanted"
    assert tried[0].late <= min(one.late for one in tried) + 0.02
