"""What is typed in place of a configuration, and the configuration in force as it is shown."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from sluiceway_cluster import plan_cluster
from sluiceway_cluster.commands.changes import as_variables
from sluiceway_cluster.settings import as_toml
from sluiceway_runtime import weights
from sluiceway_runtime.config import read_file
from sluiceway_runtime.errors import ConfigurationError
from typer.testing import CliRunner

from sluiceway.cli.app import app
from sluiceway.cli.embedded import Changes

OWN = """
[stages.plates]
kind = "detection"
model = "plates.onnx"
target = "dns:///plates:50052"

[recognition]
models = [{ name = "own", weights = "own.onnx", labels = ["a", "b"] }]

[orchestrator]
url_allow_hosts = ["*.example.org"]

[orchestrator.http]
port = 8081

[pipelines.parking]
steps = [
  { name = "plates", stage = "plates", classes = ["a \\"quoted\\" class"] },
  { name = "number", stage = "recognition", of = "plates" },
  { name = "owner", api = "registry", of = "number", params = { plate = "{text}" } },
]

[api.registry]
url = "https://registry.example.org/{plate}"
params = ["plate"]
image = "none"
values = { "full name" = "/name" }

[security.clients.web]
token_env = "WEB_TOKEN"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SLUICEWAY_") and "__" in name]:
        monkeypatch.delenv(name)
    for name in ("plates.onnx", "own.onnx"):
        (tmp_path / name).touch()
    return tmp_path


def test_models_by_kind_and_workers_of_every_stage(folder: Path) -> None:
    (folder / "sluiceway.toml").write_text('[stages.plates]\nkind = "detection"\nmodel = "plates.onnx"\n')
    changes = Changes(("detection.confidence=0.4",), ("text-small", "ppocrv5-mobile"), 3)
    assert as_variables(changes, None, {}) == {
        "SLUICEWAY_DETECTION__WORKERS": "3",
        "SLUICEWAY_RECOGNITION__WORKERS": "3",
        "SLUICEWAY_STAGES__PLATES__WORKERS": "3",
        "SLUICEWAY_DETECTION__MODEL": "text-small",
        "SLUICEWAY_RECOGNITION__MODELS": '["ppocrv5-mobile"]',
        "SLUICEWAY_DETECTION__CONFIDENCE": "0.4",
    }


def test_they_win_over_the_environment_and_reach_the_servers() -> None:
    environment = {"SLUICEWAY_DETECTION__WORKERS": "1", "SLUICEWAY_DETECTION__DEVICE": "cpu"}
    changes = Changes(("orchestrator.http.port=8099", "stages.more.kind=detection"), (), 2)
    overrides = as_variables(changes, None, environment)
    plan = plan_cluster(None, environment, free_ports=False, overrides=overrides)
    [detection] = [server for server in plan.servers if server.name == "detection"]
    assert detection.environment["SLUICEWAY_DETECTION__WORKERS"] == "2"
    assert plan.servers[-1].http == ("127.0.0.1", 8099)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (Changes(("workers=2",)), "section.key=value"),
        (Changes(("detection.workers",)), "section.key=value"),
        (Changes(("detecton.workers=2",)), "there are detection, recognition"),
        (Changes(("api.shop.url=x",)), "there are detection, recognition"),
        (Changes((), ("text-nanoo",)), "neither a name nor the path of a file"),
        (Changes((), ("text-nano", "text-small")), "one detector"),
    ],
)
def test_what_cannot_be_meant(changes: Changes, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        as_variables(changes, None, {})


@pytest.mark.parametrize("arguments", [["--set", "detection.x=1"], ["--model", "text-small"], ["--workers", "2"]])
def test_a_running_cluster_is_not_changed(arguments: list[str], folder: Path) -> None:
    (folder / "x.png").touch()
    done = CliRunner().invoke(app, ["run", "x.png", "--address", "127.0.0.1:1", *arguments])
    assert done.exit_code == 2
    assert "are for a cluster that is started here" in done.output.replace("\n", " ")
    done = CliRunner().invoke(app, ["run", "x.png", *arguments], env={"SLUICEWAY_ADDRESS": "127.0.0.1:1"})
    assert done.exit_code == 2


@pytest.mark.parametrize("text", ["", OWN], ids=["nothing", "own"])
def test_what_is_shown_says_the_same(text: str, folder: Path) -> None:
    (folder / "sluiceway.toml").write_text(text)
    variables = {"SLUICEWAY_DETECTION__CONFIDENCE": "0.4", "WEB_TOKEN": "secret"}
    shown = as_toml(read_file(None), variables)
    assert "secret" not in shown
    (folder / "shown.toml").write_text(shown)
    again = as_toml(read_file(folder / "shown.toml"), {})
    assert [line for line in shown.splitlines() if not line.startswith("#")] == [
        line for line in again.splitlines() if not line.startswith("#")
    ]
    tables = tomllib.loads(shown)
    assert tables["detection"]["confidence"] == 0.4
    assert "#port = 50051" in shown
    if text:
        assert tables["orchestrator"]["http"] == {"port": 8081}
        assert tables["recognition"]["models"] == [{"name": "own", "weights": "own.onnx", "labels": ["a", "b"]}]
        assert tables["pipelines"] == tomllib.loads(text)["pipelines"]
        assert tables["api"] == tomllib.loads(text)["api"]
        assert tables["stages"]["plates"]["target"] == "dns:///plates:50052"


def test_comments_say_what_a_key_is_and_who_says_it(folder: Path) -> None:
    (folder / "sluiceway.toml").write_text("[orchestrator]\nmax_sources = 7\n")
    lines = as_toml(read_file(None), {"SLUICEWAY_DETECTION__CONFIDENCE": "0.4"}).splitlines()
    assert lines[lines.index("max_sources = 7") - 1] == "# Sources in one job. (from the file)"
    assert lines[lines.index("confidence = 0.4") - 1].endswith(" (from the environment)")
    assert lines[lines.index("#port = 50052") - 1] == "# gRPC port."
    assert "#cores =" in lines, "what has no value is there as a comment"


def test_config_show_is_a_command(folder: Path) -> None:
    done = CliRunner().invoke(app, ["config", "show", "--set", "detection.confidence=0.4", "--workers", "2"])
    assert done.exit_code == 0, done.output
    tables = tomllib.loads(done.output)
    assert (tables["detection"]["confidence"], tables["recognition"]["workers"]) == (0.4, 2)


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that has something under the name of weights."""
    entry = weights.load_registry().models["text-small"]
    folder = tmp_path / "cache" / "models" / f"{entry.name}-{entry.version}"
    folder.mkdir(parents=True)
    (folder / "model.onnx").touch()
    monkeypatch.setenv("SLUICEWAY_CACHE", str(tmp_path / "cache"))
    return folder


def test_weights_are_removed(cache: Path) -> None:
    done = CliRunner().invoke(app, ["models", "rm", "text-small", "ppocrv5-mobile"])
    assert done.exit_code == 0, done.output
    assert "text-small: removed" in done.output
    assert "ppocrv5-mobile: was not in the cache" in done.output
    assert not cache.exists()
    assert list((cache.parents[1] / "partial").glob("*removed*")) == []


def test_all_weights_are_removed(cache: Path) -> None:
    done = CliRunner().invoke(app, ["models", "rm", "--all"])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == "text-small: removed"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["rm"], 2, "name what to remove"),
        (["rm", "nope"], 2, "no weights named nope"),
        (["rm", "text-nano"], 1, "ship with Sluiceway"),
        (["path", "nope"], 2, "no weights named nope"),
        (["path", "text-small"], 1, "run `sluiceway models pull text-small`"),
    ],
)
def test_weights_that_cannot_be_removed_or_shown(arguments: list[str], code: int, said: str, cache: Path) -> None:
    (cache / "model.onnx").unlink()
    cache.rmdir()
    done = CliRunner().invoke(app, ["models", *arguments], catch_exceptions=True)
    said_too = str(done.exception or "")
    assert said in done.output.replace("\n", " ") or said in said_too
    if done.exception is None or isinstance(done.exception, SystemExit):
        assert done.exit_code == code


def test_the_path_of_weights() -> None:
    done = CliRunner().invoke(app, ["models", "path", "text-nano"])
    assert done.exit_code == 0
    assert Path(done.output.strip()).is_file()
