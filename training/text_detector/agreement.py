"""How well two detectors agree on the real images of `evaluation.toml`.

python -m training.text_detector.agreement --nano NANO.onnx --small SMALL.onnx --root / --wheels DIR [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import tomllib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .inference import Detector

_PAGE_DPI = 120


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair: float32 [N, 4+], [M, 4+] -> [N, M]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    inner = np.clip(high - low, 0, None).prod(2)
    area_a, area_b = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b))
    return inner / np.maximum(area_a[:, None] + area_b[None] - inner, 1e-9)


def matched(a: np.ndarray, b: np.ndarray, least: float = 0.5) -> list[tuple[int, int]]:
    """One-to-one pairs with IoU of `least` or more, best pairs first."""
    table, pairs = overlaps(a, b), []
    while table.size and table.max() >= least:
        i, j = np.unravel_index(int(table.argmax()), table.shape)
        pairs.append((int(i), int(j)))
        table[i], table[:, j] = -1, -1
    return pairs


def evaluation_images(root: Path, wheels: Path) -> list[tuple[str, str, np.ndarray]]:
    """The named images: kind, name, uint8 [H, W, 3] RGB."""
    listed = tomllib.loads((Path(__file__).parent / "evaluation.toml").read_text())["image"]
    images = []
    for item in listed:
        path = next(folder / item["path"] for folder in (root, wheels) if (folder / item["path"]).exists())
        name = path.name
        if "page" in item:
            name = f"{path.name} p. {item['page']}"
            with tempfile.TemporaryDirectory() as folder:
                number = str(item["page"])
                subprocess.run(
                    ["pdftoppm", "-png", "-r", str(_PAGE_DPI), "-f", number, "-l", number, path, f"{folder}/p"],
                    check=True,
                )
                image = Image.open(next(Path(folder).glob("*.png"))).convert("RGB")
        else:
            opened = Image.open(path).convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", opened.size, (255, 255, 255, 255)), opened).convert("RGB")
        images.append((item["kind"], name, np.asarray(image)))
    return images


def picture(image_rgb: np.ndarray, small: np.ndarray, nano: np.ndarray, long_px: int = 900) -> Image.Image:
    """Both answers on one picture: agreed in green, text-small alone in red, text-nano alone in blue."""
    out = image_rgb.copy()
    pairs = matched(small, nano)
    for index, boxes, alone in ((0, small, (230, 0, 0)), (1, nano, (0, 60, 255))):
        both = {pair[index] for pair in pairs}
        for i, (x0, y0, x1, y1) in enumerate(boxes[:, :4].round().astype(int)):
            colour = (0, 170, 0) if i in both else alone
            cv2.rectangle(out, (int(x0), int(y0)), (int(x1), int(y1)), colour, max(1, round(max(out.shape) / 700)))
    shown = Image.fromarray(out)
    shown.thumbnail((long_px, long_px))
    return shown


def main() -> None:
    """Print a line an image and the totals; with --out also pictures and `agreement.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nano", type=Path, required=True)
    parser.add_argument("--small", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--wheels", type=Path, required=True, help="folder with skimage/data and ultralytics/assets")
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    nano = Detector(arguments.nano, arguments.precision)
    small = Detector(arguments.small, arguments.precision)
    rows, total = [], np.zeros(3, int)
    for kind, name, image in evaluation_images(arguments.root, arguments.wheels):
        theirs, ours = small.detect(image), nano.detect(image)
        both = len(matched(theirs, ours))
        recall, precision = both / max(1, len(theirs)), both / max(1, len(ours))
        rows.append(
            {
                "kind": kind,
                "name": name,
                "small": len(theirs),
                "nano": len(ours),
                "recall": recall,
                "precision": precision,
            }
        )
        total += (both, len(theirs), len(ours))
        print(f"{kind:11s} {name:36s} small {len(theirs):4d} nano {len(ours):4d}  R {recall:.3f}  P {precision:.3f}")
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            picture(image, theirs, ours).save(arguments.out / f"{name.replace(' ', '_')}.webp", quality=70)
    good = sum(row["small"] > 0 and row["recall"] >= 0.9 and row["precision"] >= 0.9 for row in rows)
    print(
        f"all boxes: recall {total[0] / total[1]:.4f} precision {total[0] / total[2]:.4f}; "
        f"both >= 0.90 on {good} of {len(rows)} images"
    )
    if arguments.out:
        (arguments.out / "agreement.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
