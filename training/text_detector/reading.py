"""Word F1 of detection and recognition together, on pages rendered by another program in other fonts than training's.

    python -m training.text_detector.reading render --out rendered          # needs weasyprint and poppler
    python -m training.text_detector.reading score --pages rendered --detector text-nano.onnx --recogniser rec.onnx --characters inference.yml
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import yaml
from PIL import Image

from .inference import Detector

_FONTS = ("TeX Gyre Termes", "TeX Gyre Heros", "TeX Gyre Pagella", "TeX Gyre Adventor", "TeX Gyre Schola", "Gentium", "Noto Mono", "GFS Didot", "Linux Libertine Mono")
_CHINESE = "Droid Sans Fallback"
_TOKEN = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")


def tokens(text: str) -> Counter[str]:
    """Words as scored: runs without spaces, and each Chinese character by itself."""
    return Counter(_TOKEN.findall(text))


def _pieces(folder: Path, languages: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for name in languages:
        for part in (folder / name).read_text(errors="ignore").split("\n%\n"):
            clean = re.sub(r"\x1b\[[0-9;]*m|[<>&]", "", part)
            clean = " ".join(clean.split())
            if 30 < len(clean) < 600:
                found.append(clean)
    return found


def _page(rng: random.Random, latin: list[str], chinese: list[str], photos: list[Path]) -> str:
    """One HTML page: an article, an invoice, a card over a picture, or a window."""
    kind, size = rng.choice(("article", "article", "table", "card", "window")), rng.uniform(8.5, 15)
    source = chinese if rng.random() < 0.3 else latin
    font = f"'{rng.choice(_FONTS)}', '{_CHINESE}'"
    ground, fill = rng.choice((("#fff", "#111"), ("#fbf6e9", "#332"), ("#1e2430", "#e8e8e8"), ("#eef3fa", "#023")))

    def some(count: int) -> list[str]:
        return [rng.choice(source) for _ in range(count)]

    if kind == "article":
        columns = rng.choice((1, 1, 2))
        body = f"<h1>{some(1)[0][:24]}</h1><div style='columns:{columns}'>" + "".join(f"<p>{text}</p>" for text in some(12)) + "</div>"
    elif kind == "table":
        rows = "".join(
            f"<tr><td>{i + 1}</td><td>{text[:28]}</td><td>{rng.randint(1, 40)}</td><td>{rng.uniform(1, 900):.2f}</td></tr>" for i, text in enumerate(some(rng.randint(6, 16)))
        )
        edge = rng.choice(("0", "1px solid #999"))
        body = f"<h2>{some(1)[0][:18]}</h2><style>td{{border:{edge};padding:3pt 6pt}}</style><table>{rows}</table>"
    elif kind == "card":
        picture = rng.choice(photos).resolve().as_uri()
        body = f"<div style=\"background:url('{picture}');background-size:cover;padding:30pt\">" + "".join(
            f"<p style='background:{rng.choice(('#fffffff0', '#000000c0;color:#fff', '#ffe680'))};padding:8pt;width:{rng.randint(45, 90)}%;font-size:{size * rng.uniform(1, 2.2):.1f}pt'>{text[:90]}</p>"
            for text in some(rng.randint(2, 5))
        ) + "</div>"
    else:
        menu = " &nbsp; ".join(text.split()[0][:9] for text in some(6))
        entries = "".join(f"<li>{text[:30]}</li>" for text in some(10))
        body = f"<div style='background:#ccd;color:#000;padding:4pt'>{menu}</div><div style='display:flex'><ul style='width:35%;list-style:none;padding:4pt'>{entries}</ul><div style='width:60%'>{''.join(f'<p>{t}</p>' for t in some(5))}</div></div>"
    paper = rng.choice(("A5", "A6 landscape", "A5 landscape", "150mm 150mm"))
    return f"<style>@page{{size:{paper};margin:8mm;background:{ground}}}body{{font:{size:.1f}pt {font};color:{fill}}}</style>{body}"


def render(out: Path, texts: Path, photos: Path, count: int, seed: int) -> None:
    """Lay out pages with WeasyPrint and rasterise them; writes `NNN.png` and `words.json` (file -> text of the page)."""
    import weasyprint  # only rendering needs it

    out.mkdir(parents=True, exist_ok=True)
    latin = _pieces(texts, ("fortunes", "literature", "riddles"))
    chinese = _pieces(texts, ("tang300", "song100"))
    pictures, words = sorted(photos.glob("*")), {}
    for index in range(count):
        rng = random.Random(seed + index)
        pdf, name = out / "page.pdf", f"{index:03d}.png"
        weasyprint.HTML(string=_page(rng, latin, chinese, pictures)).write_pdf(pdf)
        text = subprocess.run(["pdftotext", "-f", "1", "-l", "1", "-raw", pdf, "-"], capture_output=True, text=True, check=True).stdout
        dpi = rng.choice((96, 120, 150))
        subprocess.run(["pdftoppm", "-png", "-r", str(dpi), "-singlefile", "-f", "1", "-l", "1", pdf, out / name[:-4]], check=True)
        if rng.random() < 0.4:  # a copy that went through a camera or a messenger
            image = cv2.GaussianBlur(cv2.imread(str(out / name)), (0, 0), rng.uniform(0.3, 0.9))
            coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, rng.randint(40, 80)])[1]
            cv2.imwrite(str(out / name), cv2.imdecode(coded, cv2.IMREAD_COLOR))
        words[name] = text
    (out / "page.pdf").unlink()
    (out / "words.json").write_text(json.dumps(words, ensure_ascii=False, indent=0))


class Recogniser:
    """PP-OCRv6 tiny through OpenVINO: crops of height 48, BGR, x / 127.5 - 1, greedy CTC."""

    def __init__(self, path: Path, characters: Path) -> None:
        table = yaml.safe_load(characters.read_text())["PostProcess"]["character_dict"]
        self._characters = ["", *[str(c) for c in table], " "]
        core = ov.Core()
        self._model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})

    def read(self, crop_rgb: np.ndarray) -> str:
        """The text of one upright crop, uint8 [h, w, 3]."""
        width = int(np.clip(np.ceil(crop_rgb.shape[1] * 48 / crop_rgb.shape[0]), 16, 1600))
        blob = cv2.resize(crop_rgb, (width, 48))[..., ::-1].astype(np.float32) / 127.5 - 1
        wide = max(320, -(-width // 64) * 64)  # few widths: each new one costs a compilation
        padded = np.zeros((1, 3, 48, wide), np.float32)
        padded[0, :, :, :width] = blob.transpose(2, 0, 1)
        best = self._model([padded])[0][0].argmax(1)
        kept = [k for i, k in enumerate(best) if k and (i == 0 or k != best[i - 1])]
        return "".join(self._characters[k] for k in kept)


def score(pages: Path, detector: Detector, recogniser: Recogniser, pad: float = 0.06) -> dict[str, float]:
    """Precision, recall and F1 of words over all pages; words are matched as multisets a page."""
    right = said = there = boxes = 0
    for name, text in json.loads((pages / "words.json").read_text()).items():
        image = np.asarray(Image.open(pages / name).convert("RGB"))
        found: Counter[str] = Counter()
        for x0, y0, x1, y1 in detector.detect(image)[:, :4]:
            margin = pad * (y1 - y0)
            left, top = int(max(0, x0 - margin)), int(max(0, y0 - margin))
            crop = image[top : int(np.ceil(y1 + margin)), left : int(np.ceil(x1 + margin))]
            boxes += 1
            if min(crop.shape[:2]) > 1:
                found += tokens(recogniser.read(crop))
        wanted = tokens(text)
        right, said, there = right + (found & wanted).total(), said + found.total(), there + wanted.total()
    precision, recall = right / max(1, said), right / max(1, there)
    return {"boxes": boxes, "words": there, "precision": precision, "recall": recall, "f1": 2 * precision * recall / max(1e-9, precision + recall)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("render")
    drawing.add_argument("--out", type=Path, required=True)
    drawing.add_argument("--texts", type=Path, default=Path("/usr/share/games/fortunes"))
    drawing.add_argument("--photos", type=Path, required=True)
    drawing.add_argument("--count", type=int, default=60)
    drawing.add_argument("--seed", type=int, default=777_000)
    scoring = commands.add_parser("score")
    scoring.add_argument("--pages", type=Path, required=True)
    scoring.add_argument("--detector", type=Path, required=True, action="append")
    scoring.add_argument("--recogniser", type=Path, required=True)
    scoring.add_argument("--characters", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "render":
        render(arguments.out, arguments.texts, arguments.photos, arguments.count, arguments.seed)
        return
    recogniser = Recogniser(arguments.recogniser, arguments.characters)
    for path in arguments.detector:
        print(path.name, {k: round(v, 4) for k, v in score(arguments.pages, Detector(path), recogniser).items()})


if __name__ == "__main__":
    main()
