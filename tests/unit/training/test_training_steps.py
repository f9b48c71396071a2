"""What of the detector's training needs neither torch nor a corpus."""

import argparse
import tomllib
from pathlib import Path

import pytest

from training.text_detector.__main__ import checked, steps

_FOLDER = Path(__file__).parents[3] / "training/text_detector"


def test_the_steps_hand_their_results_on(tmp_path: Path) -> None:
    arguments = argparse.Namespace(
        work=tmp_path, out=tmp_path / "n.onnx", root=Path("/"), skimage=None, minutes=1.0, seed=3
    )
    (_, gather), (_, train), (written, export) = steps(arguments, tmp_path / "teacher.pt")
    assert (gather[0], train[0], export[0]) == ("corpus", "train", "export")
    assert gather[gather.index("--out") + 1] == train[train.index("--corpus") + 1]
    assert Path(export[export.index("--student") + 1]).parent == Path(train[train.index("--out") + 1])
    assert written == Path(export[export.index("--out") + 1])


def test_a_checkpoint_with_other_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "teacher.pt").write_bytes(b"not the one")
    with pytest.raises(SystemExit, match="SHA-256"):
        checked(tmp_path / "teacher.pt", "0" * 64)


def test_evaluation_and_training_share_no_package() -> None:
    """The packages kept for evaluation must not be among those that the corpus reads."""
    listed = tomllib.loads((_FOLDER / "evaluation.toml").read_text())["image"]
    corpus = (_FOLDER / "corpus.py").read_text()
    own = {item["path"].split("/")[3] for item in listed if item["path"].startswith("usr/share/doc/")}
    assert not [name for name in own - {"opencv-doc"} if f"doc/{name}/" in corpus]
    # opencv-doc serves both, so corpus.py leaves the named files out, and their kin by word.
    assert "_excluded()" in corpus
