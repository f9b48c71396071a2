"""A classifier of ultralytics, exported and served, gives the probabilities that it gives there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from recognition_serving import ask, raw, serving

from sluiceway.recognition.v1 import recognition_pb2 as pb

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]  # torch and ultralytics warn by themselves

IMAGES = Path(__file__).parents[1] / "unit" / "detection" / "images"
SIDE, CLASSES = 64, 4


async def test_probabilities_equal_those_of_predict(tmp_path: Path) -> None:
    import torch
    import yaml
    from sluiceway_detection.export import export_checkpoint
    from ultralytics import YOLO
    from ultralytics.utils import ROOT

    torch.manual_seed(5)
    config = yaml.safe_load((ROOT / "cfg" / "models" / "11" / "yolo11-cls.yaml").read_text()) | {"nc": CLASSES}
    (tmp_path / "yolo11n-cls.yaml").write_text(yaml.safe_dump(config))
    YOLO(str(tmp_path / "yolo11n-cls.yaml")).save(tmp_path / "kinds.pt")
    export_checkpoint(tmp_path / "kinds.pt", tmp_path / "kinds.onnx")
    yolo: Any = YOLO(str(tmp_path / "kinds.pt"))

    # One as the network takes it, one whose sides are left out.
    pictures = [cv2.resize(cv2.imread(str(IMAGES / "coffee.jpg")), size) for size in ((SIDE, SIDE), (SIDE + 40, SIDE))]
    expected = [yolo.predict(picture, imgsz=SIDE, verbose=False, device="cpu")[0].probs.data for picture in pictures]
    model = {
        "name": "kinds",
        "kind": "classify",
        "weights": str(tmp_path / "kinds.onnx"),
        "height": SIDE,
        "max_width": SIDE,
        "resize_rule": "cover",
        "format": "rgb",
        "mean": 0,
        "std": 255,
        "precision": "f32",
    }
    async with serving(models=[model]) as (service, stub):
        crops = [raw(at, np.ascontiguousarray(picture[:, :, ::-1])) for at, picture in enumerate(pictures)]
        answers = await ask(stub, *crops, options=pb.RecognizeOptions(top_k=CLASSES))
        assert service.models["kinds"].labels == tuple(yolo.names[number] for number in range(CLASSES))
    for at, due in enumerate(expected):
        labels = answers[at].classification.labels
        assert [label.class_id for label in labels] == torch.argsort(due, descending=True).tolist()
        assert [label.confidence for label in labels] == pytest.approx(sorted(due.tolist(), reverse=True), abs=1e-3)
