"""Wrong usage of the commands: a plain message and exit code 2, before anything is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from sluiceway_runtime import weights
from typer.testing import CliRunner

from sluiceway.cli.app import app

MISSING = "nope.pem"
READ = {
    "run --ca": ["run", "x.png", "--address", "127.0.0.1:1", "--ca"],
    "run --config": ["run", "x.png", "--config"],
    "up --config": ["up", "--config"],
    "doctor --config": ["doctor", "--no-trial", "--config"],
    "serve detection --config": ["serve", "detection", "--config"],
    "models pull --config": ["models", "pull", "--defaults", "--config"],
}


@pytest.fixture(autouse=True)
def stay_in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`serve` would replace the process that runs the tests."""

    def refuse(*_: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(os, "execv", refuse)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def refused(arguments: list[str]) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.exception or result.output
    return result.output


@pytest.mark.parametrize("command", READ.values(), ids=READ.keys())
def test_a_file_that_is_not_there(command: list[str]) -> None:
    assert f"'{MISSING}' does not exist" in refused([*command, MISSING])


@pytest.mark.parametrize("command", READ.values(), ids=READ.keys())
def test_a_folder_instead_of_a_file(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "'folder' is a directory" in refused([*command, "folder"])


@pytest.mark.parametrize(("images", "said"), [("nowhere", "does not exist"), ("a.jpg", "is a file")])
def test_images_to_calibrate_with_are_a_folder(images: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    arguments = ["models", "calibrate", "text-nano", "--images", images, "--to", "out.onnx"]
    assert f"'{images}' {said}" in refused(arguments)


@pytest.mark.parametrize("option", ["--max-detections", "--image-size", "--in-flight"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_numbers_below_one(option: str, value: str) -> None:
    assert "greater than or equal to 1" in refused(["run", "x.png", "--address", "127.0.0.1:1", option, value])


@pytest.mark.parametrize("option", ["--cert", "--key"])
def test_half_of_a_client_certificate(option: str, tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(b"x")
    said = refused(["run", "x.png", "--address", "127.0.0.1:1", option, "a.pem"])
    assert "--cert and --key belong together" in said


@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_a_time_that_is_none(value: str) -> None:
    assert "--timeout must be above 0" in refused(["run", "x.png", "--address", "127.0.0.1:1", "--timeout", value])


@pytest.mark.parametrize("param", ["country", "=DE"])
def test_a_parameter_that_is_none(param: str) -> None:
    said = refused(["run", "x.png", "--address", "127.0.0.1:1", "--param", param])
    assert f"--param is of the form KEY=VALUE, not {param}" in said


def test_a_scale_that_is_none() -> None:
    said = refused(["run", "x.png", "--address", "127.0.0.1:1", "--scale", "large"])
    assert "--scale must be auto, fast or a number, not large" in said


# A process of its own: the signal is for it alone.
PULLING = textwrap.dedent(
    """
    import signal, sys, time
    from sluiceway.cli.app import main
    from sluiceway_cluster.commands import embedded

    def pull(_):
        print("pulling", flush=True)
        time.sleep(600)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    embedded.pull_missing = pull
    sys.argv = ["sluiceway", "run", "x.png"]
    main()
    """
)


def test_an_interrupt_ends_a_download_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", PULLING], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == b"pulling\n"
            run.send_signal(signal.SIGINT)
            assert run.wait(30) == 130
        finally:
            run.kill()


def test_samples_cannot_be_written_where_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.png").write_bytes(b"x")
    monkeypatch.setattr(weights, "pull_samples", lambda *_: {"page.png": tmp_path / "page.png"})
    result = CliRunner().invoke(app, ["samples", "pull", "page.png", "--to", "page.png"])
    assert result.exit_code == 1, result.exception
    assert "cannot write page.png/page.png: File exists" in result.output


def test_a_pipeline_that_the_configuration_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    (tmp_path / "own.toml").write_text('[pipelines.own]\nsteps = [{ name = "parts", stage = "detection" }]\n')
    said = refused(["run", "x.png", "--config", "own.toml", "--pipeline", "nope"])
    assert "no pipeline is called 'nope'; the configuration has read, own" in said
