"""A PDF of a hundred pages through a cluster on this machine: `python benchmarks/documents.py [--pages 100] [--peer]`.

What is measured: how soon the first regions of any page are there, pages a second, memory while pages come, and how
often each page came. With `--peer` some of the pages go through pypdfium2 and RapidOCR in one process with its own
defaults, right before and right after, in an environment of its own. Figures of one run say something about each other.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pikepdf
import psutil
from pikepdf import Dictionary, Name
from sluiceway_cluster import Cluster, plan_cluster

from sluiceway import AsyncClient
from sluiceway.client import events

LINES, WORDS_A_LINE = 24, 5
TEXT = "harbour water noon lock keeper barges laden Monday permit gate fog ice charges days section rules relief"
WORDS = TEXT.split()
FIRST_REGION_S = 1.5
PEER = """
import sys, time
import pypdfium2
from rapidocr import RapidOCR
document, pages = pypdfium2.PdfDocument(sys.argv[1]), int(sys.argv[2])
engine = RapidOCR(params={"Global.log_level": "critical"})
def read(number):
    return engine(document[number].render(scale=200 / 72).to_numpy()).txts or ()
read(0)
begun = time.perf_counter()
lines = sum(len(read(number)) for number in range(pages))
print(pages / (time.perf_counter() - begun), lines)
"""
PEER_NEEDS = ("rapidocr==3.10.0", "onnxruntime", "pypdfium2")


def document_of(pages: int) -> bytes:
    """A4 pages of printed lines, each with its number in it."""
    chance = random.Random(1)
    pdf = pikepdf.new()
    font = pdf.make_indirect(Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica))
    for number in range(pages):
        pdf.add_blank_page(page_size=(595, 842))
        lines = [
            f"{number:03d} {line:02d} {' '.join(chance.choice(WORDS) for _ in range(WORDS_A_LINE))}"
            for line in range(LINES)
        ]
        words = "".join(f"({line}) Tj 0 -30 Td " for line in lines)
        page = pdf.pages[-1]
        page.Contents = pdf.make_stream(f"BT /F1 14 Tf 50 780 Td {words}ET".encode())
        page.Resources = Dictionary(Font=Dictionary(F1=font))
    out = io.BytesIO()
    pdf.save(out)
    return out.getvalue()


class Memory:
    """Proportional set size of some processes and their children, in MB, as it goes on."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._over = threading.Event()
        self.seen: list[float] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.seen.append(sum(map(_pss_mb, self._pids)))


def _pss_mb(pid: int) -> float:
    total = 0.0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            total += process.memory_full_info().pss / 2**20
        except psutil.Error:
            continue
    return total


async def cluster_run(document: bytes, pages: int) -> dict[str, object]:
    """The document through `sluiceway up` as it is without a configuration, warmed by two pages."""
    plan = plan_cluster(None, os.environ, free_ports=True)
    async with Cluster(plan.servers) as cluster, AsyncClient(plan.address) as client:
        await client.process(document_of(2), timeout_s=120)
        told: Counter[int] = Counter()
        texts: Counter[int] = Counter()
        page_of: dict[int, int] = {}
        first_s = first_text_s = 0.0
        with Memory([pid for pid in cluster.pids.values() if pid]) as memory:
            begun_s = time.perf_counter()
            async with aclosing(client.events(document, timeout_s=290)) as heard:
                async for event in heard:
                    now_s = time.perf_counter() - begun_s
                    match event:
                        case events.Regions():
                            told[event.page.index] += 1
                            page_of |= dict.fromkeys((region.id for region in event.regions), event.page.index)
                            first_s = first_s or now_s
                        case events.Values():
                            texts.update(page_of[key] for key in event.readings)
                            first_text_s = first_text_s or now_s
                        case events.SourceFailed():
                            raise event.error
            took_s = time.perf_counter() - begun_s
    half = memory.seen[len(memory.seen) // 5 :] or memory.seen or [0.0]
    return {
        "document_bytes": len(document),
        "first_region_s": first_s,
        "first_text_s": first_text_s,
        "pages_per_s": pages / took_s,
        "each_page_once": told == Counter(range(pages)),
        "lines_read": texts.total(),
        "memory_mb_first_fifth": max(memory.seen[: len(memory.seen) // 5] or [0.0]),
        "memory_mb_most_later": max(half),
        "memory_mb_end": memory.seen[-1] if memory.seen else 0.0,
    }


def peer_pages_per_s(document: bytes, pages: int) -> float:
    """RapidOCR on some of the pages."""
    folder = Path(".venv-peers/documents")
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER_NEEDS], check=True)
    file = Path("out/documents.pdf")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(document)
    done = subprocess.run([str(python), "-c", PEER, str(file), str(pages)], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[0])


def main() -> int:
    """Measure, print, and fail where a page is missing or comes twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--peer", action="store_true", help="measure RapidOCR as well")
    parser.add_argument("--peer-pages", type=int, default=6)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    document = document_of(arguments.pages)
    peers = [peer_pages_per_s(document, arguments.peer_pages)] if arguments.peer else []
    figures = asyncio.run(cluster_run(document, arguments.pages))
    if arguments.peer:
        peers.append(peer_pages_per_s(document, arguments.peer_pages))
        figures["rapidocr_pages_per_s"] = sum(peers) / len(peers)
        figures["times_rapidocr"] = float(str(figures["pages_per_s"])) / (sum(peers) / len(peers))
    for name, value in figures.items():
        print(f"{name:>24}  {value:.3f}" if isinstance(value, float) else f"{name:>24}  {value}")
    if arguments.json is not None:
        arguments.json.parent.mkdir(exist_ok=True)
        arguments.json.write_text(json.dumps(figures, indent=1))
    return 0 if figures["each_page_once"] else 1


if __name__ == "__main__":
    sys.exit(main())
