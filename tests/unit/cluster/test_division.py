"""Dividing the machine's cores."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sluiceway_cluster.division import Division, StageLoad, divide, format_cores

# What FACTS measured: YOLO26s text for an image, PP-OCRv6 tiny for the words of one.
SMALL, TINY = StageLoad(57), StageLoad(8.5)
GPU = StageLoad(8.5, on_gpu=True)


def divide_two(cores: Sequence[int], detection: StageLoad, recognition: StageLoad) -> Division:
    return divide(cores, {"detection": detection, "recognition": recognition})


@pytest.mark.parametrize(
    ("count", "detection", "recognition"),
    [(4, 3, 1), (8, 7, 1), (16, 14, 2), (64, 56, 8)],
)
def test_cores_follow_cost(count: int, detection: int, recognition: int) -> None:
    found = divide_two(range(count), SMALL, TINY)
    assert (len(found.cores["detection"]), len(found.cores["recognition"])) == (detection, recognition)
    assert sorted(found.cores["detection"] + found.cores["recognition"]) == list(range(count))
    assert not found.shared


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_cores_are_shared(count: int) -> None:
    found = divide_two(range(count), SMALL, TINY)
    assert found.shared
    assert found.cores["detection"] == found.cores["recognition"] == tuple(range(count))


@pytest.mark.parametrize(("count", "recognition"), [(2, 1), (8, 1), (15, 1), (16, 2), (64, 8)])
def test_recognition_on_a_gpu_needs_a_core_and_one_of_every_eight(count: int, recognition: int) -> None:
    found = divide_two(range(count), SMALL, GPU)
    assert (len(found.cores["detection"]), len(found.cores["recognition"])) == (count - recognition, recognition)


def test_detection_on_a_gpu_leaves_the_cores_to_recognition() -> None:
    found = divide_two(range(8), StageLoad(57, on_gpu=True), TINY)
    assert (len(found.cores["detection"]), len(found.cores["recognition"])) == (1, 7)


def test_both_on_a_gpu() -> None:
    found = divide_two(range(5), StageLoad(57, on_gpu=True), GPU)
    assert (len(found.cores["detection"]), len(found.cores["recognition"])) == (3, 2)


def test_no_stage_is_left_without_a_core() -> None:
    assert len(divide_two(range(4), StageLoad(1000), StageLoad(0.001)).cores["recognition"]) == 1
    assert len(divide_two(range(4), StageLoad(0.001), StageLoad(1000)).cores["detection"]) == 1


def test_neighbours_stay_together() -> None:
    assert divide_two([0, 8, 1, 9, 2, 10, 3, 11], SMALL, StageLoad(57)).cores["detection"] == (0, 8, 1, 9)


@pytest.mark.parametrize(
    ("cores", "text"), [((0,), "0"), ((0, 1, 2, 3), "0-3"), ((3, 1, 0, 6), "0-1,3,6"), ((5, 6, 9), "5-6,9")]
)
def test_cores_are_written_as_the_configuration_reads_them(cores: tuple[int, ...], text: str) -> None:
    assert format_cores(cores) == text


def test_three_stages_get_cores_by_their_cost() -> None:
    found = divide(range(16), {"text": SMALL, "words": TINY, "vehicles": StageLoad(57)})
    assert {name: len(cores) for name, cores in found.cores.items()} == {"text": 8, "words": 1, "vehicles": 7}
    assert [core for cores in found.cores.values() for core in cores] == list(range(16)), (
        "disjoint, neighbours together"
    )
    assert not found.shared


@pytest.mark.parametrize(("count", "shared"), [(2, True), (5, True), (6, False)])
def test_more_stages_need_more_cores_to_be_apart(count: int, shared: bool) -> None:
    found = divide(range(count), {"text": SMALL, "words": TINY, "vehicles": SMALL})
    assert found.shared is shared
    assert all(found.cores.values())
    if shared:
        assert set(found.cores.values()) == {tuple(range(count))}


def test_every_stage_on_a_gpu_gets_its_core() -> None:
    found = divide(range(8), {"text": SMALL, "words": GPU, "vehicles": SMALL, "plates": GPU})
    assert [len(cores) for cores in found.cores.values()] == [3, 1, 3, 1]
    found = divide(range(8), {"text": GPU, "words": GPU, "plates": GPU})
    assert [len(cores) for cores in found.cores.values()] == [3, 3, 2]
    assert divide(range(3), {"text": SMALL, "words": GPU, "plates": GPU}).cores == {
        "text": (0,), "words": (1,), "plates": (2,)
    }  # fmt: skip


def test_one_stage_alone_has_all_cores_to_itself() -> None:
    for count in (1, 2, 8):
        found = divide(range(count), {"text": SMALL})
        assert found.cores == {"text": tuple(range(count))}
        assert not found.shared


@pytest.mark.parametrize("stages", range(1, 9))
def test_all_cores_are_given_and_each_once(stages: int) -> None:
    for count in range(1, 40):
        for gpus in range(stages + 1):
            loads = {str(number): StageLoad(1 + number**3, on_gpu=number >= stages - gpus) for number in range(stages)}
            found = divide(range(count), loads)
            given = [core for cores in found.cores.values() for core in cores]
            assert found.shared or given == list(range(count))
            assert all(found.cores.values())
