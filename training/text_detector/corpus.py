"""Gather what training draws on from installed packages: fonts, photographs, and real images with text.

    python -m training.text_detector.corpus --out corpus [--root /] [--skimage DIR]

The folder it writes is all that training reads: `fonts/` (subset to the characters drawn), `photos/` (backgrounds) and
`real/` (screenshots and pages, which the teacher labels). What evaluation uses is kept out by name (`evaluation.toml`).
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import tomllib
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTCollection, TTFont
from PIL import Image, ImageOps

from .wording import CHARACTERS

# Per source: glob below the root, how many to take. Screens and drawn manuals differ most in fonts and sizes.
_REAL_IMAGES = (
    ("usr/share/gimp/2.0/help/**/*.png", 260),
    ("usr/share/doc/kicad/help/**/*.png", 190),
    ("usr/share/doc/debian-handbook/html/**/*.png", 130),
    ("usr/share/qtcreator/doc/**/*.png", 90),
    ("usr/share/help/*/gnome-help/**/*.png", 40),
    ("usr/share/doc/gretl/**/*.png", 19),
    ("usr/share/doc/opencv-doc/opencv4/html/**/*.png", 120),
    ("usr/share/doc/opencv-doc/opencv4/html/**/*.jpg", 60),
)
_PAGES = (
    ("usr/share/debian-reference/debian-reference.zh-cn.pdf", 14),
    ("usr/share/debian-reference/debian-reference.en.pdf", 14),
    ("usr/share/doc/octave/octave.pdf", 16),
    ("usr/share/doc/octave/refcard-a4.pdf", 2),
    ("usr/share/doc/lilypond/html/Documentation/notation.pdf", 10),
    ("usr/share/doc/lilypond/html/Documentation/music-glossary.pdf", 6),
    ("usr/share/doc/lilypond/html/Documentation/essay.pdf", 4),
    ("usr/share/doc/texlive-doc/latex/lshort-chinese/lshort-zh-cn.pdf", 12),
    ("usr/share/doc/texlive-doc/plain/impatient-cn/cnbook.pdf", 10),
    ("usr/share/doc/texlive-doc/latex/ctex/ctex.pdf", 8),
    ("usr/share/doc/texlive-doc/latex/texproposal/texproposal.pdf", 10),
    ("usr/share/doc/texlive-doc/latex/njurepo/*.pdf", 6),
    ("usr/share/doc/texlive-doc/latex/fduthesis/fduthesis-en.pdf", 6),
    ("usr/share/doc/texlive-doc/xelatex/exam-zh/**/*.pdf", 4),
    ("usr/share/doc/texlive-doc/xelatex/nanicolle/*.pdf", 3),
    ("usr/share/doc/texlive-doc/latex/zhlipsum/zhlipsum.pdf", 6),
    ("usr/share/doc/texlive-doc/latex/pgfornament-han/*.pdf", 5),
    ("usr/share/doc/maint-guide-zh-cn/maint-guide.zh-cn.pdf", 6),
)
_PHOTOS = (("usr/share/wallpapers/*/contents/images/*", 60), ("usr/share/doc/opencv-doc/examples/**/*.jpg", 70))
# Drawn from pictures that evaluation names (tutorials show results on them), so left out by word.
_KIN = ("scenetext", "text", "license", "motion", "board", "building", "stuff", "defocus")
_THIN = (
    "Thin",
    "Hairline",
    "ExtraLight",
    "Display",
    "Minus",
    "MathTeX",
)  # unreadable at the sizes drawn, or twins of others


def _excluded() -> set[str]:
    """File names that evaluation uses."""
    listed = tomllib.loads((Path(__file__).parent / "evaluation.toml").read_text())
    return {Path(item["path"]).name for item in listed["image"]}


def _kin(path: Path) -> bool:
    return "opencv-doc" in path.parts and any(word in path.name.lower() for word in _KIN)


def _pick(root: Path, pattern: str, count: int, rng: random.Random) -> list[Path]:
    found = sorted(path for path in root.glob(pattern) if path.is_file() and not path.is_symlink())
    rng.shuffle(found)
    return found[:count] if count < len(found) else found


def write_fonts(root: Path, out: Path, most: int) -> None:
    """Subset fonts to the characters that are drawn and index the scripts that each covers."""
    out.mkdir(parents=True, exist_ok=True)
    rng, index = random.Random(0), {}
    files = [p for p in sorted((root / "usr/share/fonts").rglob("*")) if p.suffix in (".ttf", ".otf", ".ttc")]
    files = [p for p in files if not any(word in p.name for word in _THIN)]
    chinese = [p for p in files if any(word in p.name for word in ("wqy", "ukai", "uming"))]
    others = [p for p in files if p not in chinese]
    rng.shuffle(others)
    alphabet = dict(CHARACTERS)
    for path in chinese + others[:most]:
        font = TTCollection(path).fonts[0] if path.suffix == ".ttc" else TTFont(path)
        covered = set(font.getBestCmap())
        if path in chinese:  # large files: fewer characters keep the corpus small
            alphabet["latin"] = CHARACTERS["latin"][:95]
        scripts = [
            name for name, chars in alphabet.items() if sum(ord(c) in covered for c in chars) > 0.97 * len(chars)
        ]
        if not scripts:
            continue
        options = subset.Options(layout_features=[], hinting=False, notdef_outline=True, glyph_names=False)
        cutter = subset.Subsetter(options)
        cutter.populate(text="".join(alphabet[name] for name in scripts))
        cutter.subset(font)
        name = path.stem.replace(" ", "_") + ".ttf"
        font.save(out / name)
        index[name] = scripts
    (out / "index.json").write_text(json.dumps(index, indent=0, sort_keys=True))


def _save(image: Image.Image, path: Path, long_px: int, quality: int) -> None:
    image = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    image = Image.alpha_composite(white, image).convert("RGB")
    image.thumbnail((long_px, long_px), Image.Resampling.LANCZOS)
    image.save(path, "WEBP", quality=quality, method=4)


def write_images(root: Path, skimage: Path | None, out: Path) -> None:
    """Copy photographs and real images, downscaled, less those that evaluation names."""
    rng, banned = random.Random(1), _excluded()
    for folder in ("photos", "real"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    seen: set[tuple[int, int]] = set()
    for pattern, wanted in _REAL_IMAGES:
        left = wanted
        for path in _pick(root, pattern, 10 * wanted, rng):
            if left == 0:
                break
            key = (path.stat().st_size, 0)  # translations of a manual repeat pictures byte for byte
            if path.name in banned or path.stat().st_size < 9_000 or key in seen or _kin(path):
                continue
            seen.add(key)
            with Image.open(path) as image:
                if min(image.size) < 120:
                    continue
                _save(image, out / "real" / f"{path.parent.name}-{path.stem}.webp".replace(" ", "_"), 1280, 72)
            left -= 1
    for pattern, count in _PAGES:
        documents = _pick(root, pattern, 4, rng)
        for path in documents:
            _write_pages(path, out / "real", max(1, count // len(documents)), rng)
    photos = [p for pattern, count in _PHOTOS for p in _pick(root, pattern, count, rng) if p.suffix in (".jpg", ".png")]
    photos += sorted(skimage.glob("*.png")) + sorted(skimage.glob("*.jpg")) if skimage else []
    for path in photos:
        if path.name not in banned and not _kin(path):
            with Image.open(path) as image:
                if min(image.size) >= 200:
                    _save(image, out / "photos" / f"{path.parent.parent.parent.name}-{path.stem}.webp", 900, 70)


def _write_pages(path: Path, out: Path, count: int, rng: random.Random) -> None:
    """Render pages drawn at random from a PDF at a random resolution."""
    info = subprocess.run(["pdfinfo", path], capture_output=True, text=True, check=True).stdout
    pages = int(next(line.split()[1] for line in info.splitlines() if line.startswith("Pages:")))
    for number in sorted(rng.sample(range(1, pages + 1), min(count, pages))):
        with tempfile.TemporaryDirectory() as folder:
            dpi = rng.choice((72, 90, 110, 130))
            command = [
                "pdftoppm",
                "-png",
                "-r",
                str(dpi),
                "-f",
                str(number),
                "-l",
                str(number),
                str(path),
                f"{folder}/page",
            ]
            subprocess.run(command, check=True)
            for image_path in Path(folder).glob("*.png"):
                with Image.open(image_path) as image:
                    _save(image, out / f"pdf-{path.stem}-{number}.webp", 1400, 70)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the packages are installed")
    parser.add_argument("--skimage", type=Path, help="folder skimage/data, for its photographs")
    parser.add_argument("--fonts", type=int, default=110, help="at most so many fonts besides the Chinese ones")
    arguments = parser.parse_args()
    write_fonts(arguments.root, arguments.out / "fonts", arguments.fonts)
    write_images(arguments.root, arguments.skimage, arguments.out)


if __name__ == "__main__":
    main()
