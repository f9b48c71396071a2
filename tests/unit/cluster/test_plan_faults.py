"""What would keep a server from starting is told by key, all at once, before any starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from sluiceway_cluster import Cluster, ClusterError, plan_cluster
from sluiceway_runtime import weights
from sluiceway_runtime.errors import ConfigurationError, StartupError

CPU = {"SLUICEWAY_DETECTION__DEVICE": "cpu", "SLUICEWAY_RECOGNITION__DEVICE": "cpu"}
FAULTY = """
[detection]
model = "text-nanoo"

[recognition]
models = ["ppocrv6-tiny", "ppocrv7", { name = "own", weights = "nowhere/own.onnx" }, "text-small"]

[stages.plates]
kind = "detection"
model = "plates.onnx"

[api.shop]
url = "https://example.org/{id}"
params = ["id"]
headers = { Authorization = "Bearer {secret.token}" }
secrets = { token = "SHOP_TOKEN" }

[security.clients.web]
token_env = "WEB_TOKEN"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def faults(*, here: bool = True, **variables: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        plan_cluster(None, CPU | variables, free_ports=True, here=here)
    return str(caught.value).splitlines()


def test_models_and_secrets_that_are_not_there(folder: Path) -> None:
    (folder / "sluiceway.toml").write_text(FAULTY)
    found = faults()
    assert [line.partition(": ")[0] for line in found] == [
        "detection.model",
        "recognition.models.ppocrv7",
        "recognition.models.own",
        "recognition.models.text-small",
        "stages.plates.model",
        "security.clients.web.token_env",
        "api.shop.secrets.token",
    ]
    assert "no weights named text-nanoo for detection; there are text-nano" in found[0]
    assert "nowhere/own.onnx does not exist" in found[2]
    assert "are for detection, not for recognition" in found[3]
    assert "SHOP_TOKEN is not set" in found[-1]


def test_what_is_for_another_machine_may_be_there_alone(folder: Path) -> None:
    """As for `compose`, and for images that are built before there are secrets."""
    (folder / "sluiceway.toml").write_text(FAULTY)
    assert plan_cluster(None, CPU, free_ports=True, here=False).servers


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SLUICEWAY_DETECTION_WORKERS", "two underscores part section and key: SLUICEWAY_DETECTION__WORKERS"),
        ("SLUICEWAY_FOO", "is read by nobody"),
        ("SLUICEWAY_", "is read by nobody"),
    ],
)
def test_variables_that_nobody_reads(name: str, said: str) -> None:
    [line] = faults(**{name: "2"})
    assert line.startswith(f"{name}: ")
    assert said in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLUICEWAY_ADDRESS", "localhost:1"),
        ("SLUICEWAY_TOKEN", "x"),
        ("SLUICEWAY_DETECTION_PORT", "tcp://10.0.0.1:50052"),
        ("SLUICEWAY_DETECTION_SERVICE_HOST", "10.0.0.1"),
        ("SLUICEWAY_DETECTION_SERVICE_PORT_GRPC", "50052"),
        ("SLUICEWAY_DETECTION_PORT_50052_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_variables_of_others_and_of_clients(name: str, value: str) -> None:
    assert plan_cluster(None, CPU | {name: value}, free_ports=True)


def test_a_variable_that_the_configuration_names(folder: Path) -> None:
    (folder / "sluiceway.toml").write_text('[security.clients.web]\ntoken_env = "SLUICEWAY_WEB_TOKEN"\n')
    assert plan_cluster(None, CPU | {"SLUICEWAY_WEB_TOKEN": "x"}, free_ports=True)


@pytest.mark.parametrize("broken", ["folder", "link"])
def test_a_configuration_that_is_no_file(broken: str, folder: Path) -> None:
    if broken == "folder":
        (folder / "sluiceway.toml").mkdir()
    else:
        (folder / "sluiceway.toml").symlink_to("nowhere")
    [line] = faults()
    assert line.startswith("sluiceway.toml: cannot be read: ")


async def test_a_port_for_http_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables = {"SLUICEWAY_ORCHESTRATOR__HTTP__PORT": str(port)}
        plan = plan_cluster(None, CPU | variables, free_ports=False)
        with pytest.raises(ClusterError, match=rf"port {port} \(orchestrator\.http\.port\) is in use"):
            await Cluster(plan.servers).start()


# --- a user that the machine does not know --------------------------------------------------------------------------


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """As in a container that runs under any user id; returns the folder for what is temporary."""

    def unknown_user() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown_user)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_cache_without_a_home(unknown: Path) -> None:
    found = weights.cache_folder({})
    assert found == unknown / f"sluiceway-{os.getuid()}"
    assert found.stat().st_mode & 0o777 == 0o700
    assert weights.cache_folder({}) == found
    assert weights.cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/sluiceway")


def test_a_cache_that_others_may_write_to_is_refused(unknown: Path) -> None:
    """What is compiled for a GPU is code."""
    (unknown / f"sluiceway-{os.getuid()}").mkdir()
    (unknown / f"sluiceway-{os.getuid()}").chmod(0o777)
    with pytest.raises(StartupError, match="belongs to somebody else"):
        weights.cache_folder({})
