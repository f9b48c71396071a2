"""The verdicts of `make bench-recognition`: what passes, what fails, and what does not apply."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "support"))

from gpu_meter import GpuMeter
from recognition_bars import Asked, Bar, Verdict, bars, drift, judge, table

BUSY = "served.ppocrv5-mobile.320.2.gpu_share"
H100, OTHER = "NVIDIA H100 80GB HBM3", "NVIDIA L4"
MODELS = ("ppocrv5-mobile", "ppocrv6-tiny")
FIGURES = {
    "bare.ppocrv6-tiny.320.128.per_s": 110_000.0,
    "bare.ppocrv6-tiny.320.1.ms": 0.3,
    "wire.320.1.per_s": 30_000.0,
    "served.ppocrv6-tiny.320.1.per_s": 27_000.0,
    "served.ppocrv6-tiny.160.1.per_s": 25_000.0,
    "served.ppocrv6-tiny.160.2.per_s": 40_000.0,
}


ALL = Asked(
    parts=("bare", "served", "wire", "latency", "mixed", "soak"), models=MODELS, widths=(160, 320), batches=(1, 8, 128),
    fronts=(1, 2),
)  # fmt: skip
NOTHING = Asked(parts=(), models=(), widths=(), batches=(), fronts=())


def verdicts(device: str, asked: Asked = NOTHING) -> dict[str, Verdict]:
    return {bar.name: judge(bar, FIGURES, device=device, asked=asked) for bar in bars((160, 320), (1, 2), MODELS)}


def test_names_are_distinct() -> None:
    names = [bar.name for bar in bars((160, 320), (1, 2), MODELS)]
    assert len(names) == len(set(names)) > 20


@pytest.mark.parametrize(
    ("name", "value", "passed"),
    [
        ("bare.ppocrv6-tiny.320.128.per_s", 110_000, True),
        ("bare.ppocrv6-tiny.320.1.ms", 0.3, False),
        # The wire carries less than the model computes, so it is the floor.
        ("served_to_floor.ppocrv6-tiny.320.1", 0.9, True),
        ("served.ppocrv6-tiny.160.1.per_s", 25_000, True),
        ("fronts_2_to_1.ppocrv6-tiny.160", 1.6, False),
    ],
)
def test_figures_are_held_against_their_bars(name: str, value: float, passed: bool) -> None:
    verdict = verdicts(H100)[name]
    assert verdict.value == pytest.approx(value)
    assert verdict.passed is passed


def test_what_does_not_apply_neither_passes_nor_fails() -> None:
    on_cpu, on_other = verdicts(""), verdicts(OTHER)
    assert on_cpu[BUSY].note == "for a GPU"
    assert verdicts(H100)[BUSY].note == "not measured"
    assert verdicts(H100)["served_to_bare.ppocrv6-tiny.320"].note == "for a machine without a GPU"
    # Absolute figures are those of one device; ratios hold anywhere.
    assert on_other["bare.ppocrv6-tiny.320.1.ms"].passed is None
    assert on_other["bare.ppocrv6-tiny.320.1.ms"].value == 0.3
    assert on_other["served_to_floor.ppocrv6-tiny.320.1"].passed
    assert not any(verdict.passed for verdict in on_cpu.values())


def test_what_was_asked_for_and_not_measured_fails() -> None:
    found = verdicts(H100, ALL)
    for name in (BUSY, "bare.ppocrv5-mobile.320.1.ms", "latency.server.ppocrv6-tiny.ms", "soak.host_drift"):
        assert (found[name].passed, found[name].note) == (False, "not measured")
    # As far as it applies, and no figure that the options leave out: all that a bar is made of has to be asked for.
    assert verdicts(OTHER, ALL)["bare.ppocrv5-mobile.320.1.ms"].passed is None
    assert verdicts(H100, ALL)["served_to_bare.ppocrv6-tiny.320"].passed is None
    assert verdicts("", ALL)["served_to_bare.ppocrv6-tiny.320"].passed is False
    for left_out in (
        {"parts": ("bare", "latency")}, {"models": MODELS[1:]}, {"widths": (160,)}, {"fronts": (1,)},
    ):  # fmt: skip
        assert verdicts(H100, replace(ALL, **left_out))[BUSY].passed is None
    floor = "served_to_floor.ppocrv5-mobile.160.1"
    assert verdicts(H100, ALL)[floor].passed is False
    for left_out in ({"batches": (1, 8)}, {"parts": ("served", "wire")}, {"parts": ("bare", "served")}):
        assert verdicts(H100, replace(ALL, **left_out))[floor].passed is None
    assert verdicts("", replace(ALL, parts=("served",)))["served_to_bare.ppocrv6-tiny.320"].passed is None


def test_a_driver_that_does_not_say_everything_is_watched_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho '100, [N/A]'\necho '[N/A], 40'\necho '300, 60'\necho '[N/A], [N/A]'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with GpuMeter() as meter:
        meter._thread.join(30)  # the script has ended by itself
        assert meter.take() == (200, 0.5)
        assert meter.take() == (None, None)


def test_the_table_says_what_failed() -> None:
    lines = list(table(FIGURES, list(verdicts(H100).values())))
    assert sum(line.endswith("FAILED") for line in lines) == 2
    lines = list(table(FIGURES, list(verdicts(H100, ALL).values())))
    assert sum(line.endswith("FAILED (not measured)") for line in lines) > 10
    assert any("27,000" in line for line in lines)


def test_exactly_the_bar_passes() -> None:
    assert judge(Bar("a", ">=", 2.0, ("a",), "any"), {"a": 2.0}, device="", asked=NOTHING).passed
    assert judge(Bar("a", "<=", 2.0, ("a",), "any"), {"a": 2.0}, device="", asked=NOTHING).passed


@pytest.mark.parametrize(
    ("samples", "share"),
    [
        ([100.0] * 60, 0.0),
        ([100.0] * 15 + [103.0] * 45, 0.03),
        # A leak of 1 in 60 samples, and a spike that is no drift.
        ([100.0 + index for index in range(60)], 0.42),
        ([100.0] * 30 + [150.0] + [100.0] * 29, 0.0),
        ([50.0], 0.0),
    ],
)
def test_drift_is_of_medians_over_time(samples: list[float], share: float) -> None:
    assert drift(samples) == pytest.approx(share, abs=0.005)
