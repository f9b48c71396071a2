"""`sluiceway run`: NDJSON, exit codes, pictures."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

COMMAND = [sys.executable, "-m", "sluiceway.cli", "run"]
WORDS = {"Region-based", "segmentation", "markers", "coins", "background"}


def run(*arguments: object, stdin: bytes | None = None, **variables: str) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, timeout=110, env=os.environ | variables, check=False
    )


def objects(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def check_region(region: dict[str, Any], width: int, height: int) -> None:
    keys = ["id", "parent", "step", "box", "class", "confidence", "text", "text_confidence"]
    # A line that is turned has its outline besides.
    assert [key for key in region if key != "outline"][: len(keys)] == keys
    assert (region["parent"], region["step"]) == (None, "text")
    x0, y0, x1, y1 = region["box"]
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert isinstance(region["class"], str)
    assert 0 < region["confidence"] <= 1
    if region["text"] is not None:
        assert 0 <= region["text_confidence"] <= 1


def test_ndjson_is_what_the_design_says(up: Any, samples: Path) -> None:
    page, notes = samples / "page.png", samples / "notes.txt"
    done = run(page, notes, "--json", "--address", up.address)
    assert done.returncode == 1, "one of two failed"
    good, bad = objects(done)
    keys = ["source", "status", "width", "height", "regions", "lines", "blocks", "models", "request_id", "timings_ms"]
    assert list(good) == keys
    assert (good["source"], good["status"], good["width"], good["height"]) == (str(page), "ok", 384, 191)
    for region in good["regions"]:
        check_region(region, 384, 191)
    assert good["timings_ms"]["total"] > 0
    assert {"text", "words"} <= set(good["timings_ms"])
    assert [len(model["weights_sha256"]) for model in good["models"]] == [64, 64]
    assert list(bad) == ["source", "status", "error"]
    assert (bad["source"], bad["status"]) == (str(notes), "failed")
    assert (bad["error"]["code"], bad["error"]["reason"]) == ("INVALID_ARGUMENT", "INVALID_IMAGE")
    assert bad["error"]["message"]


def test_the_words_of_the_page_come_back_in_reading_order(up: Any, samples: Path) -> None:
    done = run(samples / "page.png", "--json", "--address", up.address)
    assert done.returncode == 0, done.stderr.decode()
    texts = [region["text"] for region in objects(done)[0]["regions"] if region["text"]]
    words = [word.strip(".,:") for text in texts for word in text.split()]
    assert len(words) >= 40
    assert set(words) >= WORDS
    assert words[:2] == ["Region-based", "segmentation"]
    assert words.index("determine") < words.index("markers") < words.index("coins")


def test_the_lettering_of_the_photograph_comes_back(up: Any, samples: Path) -> None:
    done = run(samples / "bus.jpg", "--json", "--address", up.address)
    assert done.returncode == 0, done.stderr.decode()
    text = " ".join(region["text"] or "" for region in objects(done)[0]["regions"])
    assert "cero" in text
    assert "emisiones" in text


def test_people_get_a_table_and_pictures(up: Any, samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "annotated"
    done = run(samples / "page.png", samples / "bus.jpg", "--out", out, "--address", up.address)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    row = next(line.split() for line in lines if line.startswith("Region-based segmentation"))
    assert 0.5 < float(row[2]) <= 1
    assert all(float(number) > 0 for number in row[4:8]), "two words, confidence, class, box"
    assert str(out) in done.stderr.decode().replace("\n", "")
    assert sorted(path.name for path in out.iterdir()) == ["bus.jpg", "page.png"]
    with Image.open(out / "bus.jpg") as picture:
        assert picture.size == (1620, 2160)


def test_a_picture_that_cannot_be_written_is_exit_code_1(up: Any, samples: Path, tmp_path: Path) -> None:
    (tmp_path / "page.png").mkdir()
    done = run(samples / "page.png", "--json", "--out", tmp_path, "--address", up.address)
    assert done.returncode == 1
    assert objects(done)[0]["status"] == "ok"
    assert b"could not be written" in done.stderr


def test_names_come_out_whatever_the_locale(up: Any, samples: Path, tmp_path: Path) -> None:
    street = tmp_path / "Straße 北京.png"
    street.write_bytes((samples / "page.png").read_bytes())
    done = run(street, "--json", "--address", up.address, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr.decode()
    assert objects(done)[0]["source"] == str(street)
    done = run(street, "--address", up.address, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr.decode()
    assert b"Stra?e ??.png" in done.stdout


def test_a_folder_gives_its_images_and_passes_over_the_rest(up: Any, copy_samples: Path) -> None:
    (copy_samples / "deeper").mkdir()
    (copy_samples / "page.png").rename(copy_samples / "deeper" / "PAGE.PNG")
    done = run(copy_samples, "--json", "--address", up.address)
    assert done.returncode == 0, done.stderr.decode()
    assert [item["source"] for item in objects(done)] == [
        str(copy_samples / "bus.jpg"),
        str(copy_samples / "deeper" / "PAGE.PNG"),
    ]


def test_standard_input(up: Any, samples: Path) -> None:
    done = run("-", "--json", "--address", up.address, stdin=(samples / "page.png").read_bytes())
    assert done.returncode == 0, done.stderr.decode()
    assert (objects(done)[0]["source"], objects(done)[0]["width"]) == ("-", 384)


def test_options_have_their_effect(up: Any, samples: Path) -> None:
    everything = run(samples / "page.png", "--json", "--address", up.address)
    few = run(samples / "page.png", "--json", "--address", up.address, "--max-detections", 3)
    sure = run(samples / "page.png", "--json", "--address", up.address, "--conf", 0.75)
    named = run(samples / "page.png", "--json", "--address", up.address, "--pipeline", "read")
    unread = run(samples / "page.png", "--json", "--address", up.address, "--detect-only")
    assert objects(named)[0]["regions"] == objects(everything)[0]["regions"]
    count = len(objects(everything)[0]["regions"])
    assert len(objects(few)[0]["regions"]) == 3 < count
    (notice,) = objects(few)[0]["notices"]
    assert (notice["reason"], notice["metadata"]["max"]) == ("REGIONS_TRUNCATED", "3")
    assert "notices" not in objects(everything)[0]
    assert 0 < len(objects(sure)[0]["regions"]) < count
    assert {region["text"] for region in objects(unread)[0]["regions"]} == {None}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Usage"),
        (["--no-such-option", "x.png"], "No such option"),
        (["--conf", "3", "x.png"], "--conf must be above 0"),
        (["--config", "nowhere.toml", "x.png"], "nowhere.toml"),
        (["--ca", "nowhere.pem", "x.png"], "nowhere.pem"),
        (["--max-detections", "-1", "x.png"], "--max-detections"),
        (["--param", "country", "x.png"], "--param is of the form KEY=VALUE"),
        (["--address", "127.0.0.1:1", "--token", "a\nb", "x.png"], "the token has characters"),
    ],
)
def test_wrong_usage_is_exit_code_2_without_a_traceback(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    output = (done.stdout + done.stderr).decode()
    assert said in output
    assert "Traceback" not in output


def test_a_pipeline_that_is_not_there_fails_every_image(up: Any, samples: Path) -> None:
    done = run(samples / "page.png", "--json", "--address", up.address, "--pipeline", "no_such")
    assert done.returncode == 1
    assert objects(done)[0]["error"]["reason"] == "UNKNOWN_PIPELINE"


def test_an_empty_folder_is_wrong_usage(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert b"there are no images in" in done.stderr


def test_nobody_answers_at_the_address(samples: Path) -> None:
    done = run(samples / "page.png", "--json", "--address", "127.0.0.1:1", "--patience", 3)
    assert done.returncode == 1
    [item] = objects(done)
    assert "cannot reach 127.0.0.1:1" in item["error"]["message"]
    assert b"cannot reach 127.0.0.1:1" in done.stderr
    assert b"Traceback" not in done.stderr


def test_every_fault_of_the_configuration_at_once_before_anything_starts(samples: Path, tmp_path: Path) -> None:
    config = tmp_path / "sluiceway.toml"
    config.write_text("[detection]\nwrkers = 3\n[recognition]\nqueue_items = 0\n[orchestrator]\nport = 70000\n")
    done = run(samples / "page.png", "--config", config)
    assert done.returncode == 2
    said = done.stderr.decode()
    assert all(key in said for key in ("detection.wrkers", "recognition.queue_items", "orchestrator.port"))


def marked(mark: str) -> list[list[str]]:
    """Command lines of living processes that inherited a mark, whoever else runs clusters here."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("MARK_OF_TEST") == mark:
                found.append(process.cmdline())
    return found


def test_without_an_address_it_brings_its_own_cluster_and_leaves_nothing(samples: Path) -> None:
    mark = uuid.uuid4().hex
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(run, samples / "page.png", "--json", MARK_OF_TEST=mark)
        most = 0
        while not running.done():
            most = max(most, len(marked(mark)))
            time.sleep(0.2)
        done = running.result()
    assert done.returncode == 0, done.stderr.decode()
    assert len(" ".join(region["text"] for region in objects(done)[0]["regions"]).split()) >= 40
    assert most >= 6, "the command, three servers, a worker for each stage"
    assert marked(mark) == []
