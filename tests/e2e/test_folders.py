"""Folders as people have them: a stick that was in a Mac, a share of a storage server, a repository."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pseudo_terminal import COMMAND

# Each with what Pillow calls its format; those of documents may be read by newer servers.
TAKEN = {
    "scan1.jpg": "JPEG",
    "scan2.jfif": "JPEG",
    "scan3.jpe": "JPEG",
    "scan4.dib": "BMP",
    "scan5.gif": "GIF",
    "scan6.pdf": "PDF",
    "SCAN7.JPEG": "JPEG",
    "deeper/scan8.tiff": "TIFF",
    "scan9.webp": "WEBP",
}
READ_EVERYWHERE = ("JPEG", "BMP", "TIFF", "WEBP")
PASSED_OVER = (
    "@eaDir/scan1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/old.jpg",
    "$RECYCLE.BIN/old.jpg",
    "__MACOSX/scan1.jpg",
    ".thumbnails/scan1.jpg",
    ".git/x.png",
    ".Trash-1000/files/deleted.png",
    ".hidden.png",
    "notes.txt",
    "IMG_0005",
)


@pytest.fixture
def stick(samples: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "usb"
    with Image.open(samples / "page.png") as page:
        picture = page.convert("RGB")
    for name, kind in TAKEN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name, format=kind)
    for name in PASSED_OVER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.resize((80, 45)).save(folder / name, format="PNG")
    # As macOS leaves it beside each file where it cannot keep it within: magic, version, filler, one entry.
    head = struct.pack(">II16sH", 0x00051607, 0x00020000, b"Mac OS X        ", 1)
    (folder / "._scan1.jpg").write_bytes(head + struct.pack(">III", 9, 50, 32) + b"\0" * 4046)
    # Links: to the folder itself, to nothing, to a file elsewhere.
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    return folder


def test_the_images_of_a_stick_and_nothing_else(up: Any, stick: Path) -> None:
    command = [*COMMAND, "run", str(stick), "--json", "--address", up.address]
    done = subprocess.run(command, capture_output=True, timeout=110, check=False)
    found = {item["source"]: item for item in map(json.loads, done.stdout.splitlines())}
    assert sorted(found) == sorted(str(stick / name) for name in TAKEN), done.stderr.decode()
    for name, kind in TAKEN.items():
        if kind in READ_EVERYWHERE:
            assert found[str(stick / name)]["status"] == "ok", found[str(stick / name)]


def test_what_is_named_is_taken_whatever_it_is_called(up: Any, stick: Path) -> None:
    """A hidden folder, a file without a suffix: whoever types the name means it."""
    names = [stick / ".git", stick / "IMG_0005", stick / "@eaDir"]
    command = [*COMMAND, "run", *map(str, names), "--json", "--address", up.address]
    done = subprocess.run(command, capture_output=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert [json.loads(line)["source"] for line in done.stdout.splitlines()] == [
        str(stick / ".git" / "x.png"),
        str(stick / "IMG_0005"),
        str(stick / "@eaDir" / "scan1.jpg" / "SYNOPHOTO_THUMB_M.jpg"),
    ]


def test_a_folder_with_nothing_but_copies_is_wrong_usage(stick: Path) -> None:
    (stick / "only" / ".thumbnails").mkdir(parents=True)
    (stick / "only" / ".thumbnails" / "a.png").touch()
    done = subprocess.run([*COMMAND, "run", str(stick / "only")], capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert b"there are no images in" in done.stderr
