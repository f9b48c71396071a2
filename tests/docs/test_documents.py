"""Every fenced block of README, examples and docs, in a fresh clone: run, and compared with what it promises."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, helm

from tests.docs.blocks import DECISIONS, ROOT, Block, Decision, What, blocks, decision_of
from tests.docs.conftest import Clone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BLOCKS = [(block, decision) for block in blocks() if (decision := decision_of(block)) is not None]


def those(what: What) -> Any:
    return pytest.mark.parametrize(
        ("block", "decision"),
        [pytest.param(block, decision, id=str(block)) for block, decision in BLOCKS if decision.what is what],
    )


def test_every_block_has_been_decided_on() -> None:
    assert [str(block) for block in blocks() if decision_of(block) is None] == []
    used = {id(decision) for _, decision in BLOCKS}
    assert [decision for decision in DECISIONS if id(decision) not in used] == []


def test_what_is_run_elsewhere_is_run_by_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for block, decision in BLOCKS:
        if decision.what in (What.ELSEWHERE, What.FIGURES):
            assert decision.target in targets, f"{block}: {decision}"
        # Files that a command names are there, whoever runs it.
        for name in re.findall(r"(?:--file|--config|-f) (\S+)", block.text):
            assert (ROOT / name).exists() or name in ("stages.yml", "sluiceway.toml"), f"{block}: {name}"


@those(What.SHELL)
def test_commands_do_what_they_promise(clone: Clone, block: Block, decision: Decision) -> None:
    text = _replaced(block.text, decision)
    lines = [line for line in text.splitlines() if not line.startswith(decision.without or ("\0",))]
    done = clone.run("\n".join(lines), **decision.variables)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout + done.stderr
    for name, promise in decision.promises.items():
        if not name:
            assert promise in said
        elif promise:
            assert promise in (clone.folder / name).read_text("utf-8")
        else:
            assert (clone.folder / name).stat().st_size > 0


@those(What.PYTHON)
def test_snippets_do_what_they_promise(clone: Clone, block: Block, decision: Decision) -> None:
    script = clone.folder / "snippet.py"
    script.write_text(clone.here(block.text), "utf-8")
    done = clone.run("python snippet.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert decision.promises[""] in done.stdout


@those(What.TYPED)
def test_what_operators_type_can_be_read_by_a_shell(block: Block, decision: Decision) -> None:
    del decision
    done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@those(What.IMPORTS)
def test_snippets_about_servers_of_a_readers_own_can_be_imported(
    clone: Clone, block: Block, decision: Decision
) -> None:
    del decision
    tree = ast.parse(block.text)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    done = clone.run("python - <<'END'\n" + "\n".join(map(ast.unparse, imports)) + "\nEND")
    assert done.returncode == 0, done.stderr


@those(What.CONFIGURATION)
def test_configurations_are_valid(clone: Clone, block: Block, decision: Decision) -> None:
    weights = next((clone.home / ".cache" / "sluiceway").rglob("*.onnx"))
    text = _replaced(block.text, decision).replace("{weights}", str(weights))
    (clone.folder / "shown.toml").write_text(text, "utf-8")
    # It asks who answers at an address, too: at this one there is the cluster.
    command = f"sluiceway doctor --no-trial --config shown.toml --address localhost:{clone.ports['50051']}"
    done = clone.run(command, **decision.variables)
    assert done.returncode == 0, done.stdout + done.stderr


@those(What.VALUES)
def test_the_chart_takes_the_values(tmp_path: Path, block: Block, decision: Decision) -> None:
    del decision
    values, config = tmp_path / "values.yaml", tmp_path / "sluiceway.toml"
    values.write_text(block.text, "utf-8")
    stages = (yaml.safe_load(block.text) or {}).get("stages", {})
    config.write_text(
        "".join(f'[stages.{name}]\nkind = "{stage["kind"]}"\n' for name, stage in stages.items()), "utf-8"
    )
    options = ["--set", "security.allowUnauthenticated=true"]
    done = helm("template", "eye", str(CHART), "--values", str(values), "--set-file", f"config={config}", *options)
    assert done.returncode == 0, done.stderr


@those(What.OVERLAY)
def test_overlays_change_services_that_there_are(block: Block, decision: Decision) -> None:
    del decision
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    overlay = yaml.safe_load(block.text)
    assert set(overlay) == {"services"}
    assert set(overlay["services"]) <= set(services)


def _shown(text: str) -> list[Any]:
    """What a page shows as JSON, of which some is left out."""
    text = text.partition("\n\n")[2] if text.startswith("HTTP/") else text
    text = text.replace("{…}", "{}").replace(",…", "").replace("…", "")
    return [json.loads(part) for part in re.split(r"\n(?=\{)", text.strip())]


@those(What.SHOWN)
def test_answers_have_the_form_that_is_shown(clone: Clone, block: Block, decision: Decision) -> None:
    del decision
    for shown in _shown(block.text):
        if "urn:sluiceway" in block.text:
            done = clone.run("curl -s -d url= -H 'Accept: text/html' localhost:8080/v1/process?confidence=2")
            real = json.loads(done.stdout)
            assert set(real) <= set(shown), "only a delay may be shown beside"
        elif "job_id" in shown:
            real = _event_like(clone, shown)
            assert set(real) == set(shown)
            (kind,) = set(shown) - {"job_id", "source_id"}
            assert set(real[kind]) == set(shown[kind])
        elif shown["status"] == "failed":
            command = "curl -s -F file=@notes.txt -H 'Accept: application/json' localhost:8080/v1/process"
            real = json.loads(clone.run(command).stdout)
            assert (set(real), set(real["error"])) == (set(shown), set(shown["error"]))
            assert real["error"]["reason"] == shown["error"]["reason"]
        else:
            done = clone.run(f"sluiceway run {shown['source']} --json --address localhost:50051")
            real = json.loads(done.stdout)
            _same_result(real, shown)


def _event_like(clone: Clone, shown: dict[str, Any]) -> dict[str, Any]:
    (kind,) = set(shown) - {"job_id", "source_id"}
    name = "notes.txt" if kind == "failed" else "photo.jpg"
    done = clone.run(f"curl -s --data-binary @{name} localhost:8080/v1/process")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return next(event for event in events if kind in event)


def _same_result(real: dict[str, Any], shown: dict[str, Any]) -> None:
    assert set(real) == set(shown)
    assert (real["width"], real["height"]) == (shown["width"], shown["height"])
    assert set(real["regions"][0]) == set(shown["regions"][0])
    assert {model["name"] for model in shown["models"]} <= {model["name"] for model in real["models"]}
    assert set(shown["timings_ms"]) <= set(real["timings_ms"])
    first = shown["regions"][0]
    if first["text"]:
        assert (real["regions"][0]["text"], real["regions"][0]["class"]) == (first["text"], first["class"])
        assert real["regions"][0]["box"] == pytest.approx(first["box"], abs=2)


def _replaced(text: str, decision: Decision) -> str:
    for told, here in decision.replace.items():
        assert told in text
        text = text.replace(told, here)
    return textwrap.dedent(text)
