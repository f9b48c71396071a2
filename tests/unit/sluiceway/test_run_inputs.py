"""What was typed as sources."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluiceway.cli.inputs import find_inputs
from sluiceway.cli.terminal import EXIT_USAGE

NOBODY = 65534


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder with an image that an ordinary user may not open; the test runs as such a user."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folder = Path(parent) / "locked"
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"x")
        was_root = os.geteuid() == 0
        folder.chmod(0)
        try:
            if was_root:
                os.seteuid(NOBODY)
            yield folder
        finally:
            if was_root:
                os.seteuid(0)
            folder.chmod(0o755)


def names(*arguments: str) -> list[str]:
    return [item.name for item in find_inputs(arguments)]


def test_folders_are_spelled_out_as_they_were_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans" / "deeper").mkdir(parents=True)
    (tmp_path / "scans" / "folder.png").mkdir()
    for name in ("b.jpg", "a.PNG", "notes.txt", "deeper/c.tiff"):
        (tmp_path / "scans" / name).write_bytes(b"x")
    (tmp_path / "scans" / "broken.png").symlink_to("nowhere")
    assert names("./scans") == ["./scans/a.PNG", "./scans/b.jpg", "./scans/deeper/c.tiff"]
    assert names("scans/") == ["scans/a.PNG", "scans/b.jpg", "scans/deeper/c.tiff"]


def test_what_is_too_long_for_a_path_is_passed_on() -> None:
    call = "api:x?t=" + "y" * 300
    assert names(call, "z" * 5000) == [call, "z" * 5000]


def test_a_file_in_a_folder_that_cannot_be_opened_is_left_to_its_reader(locked: Path) -> None:
    assert names(str(locked / "a.jpg")) == [str(locked / "a.jpg")]


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_that_cannot_be_read_is_wrong_usage(
    mode: int, locked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    was = os.geteuid()
    os.seteuid(os.getuid())
    locked.chmod(mode)
    os.seteuid(was)
    with pytest.raises(SystemExit) as caught:
        names(str(locked))
    assert caught.value.code == EXIT_USAGE
    said = capsys.readouterr().err
    assert f"there are no images in {locked}" in said
    if mode == 0:
        assert f"cannot read {locked}: Permission denied" in said


def test_a_subfolder_that_cannot_be_read_is_named_and_passed_over(
    locked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    was = os.geteuid()
    os.seteuid(os.getuid())
    (locked.parent / "b.jpg").write_bytes(b"x")
    os.seteuid(was)
    assert names(str(locked.parent)) == [str(locked.parent / "b.jpg")]
    assert f"cannot read {locked}: Permission denied" in capsys.readouterr().err
