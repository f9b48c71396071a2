"""A further detection stage is the same program under another name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sluiceway_detection import trial
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front import service
from sluiceway_detection.front.service import DetectionService
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.weights import Weights

MODEL = str(Path(__file__).parent / "models" / "yolo11-pico.onnx")
VALUES = {"model": MODEL, "shapes": ["96x64"], "precision": "f32", "workers": 1}


def stage_of(name: str, **options: Any) -> DetectionService:
    config = DetectionConfig.model_validate(VALUES | options)
    return DetectionService(config, Installation({}, Security(), {}, stage=name))


async def test_thresholds_of_the_registry_are_those_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Weights("x", "1", "ab" * 32, Path(MODEL), {}, {"thresholds": {"confidence": 0.35, "iou": 0.3}})
    monkeypatch.setattr(service.weights, "resolve", lambda *_, **__: found)
    for backend in ("openvino", "onnx"):
        stage = stage_of("detection", backend=backend)
        try:
            await stage.start()
            assert stage.facts is not None
            assert (stage.facts.confidence, stage.facts.iou) == (0.35, 0.3)
        finally:
            await stage.close()


@pytest.mark.parametrize(("name", "shown"), [("vehicles", "vehicles"), ("detection", "detection"), ("", "detection")])
async def test_metrics_log_and_pool_are_called_like_the_stage(
    monkeypatch: pytest.MonkeyPatch, name: str, shown: str
) -> None:
    asked: dict[str, Any] = {}
    made = service.Pool

    def pool(spec: Any, limits: Any, **options: Any) -> Any:
        asked.update(log=spec.log.service, **options)
        return made(spec, limits, **options)

    monkeypatch.setattr(service, "Pool", pool)
    stage, registry = stage_of(name), CollectorRegistry()
    stage.collectors(registry)
    # An operations port is there before the pool is.
    assert generate_latest(registry) == b""
    assert stage.group == ""
    try:
        await stage.start()
        assert {key: asked[key] for key in ("log", "name")} == {"log": shown, "name": shown}
        assert f'sluiceway_pool_queued_items{{stage="{shown}"}} 0.0' in generate_latest(registry).decode()
        assert stage.group
    finally:
        await stage.close()


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("vehicles", {"backend": "onnx", "precision": "bf16"}, "stages.vehicles.precision: backend onnx"),
        ("detection", {"backend": "onnx", "precision": "bf16"}, "detection.precision: backend onnx"),
    ],
)
async def test_a_fault_names_the_key_of_its_stage(name: str, options: dict[str, Any], key: str) -> None:
    stage = stage_of(name, **options)
    with pytest.raises(StartupError) as caught:
        await stage.start()
    await stage.close()
    assert key in str(caught.value)
    assert ("detection.precision" in str(caught.value)) == (name == "detection")


async def test_a_command_in_a_fault_stays_as_it_is(tmp_path: Path) -> None:
    checkpoint = tmp_path / "own.pt"
    checkpoint.write_bytes(b"never read")
    stage = stage_of("vehicles", model=str(checkpoint), allow_pickle=["own.pt"], backend="onnx")
    with pytest.raises(StartupError, match=r"stages\.vehicles\.backend.* -m sluiceway_detection\.export own"):
        await stage.start()


def test_a_further_stage_is_tried_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[tuple[str, str]] = []

    async def try_one(config: DetectionConfig, installation: Installation) -> dict[str, Any]:
        tried.append((config.model, installation.stage))
        return {}

    monkeypatch.setattr(trial, "try_one", try_one)
    file = tmp_path / "sluiceway.toml"
    file.write_text(
        '[detection]\nmodel = "text-nano"\n[stages.vehicles]\nkind = "detection"\nmodel = "coco-v8n"\n'
        '[stages.plates]\nkind = "recognition"\n'
    )
    assert trial.main(["--config", str(file), "--stage", "vehicles"]) == 0
    assert trial.main(["--config", str(file)]) == 0
    assert tried == [("coco-v8n", "vehicles"), ("text-nano", "detection")]
    assert trial.main(["--config", str(file), "--stage", "plates"]) == 1
    assert "stages.plates: is no detection stage; there are detection, vehicles" in capsys.readouterr().err
