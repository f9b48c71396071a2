"""Readings of `make accuracy` that are kept, and the page that is made of its figures."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.accuracy import __main__ as program
from benchmarks.accuracy import contestants, readings, report
from benchmarks.accuracy.contestants import CONTESTANTS, Contestant, Settings, code_digest
from benchmarks.accuracy.picture import Stored
from benchmarks.accuracy.readings import kept, read_all, record, recorded

ROOT = Path(__file__).parents[3]
# Notes what it is asked for, and by which process on which cores. Of "bad" it says that it is none; of "end" it dies.
READER = """
import json, os, pathlib, sys
options = json.loads(sys.argv[1])
count, met = pathlib.Path(options["count"]), pathlib.Path(options["met"])
cores = "-".join(map(str, sorted(os.sched_getaffinity(0))))
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    path = json.loads(line)["path"]
    name = pathlib.Path(path).stem
    with count.open("a") as notes:
        notes.write(name + " ")
    with met.open("a") as notes:
        notes.write(f"{os.getpid()}:{cores} ")
    if name == "end":
        sys.exit(1)
    while len({note.split(":")[0] for note in met.read_text().split()}) < options["wait_for"]:
        pass
    answer = {"error": "ValueError: no picture"} if name == "bad" else {"lines": ["read " + name]}
    print(json.dumps(answer | {"cpu_s": 0.25}), flush=True)
"""


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, list[Stored]]:
    paths = [tmp_path / f"{name}.png" for name in ("a", "b", "c", "bad")]
    for path in paths:
        path.write_bytes(path.name.encode())
    return {"signs": [Stored(path, ("read",)) for path in paths]}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    count, script = tmp_path / "count", tmp_path / "reader.py"
    count.touch()
    script.write_text(READER)
    options = {"count": str(count), "met": str(tmp_path / "met"), "wait_for": 1}
    monkeypatch.setitem(CONTESTANTS, "reader", Contestant("A reader", str(script), options=options))
    # Of all our code; the fake reads with none of it.
    monkeypatch.setattr(contestants, "_sources", lambda _checkout: "")
    return count


def read(pictures: dict[str, list[Stored]], work: Path, jobs: int = 1) -> None:
    read_all("reader", pictures, Settings(Path(sys.executable)), work, jobs)


def test_what_was_read_is_not_read_again(pictures: dict[str, list[Stored]], asked: Path, tmp_path: Path) -> None:
    read(pictures, tmp_path)
    # Some are looked at once more, for their CPU time.
    assert asked.read_text().split() == ["a", "a", "b", "b", "c", "bad"]
    found = kept("reader", "signs", pictures["signs"], tmp_path)
    assert found is not None
    assert [item.lines for item in found] == [("read a",), ("read b",), ("read c",), ()]
    assert [item.cpu_s for item in found] == [0.25, 0.25, None, None]
    assert found[3].error == "ValueError: no picture"
    read(pictures, tmp_path)
    assert len(asked.read_text().split()) == 6


def test_what_was_timed_on_another_machine_is_timed_again(
    pictures: dict[str, list[Stored]], asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(pictures, tmp_path)
    monkeypatch.setattr(readings, "machine", lambda: "another one, 400 cores")
    found = kept("reader", "signs", pictures["signs"], tmp_path)
    assert found is not None
    assert [item.lines for item in found] == [("read a",), ("read b",), ("read c",), ()]
    assert [item.cpu_s for item in found] == [None] * 4
    asked.write_text("")
    read(pictures, tmp_path)
    assert asked.read_text().split() == ["a", "a", "b", "b"]
    found = kept("reader", "signs", pictures["signs"], tmp_path)
    assert found is not None
    assert [item.cpu_s for item in found] == [0.25, 0.25, None, None]


def test_each_reading_is_kept_as_it_comes(pictures: dict[str, list[Stored]], asked: Path, tmp_path: Path) -> None:
    last = tmp_path / "end.png"
    last.write_bytes(b"end")
    pictures["signs"].append(Stored(last, ("read",)))
    with pytest.raises(SystemExit, match="gave no answer"):
        read(pictures, tmp_path)
    assert kept("reader", "signs", pictures["signs"], tmp_path) is None
    asked.write_text("")
    with pytest.raises(SystemExit, match="gave no answer"):
        read(pictures, tmp_path)
    assert asked.read_text().split() == ["end"]


def test_pictures_are_shared_by_processes_with_a_core_each(
    pictures: dict[str, list[Stored]], asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    reader = CONTESTANTS["reader"]
    monkeypatch.setitem(CONTESTANTS, "reader", replace(reader, options=reader.options | {"wait_for": 2}))
    read(pictures, tmp_path, jobs=2)
    assert sorted(asked.read_text().split()) == ["a", "a", "b", "b", "bad", "c"]
    processes = dict(note.split(":") for note in (tmp_path / "met").read_text().split())
    assert sorted(processes.values()) == sorted(str(cores[job % len(cores)]) for job in range(2))
    found = kept("reader", "signs", pictures["signs"], tmp_path)
    assert found is not None
    assert [item.lines for item in found] == [("read a",), ("read b",), ("read c",), ()]
    assert sorted(os.sched_getaffinity(0)) == cores


def test_a_picture_that_changed_is_read_again(pictures: dict[str, list[Stored]], asked: Path, tmp_path: Path) -> None:
    read(pictures, tmp_path)
    path = pictures["signs"][1].path
    path.write_bytes(b"another")
    changed = {"signs": [Stored(item.path, item.lines) for item in pictures["signs"]]}
    assert kept("reader", "signs", changed["signs"], tmp_path) is None
    asked.write_text("")
    read(changed, tmp_path)
    assert asked.read_text().split() == ["b", "b"]


def test_what_an_earlier_version_read_counts_for_its_pictures_alone(
    pictures: dict[str, list[Stored]], asked: Path, tmp_path: Path
) -> None:
    assert asked.exists()
    read(pictures, tmp_path)
    path = tmp_path / "earlier.json"
    assert recorded("signs", pictures["signs"], path) is None
    record("reader", ["signs", "forms"], pictures, tmp_path, path)
    found = recorded("signs", pictures["signs"], path)
    assert found is not None
    assert [item.lines for item in found] == [("read a",), ("read b",), ("read c",), ()]
    assert recorded("forms", pictures["signs"], path) is None
    assert recorded("signs", pictures["signs"][:2], path) is None


def test_only_what_code_does_counts(tmp_path: Path) -> None:
    module, text = tmp_path / "module.py", tmp_path / "notes.md"
    module.write_text("x = [1, 2]  # why\n")
    before = code_digest([module])
    module.write_text("x = [\n    1,\n    2,\n]\n")
    text.write_text("nothing")
    assert code_digest([module, text]) == before
    module.write_text("x = [1, 3]\n")
    assert code_digest([module]) != before


def test_the_page_is_made_of_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    figures = json.loads(program.MEASURED.read_text(encoding="utf-8"))
    made = report.page(figures)
    assert "<!-- " not in made
    assert report.PAGE.read_text(encoding="utf-8") == made, "python -m benchmarks.accuracy --report"
    shown = {item["file"] for item in figures["failures"]}
    assert {path.name for path in report.PICTURES.iterdir()} == shown
    assert sum(path.stat().st_size for path in report.PICTURES.iterdir()) < 2**20
