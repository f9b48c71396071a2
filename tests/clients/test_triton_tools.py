"""What users of Triton bring along, against pipelines and both stages: an example of its own, and perf_analyzer."""

from __future__ import annotations

import base64
import csv
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from ports import free_ports

from sluiceway import Client
from tests.clients.test_triton import PYTHON
from tests.e2e.conftest import COMMAND, Starter

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

EXAMPLES = PYTHON.parents[1] / "examples" / "src" / "python" / "examples"
PERF_ANALYZER = PYTHON.parents[1] / "perf_analyzer" / "perf_analyzer"
REQUESTS = 12
WAYS = ("grpc", "http")


@dataclass(frozen=True)
class Model:
    """A model, where it is served, and files for it."""

    name: str
    addresses: dict[str, str]
    input: str
    folder: Path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Model]]:
    """A pipeline and the model of each stage, by both protocols."""
    images, crops = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("crops")
    pull = [*COMMAND, "samples", "pull", "bus.jpg", "page.png", "--to", str(images)]
    subprocess.run(pull, check=True, capture_output=True)
    keys = [
        f"SLUICEWAY_{stage}__{key}"
        for stage in ("DETECTION", "RECOGNITION")
        for key in ("PORT", "HTTP__PORT", "HTTP__ENABLED")
    ]
    ports = free_ports(4)
    values = [str(ports[0]), str(ports[1]), "true", str(ports[2]), str(ports[3]), "true"]
    starter = Starter()
    try:
        workers = {f"SLUICEWAY_{stage}__WORKERS": "1" for stage in ("DETECTION", "RECOGNITION")}
        up = starter(**dict(zip(keys, values, strict=True)), **workers)
        with Client(up.address) as client:
            page = client.process(images / "page.png")
        with Image.open(images / "page.png") as picture:
            for region in page.regions[:2]:
                picture.crop(tuple(map(round, region.box))).save(crops / f"{region.id}.png")
        detector, reader = (model.name for model in page.models)
        at = {number: f"127.0.0.1:{port}" for number, port in enumerate(ports)}
        yield {
            "pipeline": Model("read", {"grpc": up.address, "http": up.http}, "image", images),
            "detection": Model(detector, {"grpc": at[0], "http": at[1]}, "image", images),
            "recognition": Model(reader, {"grpc": at[2], "http": at[3]}, "crop", crops),
        }
    finally:
        starter.close()


def ranked(printed: str) -> dict[str, dict[str, list[str]]]:
    """What the example printed: for each file, by output, the best elements as `value (index) = label`."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in printed.splitlines():
        if line.startswith('"'):
            outputs = found[Path(line.removesuffix(":").strip('"')).name] = {}
        elif line.startswith("  ["):
            best = outputs[line.strip(" []:")] = []
        elif line.startswith("    "):
            best.append(line.strip())
    return found


@pytest.mark.parametrize("what", ["pipeline", "detection", "recognition"])
def test_tritons_own_example_for_image_files(models: dict[str, Model], what: str) -> None:
    """It knows no model beforehand: names, batch size and outputs are those that the server tells."""
    model, told = models[what], {}
    for way in WAYS:
        command = [PYTHON, EXAMPLES / "ensemble_image_client.py", "-i", way, "-u", model.addresses[way]]
        done = subprocess.run(
            [*command, "-m", model.name, "-c", "2", model.folder],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith("PASS\n"), done.stdout
        told[way] = ranked(done.stdout)
    assert told["grpc"] == told["http"]
    assert list(told["http"]) == sorted(path.name for path in model.folder.iterdir())
    texts = {"pipeline": "texts", "detection": "class_names", "recognition": "text"}[what]
    for outputs in told["http"].values():
        assert all(best for best in outputs.values())
        assert outputs[texts][0].partition(" = ")[2]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ["pipeline", "detection", "recognition"])
def test_perf_analyzer(models: dict[str, Model], tmp_path: Path, what: str, way: str) -> None:
    model = models[what]
    contents = [path.read_bytes() for path in sorted(model.folder.iterdir())]
    # Elements of BYTES are written behind their length.
    packed = [base64.b64encode(len(content).to_bytes(4, "little") + content).decode() for content in contents]
    (tmp_path / "input.json").write_text(json.dumps({"data": [{model.input: {"b64": element}} for element in packed]}))
    command = [PERF_ANALYZER, "-m", model.name, "-u", model.addresses[way], "-i", way, "--input-data", "input.json"]
    options = ["--request-count", str(REQUESTS), "--concurrency-range", "2", "-f", "report.csv"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Failed" not in done.stdout + done.stderr
    # What the server's statistics say is in the report beside what the client has measured.
    (row,) = csv.DictReader((tmp_path / "report.csv").read_text().splitlines())
    assert float(row["Inferences/Second"]) > 0
    assert f"Request count: {REQUESTS}" in done.stdout
    assert float(row["Server Compute Infer"]) > 0
