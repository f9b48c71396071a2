"""Dividing the machine's cores."""

from __future__ import annotations

import pytest

from sluiceway.cluster.division import StageLoad, divide, format_cores

# What FACTS measured: YOLO26s text for an image, PP-OCRv6 tiny for the words of one.
SMALL, TINY = StageLoad(57), StageLoad(8.5)
GPU = StageLoad(8.5, on_gpu=True)


@pytest.mark.parametrize(
    ("count", "detection", "recognition"),
    [(4, 3, 1), (8, 7, 1), (16, 14, 2), (64, 56, 8)],
)
def test_cores_follow_cost(count: int, detection: int, recognition: int) -> None:
    found = divide(range(count), SMALL, TINY)
    assert (len(found.detection), len(found.recognition)) == (detection, recognition)
    assert sorted(found.detection + found.recognition) == list(range(count))
    assert not found.shared


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_cores_are_shared(count: int) -> None:
    found = divide(range(count), SMALL, TINY)
    assert found.shared
    assert found.detection == found.recognition == tuple(range(count))


@pytest.mark.parametrize(("count", "detection"), [(2, 1), (16, 15)])
def test_recognition_on_a_gpu_needs_one_core(count: int, detection: int) -> None:
    found = divide(range(count), SMALL, GPU)
    assert (len(found.detection), len(found.recognition)) == (detection, 1)


def test_detection_on_a_gpu_leaves_the_cores_to_recognition() -> None:
    found = divide(range(8), StageLoad(57, on_gpu=True), TINY)
    assert (len(found.detection), len(found.recognition)) == (1, 7)


def test_both_on_a_gpu() -> None:
    found = divide(range(5), StageLoad(57, on_gpu=True), GPU)
    assert (len(found.detection), len(found.recognition)) == (3, 2)


def test_no_stage_is_left_without_a_core() -> None:
    assert len(divide(range(4), StageLoad(1000), StageLoad(0.001)).recognition) == 1
    assert len(divide(range(4), StageLoad(0.001), StageLoad(1000)).detection) == 1


def test_neighbours_stay_together() -> None:
    assert divide([0, 8, 1, 9, 2, 10, 3, 11], SMALL, StageLoad(57)).detection == (0, 8, 1, 9)


@pytest.mark.parametrize(
    ("cores", "text"), [((0,), "0"), ((0, 1, 2, 3), "0-3"), ((3, 1, 0, 6), "0-1,3,6"), ((5, 6, 9), "5-6,9")]
)
def test_cores_are_written_as_the_configuration_reads_them(cores: tuple[int, ...], text: str) -> None:
    assert format_cores(cores) == text
