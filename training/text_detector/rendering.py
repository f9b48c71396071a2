"""Pages with known words, laid out by another program and in other fonts than training's, over other photographs.

    python -m training.text_detector.rendering --root ROOT --out rendered          # needs weasyprint and poppler

ROOT is where the packages named under "Rendered pages" in packages.txt are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
from pathlib import Path

import cv2

# In no page that training read and in no picture that it drew.
_FONTS = ("Charis SIL", "Cabin", "Cardo", "Oxygen-Sans", "Oxygen Mono", "mononoki", "Noto Mono")
_CHINESE = "HanaMinA"
_FONT_FILES = re.compile("Charis|Cabin|Cardo|Oxygen|mononoki|NotoMono|HanaMin")
_PLATES = ("#fffffff0;color:#111", "#000000c0;color:#fff", "#ffe680;color:#331")
_PAPER_AND_INK = (("#fff", "#111"), ("#fbf6e9", "#332"), ("#1e2430", "#e8e8e8"), ("#eef3fa", "#023"))


def _pieces(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Paragraphs of a fortune file that are neither tiny nor long."""
    found: list[str] = []
    for name in names:
        for part in (folder / name).read_text(errors="ignore").split("\n%\n"):
            clean = " ".join(re.sub(r"\x1b\[[0-9;]*m|[<>&]", "", part).split())
            if 30 < len(clean) < 600:
                found.append(clean)
    return found


def _table(rng: random.Random, texts: list[str], title: str) -> str:
    edge = rng.choice(("0", "1px solid #999"))
    rows = "".join(
        f"<tr><td>{i + 1}</td><td>{text[:28]}</td><td>{rng.randint(1, 40)}</td><td>{rng.uniform(1, 900):.2f}</td></tr>"
        for i, text in enumerate(texts)
    )
    return f"<h2>{title[:18]}</h2><style>td{{border:{edge};padding:3pt 6pt}}</style><table>{rows}</table>"


def _card(rng: random.Random, texts: list[str], photo: Path, size_pt: float) -> str:
    plates = "".join(
        f"<p style='background:{rng.choice(_PLATES)};padding:8pt;width:{rng.randint(45, 90)}%;"
        f"font-size:{size_pt * rng.uniform(1, 2.2):.1f}pt'>{text[:90]}</p>"
        for text in texts
    )
    look = f"background:url('{photo.resolve().as_uri()}');background-size:cover;padding:30pt"
    return f'<div style="{look}">{plates}</div>'


def _window(menu: list[str], entries: list[str], texts: list[str]) -> str:
    bar = " &nbsp; ".join(text.split()[0][:9] for text in menu)
    tree = "".join(f"<li>{text[:30]}</li>" for text in entries)
    pane = "".join(f"<p>{text}</p>" for text in texts)
    return (
        f"<div style='background:#ccd;color:#000;padding:4pt'>{bar}</div>"
        f"<ul style='float:left;width:35%;list-style:none;padding:4pt'>{tree}</ul>"
        f"<div style='margin-left:40%'>{pane}</div>"
    )


def _page(rng: random.Random, latin: list[str], chinese: list[str], photos: list[Path]) -> str:
    """One HTML page: an article, an invoice, a card over a picture, or a window."""
    kind, size_pt = rng.choice(("article", "article", "table", "card", "window")), rng.uniform(8.5, 15)
    source = chinese if rng.random() < 0.3 else latin
    font = f"'{rng.choice(_FONTS)}', '{_CHINESE}'"
    paper, ink = rng.choice(_PAPER_AND_INK)

    def some(count: int) -> list[str]:
        return [rng.choice(source) for _ in range(count)]

    if kind == "article":
        columns, paragraphs = rng.choice((1, 1, 2)), "".join(f"<p>{text}</p>" for text in some(12))
        body = f"<h1>{some(1)[0][:24]}</h1><div style='columns:{columns}'>{paragraphs}</div>"
    elif kind == "table":
        body = _table(rng, some(rng.randint(6, 16)), some(1)[0])
    elif kind == "card":
        body = _card(rng, some(rng.randint(2, 5)), rng.choice(photos), size_pt)
    else:
        body = _window(some(6), some(10), some(5))
    sheet = rng.choice(("A5", "A6 landscape", "A5 landscape", "150mm 150mm"))
    style = f"@page{{size:{sheet};margin:8mm;background:{paper}}}body{{font:{size_pt:.1f}pt {font};color:{ink}}}"
    return f"<style>{style}</style>{body}"


def _only_these_fonts(pdf: Path) -> None:
    """Refuse a page with another font: fontconfig replaces a name that it does not know."""
    lines = subprocess.run(["pdffonts", pdf], capture_output=True, text=True, check=True).stdout.splitlines()[2:]
    others = [line.split()[0] for line in lines if not _FONT_FILES.search(line.replace("-", "").split()[0])]
    if others:
        raise SystemExit(f"{pdf}: fonts outside the test set: {', '.join(others)}")


def render(root: Path, out: Path, count: int, seed: int) -> None:
    """Lay out pages with WeasyPrint and rasterise them; writes `NNN.png` and `words.json` (file -> its text)."""
    out.mkdir(parents=True, exist_ok=True)
    fonts, share = out / "fonts.conf", root.resolve() / "usr/share"
    fonts.write_text(f"<fontconfig><dir>{share}/fonts</dir><cachedir>{out.resolve()}/cache</cachedir></fontconfig>")
    os.environ["FONTCONFIG_FILE"] = str(fonts.resolve())  # read when the library loads
    import weasyprint  # noqa: PLC0415  only rendering needs it

    latin = _pieces(share / "games/fortunes", ("fortunes", "literature", "riddles"))
    chinese = _pieces(share / "games/fortunes", ("tang300", "song100"))
    photos, words = sorted((share / "backgrounds/mate/nature").glob("*.jpg")), {}
    for index in range(count):
        rng = random.Random(seed + index)
        pdf, name = out / "page.pdf", f"{index:03d}.png"
        weasyprint.HTML(string=_page(rng, latin, chinese, photos)).write_pdf(pdf)
        _only_these_fonts(pdf)
        command = ["pdftotext", "-f", "1", "-l", "1", "-raw", pdf, "-"]
        words[name] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        dpi = str(rng.choice((96, 120, 150)))
        subprocess.run(
            ["pdftoppm", "-png", "-r", dpi, "-singlefile", "-f", "1", "-l", "1", pdf, out / name[:-4]], check=True
        )
        if rng.random() < 0.4:  # a copy that went through a camera or a messenger
            image = cv2.GaussianBlur(cv2.imread(str(out / name)), (0, 0), rng.uniform(0.3, 0.9))
            coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, rng.randint(40, 80)])[1]
            cv2.imwrite(str(out / name), cv2.imdecode(coded, cv2.IMREAD_COLOR))
    (out / "page.pdf").unlink()
    (out / "words.json").write_text(json.dumps(words, ensure_ascii=False, indent=0))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=881_000)
    arguments = parser.parse_args()
    render(arguments.root, arguments.out, arguments.count, arguments.seed)


if __name__ == "__main__":
    main()
