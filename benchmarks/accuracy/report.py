"""docs/accuracy.md and its pictures, out of figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.accuracy import bars
from benchmarks.accuracy.contestants import CONTESTANTS
from benchmarks.accuracy.matching import tally
from benchmarks.accuracy.picture import Stored
from benchmarks.accuracy.readings import Reading, kept
from benchmarks.accuracy.words import words_of

__all__ = ["draw_failures", "page", "table", "write"]

PAGE, PICTURES = Path("docs/accuracy.md"), Path("docs/accuracy")
TEMPLATE = Path(__file__).parent / "page.md"
# Of pictures on the page: how many, their longer side in pixels, and the F below which one is a failure.
MOST, LONGEST_PX, FAILURE_F, QUALITY = 10, 560, 0.95, 60
SHORT = {
    "sluiceway": "Sluiceway",
    "turboocr": "TurboOCR",
    "sluiceway-small": "Sluiceway small",
    "rapidocr": "RapidOCR",
    "sluiceway-text-nano": "text-nano",
    "earlier": "d52d825",
}

Results = Mapping[str, Any]


def table(results: Results) -> list[str]:
    """F by class and reader, for a terminal."""
    names = _readers(results)
    lines = [f"{'class':<20} {'words':>6}  " + "  ".join(f"{SHORT[name]:>15}" for name in names)]
    for kind, found in results["classes"].items():
        cells = [f"{found['readers'][name]['f']['value']:.3f}" if name in found["readers"] else "-" for name in names]
        lines.append(f"{kind:<20} {found['words']:>6}  " + "  ".join(f"{cell:>15}" for cell in cells))
    return lines


def write(results: Results) -> None:
    """Write the page."""
    PAGE.write_text(page(results), encoding="utf-8")


def page(results: Results) -> str:
    """The page: page.md with its marks replaced by figures."""
    text = TEMPLATE.read_text(encoding="utf-8")
    parts = {
        "words": _rows(results, _words),
        "characters": _rows(results, lambda score: f"{score['wrong']:.4f}"),
        "cpu": _rows(results, lambda score: f"{score['cpu_s'] * 1000:,.0f}" if score["cpu_s"] else "-"),
        "comparison": _comparison(results),
        "print": _printed(results),
        "missed": _missed(results),
        "failures": _failures(results),
        "readers": titles(),
        "measured": " ".join([f"Version {results['version']}, {results['machine']}.", *results["remarks"]]),
    }
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    return text


def titles() -> str:
    """Who the readers are, for the page."""
    return "\n".join(f"- **{short}**: {CONTESTANTS[name].title}." for name, short in SHORT.items())


def _readers(results: Results) -> list[str]:
    return [name for name in SHORT if any(name in found["readers"] for found in results["classes"].values())]


def _words(score: Mapping[str, Any]) -> str:
    found = score["f"]
    return f"{found['value']:.3f} ({found['low']:.3f}-{found['high']:.3f})"


def _rows(results: Results, cell: Any) -> str:
    names = _readers(results)
    lines = ["| class | pictures | words | " + " | ".join(SHORT[name] for name in names) + " |"]
    lines.append("|---|---|---|" + "---|" * len(names))
    for kind, found in results["classes"].items():
        cells = [cell(found["readers"][name]) if name in found["readers"] else "-" for name in names]
        lines.append(f"| {kind} | {found['pictures']} | {found['words']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _comparison(results: Results) -> str:
    lines = ["| ours - theirs | classes ahead | behind | equal | below beyond doubt |", "|---|---|---|---|---|"]
    for ours, theirs in bars.PAIRS:
        key = f"{ours}-{theirs}"
        found = {
            kind: item["differences"][key] for kind, item in results["classes"].items() if key in item["differences"]
        }
        if not found:
            continue
        values = [item["value"] for item in found.values()]
        below = ", ".join(kind for kind, item in found.items() if item["high"] < 0) or "none"
        counts = (
            sum(value > 0 for value in values),
            sum(value < 0 for value in values),
            sum(value == 0 for value in values),
        )
        lines.append(f"| {SHORT[ours]} - {SHORT[theirs]} | " + " | ".join(map(str, counts)) + f" | {below} |")
    return "\n".join(lines)


def _printed(results: Results) -> str:
    lines = ["| bar | measured | must be | |", "|---|---|---|---|"]
    for bar in results["bars"]:
        if bar["name"].split(".")[0] in {"f", "neighbours", "boxes_median_iou", "boxes_share_above_60"}:
            verdict = "passed" if bar["passed"] else "**missed**"
            lines.append(f"| `{bar['name']}` | {bar['value']:.4f} | {bar['compare']} {bar['limit']:g} | {verdict} |")
    return "\n".join(lines)


def _missed(results: Results) -> str:
    if not results["faults"]:
        return "All bars are met."
    faults = [f"- `{fault}`" for fault in results["faults"]]
    return "\n".join(["These bars are not met; `make accuracy` exits 1 for them.", "", *faults])


def _failures(results: Results) -> str:
    lines = ["| | |", "|---|---|"]
    for item in results.get("failures", ()):
        missed, extra = (_words_in_a_row(item[part]) for part in ("missed", "extra"))
        lines.append(
            f"| ![{item['class']}](accuracy/{item['file']}) | {item['class']}, F {item['f']:.2f}. Not read: {missed}. "
            f"Read instead: {extra}. |"
        )
    return "\n".join(lines)


def _words_in_a_row(words: Sequence[str]) -> str:
    # A bar would begin a further column of the table.
    return ", ".join(f"`{word}`" for word in words).replace("|", "\\|") or "nothing"


def draw_failures(results: Results, pictures: Mapping[str, Sequence[Stored]], work: Path) -> list[dict[str, Any]]:
    """Put small copies of the pictures that were read worst, one of each class, beside the page; what was wrong."""
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("*.jpg"):
        old.unlink()
    made = []
    for f, kind, number in list(_worst(results))[:MOST]:
        stored = pictures[kind][number]
        readings = kept(bars.OURS, kind, pictures[kind], work)
        assert readings is not None
        missed, extra = _errors(stored, readings[number])
        image = Image.open(stored.path).convert("RGB")
        # A whole page would be a grey blot: its upper left quarter shows what kind of print it is.
        if max(image.size) > 3 * LONGEST_PX:
            image = image.crop((0, 0, image.width // 2, image.height // 4))
        image.thumbnail((LONGEST_PX, LONGEST_PX))
        file = f"{kind}.jpg"
        image.save(PICTURES / file, quality=QUALITY, optimize=True)
        made.append({"class": kind, "file": file, "f": f, "missed": missed, "extra": extra})
    return made


def _worst(results: Results) -> Iterator[tuple[float, str, int]]:
    found = []
    for kind, item in results["classes"].items():
        if (ours := item["readers"].get(bars.OURS)) and item["group"] != "real":
            f, number = min((f, number) for number, f in enumerate(ours["by_picture"]))
            found.append((f, kind, number))
    yield from (item for item in sorted(found) if item[0] < FAILURE_F)


def _errors(stored: Stored, reading: Reading) -> tuple[list[str], list[str]]:
    """Up to six words that were missed, and six that are not there."""
    written, read = ([word for line in lines for word in words_of(line)] for lines in (stored.lines, reading.lines))
    counts = tally(written, read)
    missed = [word for word, (there, found) in counts.items() if found < there]
    extra = [word for word, (there, found) in counts.items() if found > there]
    return missed[:6], extra[:6]
