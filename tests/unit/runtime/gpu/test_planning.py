"""Buffers, memory and keys: what is decided before anything is computed."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.torch
GB = 2**30


def shape_of(batch: int, width: int = 32):
    from sluiceway_runtime.gpu import ArraySpec, Shape

    return Shape(f"{batch}x{width}", (ArraySpec("uint8", (batch, 16, width, 3)), ArraySpec("int32", (batch,))))


def test_arrays_lie_side_by_side_in_one_buffer() -> None:
    from sluiceway_runtime.gpu.shapes import ArraySpec, Layout

    layout = Layout([ArraySpec("uint8", (3, 5)), ArraySpec("int32", (2,)), ArraySpec("float16", (4, 1))])
    assert layout.offsets == (0, 256, 512)
    buffer = np.zeros(layout.size_bytes + 64, dtype=np.uint8)
    first, second, third = layout.arrays(buffer)
    first[...], second[...], third[...] = 7, -1, 1.5
    assert (first.shape, second.shape, third.shape) == ((3, 5), (2,), (4, 1))
    assert buffer[:15].tolist() == [7] * 15
    assert buffer[256:264].tolist() == [255] * 8
    assert (buffer[264:512] == 0).all()


def test_a_worker_takes_its_share_and_no_more_than_is_free() -> None:
    from sluiceway_runtime.gpu.memory import budget_bytes

    assert budget_bytes(80 * GB, 80 * GB, 1) == int(72 * GB)
    assert budget_bytes(80 * GB, 80 * GB, 4) == int(18 * GB)
    # Another program has taken most of it.
    assert budget_bytes(10 * GB, 80 * GB, 4) == int(9 * GB)


def test_batches_that_would_not_fit_are_left_out() -> None:
    from sluiceway_runtime.gpu.memory import fitting, probes

    shapes = [shape_of(batch) for batch in (1, 8, 32, 128)]
    small, large = probes(shapes)
    assert (small.batch, large.batch) == (1, 8)
    # Ten megabytes that are always needed, and one for each row.
    measured = [(shape, (10 + shape.batch) * 10**6) for shape in (small, large)]
    for available, most in ((138, 128), (137, 32), (42, 32), (41, 8), (12, 1), (5, 1)):
        kept = fitting(shapes, measured, available * 10**6)
        assert max(shape.batch for shape in kept) == most, available
    assert fitting(shapes[:1], [(shapes[0], 10**12)], 1) == shapes[:1]
    assert probes([shapes[0]]) == (shapes[0],)


def test_artefacts_are_found_by_all_that_they_depend_on(tmp_path: Path) -> None:
    from sluiceway_runtime.gpu.artefacts import Artefacts

    made = Artefacts(tmp_path, "m", {"weights": "1", "torch": "2"})
    assert made.find(shape_of(1)) is None
    with made.building():
        draft = made.draft(shape_of(1))
        draft.write_bytes(b"code")
        path = made.keep(shape_of(1), draft)
    assert Artefacts(tmp_path, "m", {"weights": "1", "torch": "2"}).find(shape_of(1)) == path
    assert Artefacts(tmp_path, "m", {"weights": "1", "torch": "3"}).find(shape_of(1)) is None
    assert made.find(shape_of(2)) is None
    # The same name for another size is another graph.
    other = type(shape_of(1))("1x32", shape_of(1, 64).inputs)
    assert made.find(other) is None


@pytest.mark.parametrize("fault", ["shorter", "changed", "no note", "half a note", "foreign note"])
def test_a_damaged_artefact_does_not_count(tmp_path: Path, fault: str) -> None:
    from sluiceway_runtime.gpu.artefacts import Artefacts

    made = Artefacts(tmp_path, "m", {})
    with made.building():
        draft = made.draft(shape_of(1))
        draft.write_bytes(b"machine code")
        path = made.keep(shape_of(1), draft)
    note = path.with_suffix(".json")
    match fault:
        case "shorter":
            path.write_bytes(b"machine")
        case "changed":
            path.write_bytes(b"machine c0de")
        case "no note":
            note.unlink()
        case "half a note":
            note.write_text(note.read_text()[:50])
        case "foreign note":
            note.write_text(note.read_text().replace('"format": "2"', '"format": "0"'))
    assert made.find(shape_of(1)) is None
    with made.building():
        draft = made.draft(shape_of(1))
        draft.write_bytes(b"machine code")
        made.keep(shape_of(1), draft)
    assert made.find(shape_of(1)) == path


def test_what_a_killed_builder_left_is_removed(tmp_path: Path) -> None:
    from sluiceway_runtime.gpu.artefacts import Artefacts

    made = Artefacts(tmp_path, "m", {})
    with made.building():
        left = made.draft(shape_of(1))
    with made.building():
        assert not left.exists()


def test_without_a_place_to_keep_them_artefacts_are_temporary(tmp_path: Path, caplog) -> None:
    from sluiceway_runtime.gpu.artefacts import Artefacts

    (tmp_path / "cache").write_text("a file where the folder should be")
    made = Artefacts(tmp_path / "cache", "m", {})
    assert made.find(shape_of(1)) is None
    with made.building():
        draft = made.draft(shape_of(1))
        draft.write_bytes(b"code")
        path = made.keep(shape_of(1), draft)
    assert made.find(shape_of(1)) == path
    assert "cannot be kept" in caplog.text
    made.close()
    assert not path.parent.exists()


def test_a_file_system_without_locks_keeps_no_artefacts(tmp_path: Path, monkeypatch, caplog) -> None:
    from sluiceway_runtime.gpu import artefacts

    def flock(file, _operation: int) -> None:
        if Path(file.name).is_relative_to(tmp_path):
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(artefacts.fcntl, "flock", flock)
    made = artefacts.Artefacts(tmp_path, "m", {})
    with made.building():
        assert not made.folder.is_relative_to(tmp_path)
    assert "No locks available" in caplog.text
    made.close()


def test_a_recipe_is_known_by_its_code_too(tmp_path: Path, monkeypatch) -> None:
    from sluiceway_runtime.gpu import Recipe

    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "some_net"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "layers.py").write_text("a = 1")
    recipe = Recipe("some_net.layers:make", {"k": [1, 2]}, {"weights": "1"}, ("some_net",))
    before = recipe.facts()
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.facts() == before
    (package / "layers.py").write_text("a = 2")
    assert recipe.facts() != before
    sys.modules.pop("some_net", None)
