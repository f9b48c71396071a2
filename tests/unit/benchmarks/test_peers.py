"""The verdicts of `make bench-peers`, and what it asks peers with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.peers import wires
from benchmarks.peers.contestants import CONTESTANTS
from benchmarks.peers.course import step_figures, windows_of
from benchmarks.peers.figures import Figures, equal_share
from benchmarks.peers.hosting import Running
from benchmarks.peers.pictures import draw
from benchmarks.peers.report import full, rows, summary
from benchmarks.peers.run import Plan, own_pace, pace_of, plans_of
from benchmarks.peers.serving.settings import take_core
from benchmarks.support import environments
from sluiceway.bench.outcome import OK, Answer, Outcome

READ = [["EMT", "cero emisiones"], []]
STEP = {
    "goodput_per_s": [19.5, 19.0],
    "window_s": 5.0,
    "refused_ms": [2.0, 9.0, 20.0],
    "accepted_ms": [200.0, 290.0],
    "outcomes": {"ok": 190, "refused": 380},
}


def stint(
    name: str, per_s: float, *, workers: int = 2, usual: bool = True, busy: float = 0.0, failed: int = 0, **changed: Any
) -> dict[str, Any]:
    closed = [
        {"callers": 1, "answered_per_s": per_s / 2, "failed": 0, "p50_ms": 90.0, "p99_ms": 100.0},
        {"callers": 4, "answered_per_s": per_s, "failed": failed, "p50_ms": 150.0, "p99_ms": 200.0},
    ]
    loads = [
        {"factor": factor, "offered_per_s": 1.0, "answered_per_s": 1.0, "p50_ms": 1.0, "p99_ms": p99_ms,
         "outcomes": {"ok": 100}}
        for factor, p99_ms in ((0.5, 150.0), (1.5, 300.0))
    ]  # fmt: skip
    whole = {"open": loads, "step": STEP} if usual else {"open": [], "step": None}
    row = {"name": name, "workers": workers, "usual": usual, "busy": busy, "closed": closed, "after_per_s": per_s}
    return row | whole | {"memory_mb": 900.0, "texts": READ} | changed


def figures(*stints: dict[str, Any], on_gpu: bool = False, complete: bool = False) -> Figures:
    names = (
        "sluiceway",
        "sluiceway bounded",
        "mosec tuned",
        "ray tuned",
        "litserve documented",
        "sluiceway defaults",
        "turboocr",
    )
    ocr = frozenset({"sluiceway defaults", "turboocr"})
    tuned = frozenset({"mosec tuned", "ray tuned", "turboocr"})
    return Figures(stints, {name: name for name in names}, ocr, tuned, on_gpu, {}, complete)


ALL = (
    stint("sluiceway", 20.0, step=STEP | {"goodput_per_s": [1.0]}),
    stint("sluiceway bounded", 20.0),
    stint("mosec tuned", 18.0, open=[], step=STEP | {"goodput_per_s": [0.0, 0.0]}),
    stint("litserve documented", 5.0, open=[], step=None),
    stint("sluiceway defaults", 30.0, word_f1=0.99),
    stint("turboocr", 15.0, word_f1=0.98),
)


def test_ratios_are_of_the_best_of_each() -> None:
    found = figures(
        *ALL, stint("mosec tuned", 10.0, workers=8, usual=False), stint("sluiceway", 19.0, workers=8, usual=False)
    )
    ratios = found.ratios()
    assert ratios["sluiceway_to_mosec_tuned"] == pytest.approx(20 / 18)
    assert ratios["sluiceway_to_best_tuned"] == pytest.approx(20 / 18)
    assert ratios["sluiceway_to_litserve_as_documented"] == pytest.approx(4)
    assert ratios["sluiceway_to_best_tuned_at_4_times_the_workers"] == pytest.approx(1.9)
    assert ratios["defaults_to_best_ocr"] == pytest.approx(2)
    assert ratios["defaults_word_f1_less_best_ocr"] == pytest.approx(0.01)
    assert ratios["step_goodput_of_capacity"] == pytest.approx(0.95)
    assert ratios["step_goodput_of_capacity_best_peer"] == 0.0
    assert ratios["step_accepted_p99_to_closed_p99"] == pytest.approx(1.45)


def test_all_bars_passed() -> None:
    found = figures(*ALL)
    assert (found.faults(), found.judged) == ([], True)
    assert all(bar.passed for bar in found.bars())


def test_what_ran_twice_counts_by_its_median() -> None:
    assert figures(stint("sluiceway", 20.0), stint("sluiceway", 10.0)).best_per_s("sluiceway") == 15.0


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (stint("mosec tuned", 21.0), "sluiceway_to_best_tuned = 0.952 must be >= 1"),
        (stint("litserve documented", 10.0), "sluiceway_to_litserve_as_documented = 2 must be >= 2.2"),
        (stint("ray tuned", 9.0, failed=3), "ray tuned failed 3 requests"),
        (stint("ray tuned", 9.0, texts=[["EMT"], ["ghost"]]), "ray tuned reads something else: 50.0%"),
        (stint("turboocr", 15.0, word_f1=0.995), "defaults_word_f1_less_best_ocr = -0.005 must be >= 0"),
    ],
)
def test_each_fault_is_told(changed: dict[str, Any], fault: str) -> None:
    kept = [row for row in ALL if row["name"] != changed["name"]]
    assert [item for item in figures(*kept, changed).faults() if item.startswith(fault)]


def test_a_bar_without_a_figure_is_a_fault_of_a_whole_run() -> None:
    assert figures(*ALL, complete=True).faults() == []
    without = [row for row in ALL if row["name"] != "turboocr"]
    assert figures(*without).faults() == []
    assert "defaults_to_best_ocr was not measured" in figures(*without, complete=True).faults()


def test_a_busy_machine_judges_nobody() -> None:
    assert not figures(stint("sluiceway", 20.0, busy=0.4)).judged


def test_with_a_gpu_other_bars_hold() -> None:
    names = {bar.name for bar in figures(*ALL, on_gpu=True).bars()}
    assert "overload_p99_to_best_peer" in names
    assert "defaults_to_best_ocr" not in names


def test_a_peer_whose_requests_time_out_has_no_p99() -> None:
    late = {"factor": 1.5, "offered_per_s": 1.0, "answered_per_s": 0.0, "p50_ms": 1.0, "p99_ms": 5.0,
            "outcomes": {"ok": 50, "timed out": 50}}  # fmt: skip
    assert figures(stint("ray tuned", 9.0, open=[late])).overload_p99_ms("ray tuned") == float("inf")


def test_texts_are_compared_image_by_image_whatever_their_order() -> None:
    assert equal_share([["a", "b"]], [["b", "a"]]) == 1.0
    assert equal_share([["a"], ["b"]], [["b"], ["a"]]) == 0.0
    assert equal_share([["a", "a"]], [["a"]]) == pytest.approx(2 / 3)
    assert equal_share([[]], [[]]) == 1.0


def test_no_window_of_a_step_is_left_out() -> None:
    answered = [Outcome(9.5 + number / 10, 9.5 + number / 10, 10.25 + number / 10, Answer(OK)) for number in range(10)]
    refused = [Outcome(11.0, 11.0, 11.02, Answer("refused"))]
    late = [Outcome(10.0, 10.0, 16.0, Answer(OK))]
    found = step_figures([*answered, *refused, *late], 10.0, 10.2, 13.2, 1.0)
    assert found.goodput_per_s == (10.0, 0.0, 0.0)
    assert found.refused_ms[2] == pytest.approx(20, abs=0.1)
    assert found.outcomes == {"ok": 6, "refused": 1}


@pytest.mark.parametrize(
    ("capacity_per_s", "window_s", "step_s"),
    [(200.0, 1.0, 12.0), (20.0, 5.0, 12.0), (10.0, 10.0, 20.5), (2.0, 14.75, 30.0)],
)
def test_two_windows_fit_into_every_step(capacity_per_s: float, window_s: float, step_s: float) -> None:
    assert windows_of(capacity_per_s, 0.5, 12.0) == (pytest.approx(window_s), pytest.approx(step_s))
    outcomes = [Outcome(number / 10, number / 10, number / 10, Answer(OK)) for number in range(10 * 60)]
    assert len(step_figures(outcomes, 2.0, 2.5, 2.0 + step_s, window_s).goodput_per_s) >= 2


def test_every_framework_is_asked_as_it_reads() -> None:
    image = b"\x89PNG}]}..."
    body = wires.KSERVE.body(image)
    length = int(wires.KSERVE.headers(body)["Inference-Header-Content-Length"])
    assert (json.loads(body[:length])["inputs"][0]["shape"], body[length:]) == ([1, len(image)], image)
    assert image in wires.BENTOML.body(image)
    answer = {"outputs": [{"name": "texts", "data": ["EMT", ""]}]}
    assert wires.KSERVE.texts(json.dumps(answer).encode()) == ["EMT"]


def test_ours_comes_first_and_last() -> None:
    plans = plans_of(["sluiceway", "mosec tuned", "litserve documented", "turboocr"], 2, on_gpu=False)
    assert [plan.name for plan in plans if plan.usual] == [
        "sluiceway", "mosec tuned", "litserve documented", "turboocr", "sluiceway",
    ]  # fmt: skip
    assert {plan.workers for plan in plans if plan.name == "mosec tuned"} == {1, 2, 8}
    assert {plan.workers for plan in plans if plan.name == "sluiceway"} == {1, 2, 4}, "of each stage"
    assert len({plan.file for plan in plans}) == len(plans)


def test_callers_of_a_bounded_server_wait_no_longer_than_it_allows() -> None:
    pace = pace_of(2, on_gpu=False, quick=False)
    assert own_pace(Plan("sluiceway bounded", 1, usual=True), pace, 2).callers == (1, 2, 4)
    assert own_pace(Plan("sluiceway", 4, usual=False), pace, 2).callers == (16,)
    settled = [name for name in CONTESTANTS if own_pace(Plan(name, 2, usual=True), pace, 2).settle_s]
    assert settled == ["sluiceway defaults", "rapidocr", "turboocr"]


def test_workers_take_turns_with_cores(tmp_path: Path) -> None:
    # In a process of its own: it is pinned by this.
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from benchmarks.peers.serving.settings import take_core\n"
        "cores, seen, held = os.sched_getaffinity(0), [], []\n"
        "for _ in range(2 * len(cores)):\n"
        "    os.sched_setaffinity(0, cores); held.append(take_core(Path(sys.argv[2])))\n"
        "    seen += os.sched_getaffinity(0)\n"
        "assert sorted(seen) == sorted([*cores, *cores]), seen\n"
    )
    assert take_core.__doc__
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parents[3]), str(tmp_path)], check=True)


def test_an_environment_is_made_again_when_it_should_hold_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(
        environments.subprocess, "run", lambda command, **_: ran.append([str(part) for part in command])
    )
    (tmp_path / "peer").mkdir()
    for wanted, commands in ((["a==1"], 2), (["a==1"], 0), (["a==2"], 2)):
        environments.environment("peer", wanted, Path(sys.executable))
        assert len(ran) == commands
        ran.clear()
    with pytest.raises(SystemExit, match="needs a Python of its own"):
        environments.environment("other", ["a==1"], Path("python0.1"))


def test_what_was_found_is_shown(tmp_path: Path) -> None:
    where = {"machine": {"cores": 2, "processor": "Xeon", "gpu": "", "python": "3.11.7", "versions": {"openvino": "1"}}}
    found = where | {"detector": "text-nano", "recogniser": "ppocrv6-tiny"} | figures(*ALL).to_dict()
    text = "\n".join(rows(json.loads(json.dumps(found))))
    assert "| mosec tuned | 2 | 18.0 |" in text
    assert "| `sluiceway_to_best_tuned` | 1.11 | >= 1 | passed |" in text
    assert "2 cores, Xeon" in text
    assert "| mosec tuned | 1.11 |" in "\n".join(summary(found))
    draw(found, tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text(encoding="utf-8").count("<polyline") >= 3


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[3] / "benchmarks").glob("*.py")), ids=lambda path: path.name
)
def test_results_go_into_a_folder_that_a_fresh_clone_has_not(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # `judge` makes it.
    assert "--json" not in text or ".parent.mkdir(" in text or "return judge(ratios, BARS, arguments.json)" in text


def test_who_is_full_is_told_by_what_it_runs() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "timeit", "-n", "1", "-r", "1", "input()"], stdin=subprocess.PIPE
    ) as peer:
        spent = Running(send=None, texts=[], pids=[peer.pid]).cpu_s_by_process()  # type: ignore[arg-type]
        peer.communicate(b"\n")
    assert spent.keys() == {"clients", f"timeit {peer.pid}"}
    assert spent["clients"] > 0
    watched = stint("sluiceway", 10.0)
    assert full(watched) == "", "figures of before"
    watched["closed"][1]["full"] = {"sluiceway_detection 7": 0.31, "clients": 0.98}
    assert full(watched) == "clients 98%, sluiceway_detection 7 31%"
