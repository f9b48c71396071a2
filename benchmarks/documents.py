"""A PDF of a hundred pages through a cluster on this machine: `python benchmarks/documents.py [--pages 100] [--peer]`.

What is measured: how soon the first regions of any page are there, pages a second, memory while pages come, how often
each page came, and how often the file went to detection. With `--peer` some of the pages go through pypdfium2 and
RapidOCR, right before and right after, in an environment of its own: by OpenVINO and by ONNX Runtime, as one process
with a thread for each core and as a process for each core. Its best counts. It brings PP-OCRv6's small models alone, so
we run with those as well as with our defaults. Figures of one run say something about each other.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pikepdf
import psutil
from pikepdf import Dictionary, Name
from sluiceway_cluster import Cluster, ClusterPlan, plan_cluster
from sluiceway_cluster.scaling import service_of

from sluiceway import AsyncClient
from sluiceway.client import events

LINES, WORDS_A_LINE = 24, 5
TEXT = "harbour water noon lock keeper barges laden Monday permit gate fog ice charges days section rules relief"
WORDS = TEXT.split()
FIRST_REGION_S = 1.5
# Of the lines on its pages, what a peer has to read so that its speed says something.
ENOUGH_LINES = 0.9
# Of the most memory in the first fifth of the time, what the rest may take.
FLAT = 1.1
# Times that a replica may get the file.
MOST_SENDS = 2
PEER = """
import multiprocessing, sys, time
import pypdfium2
from rapidocr import EngineType, RapidOCR
file, pages, engine, processes, threads = sys.argv[1], *map(int, sys.argv[2:3]), sys.argv[3], *map(int, sys.argv[4:])
kind = {"openvino": EngineType.OPENVINO, "onnxruntime": EngineType.ONNXRUNTIME}[engine]
params = {"Global.log_level": "critical", **{f"{part}.engine_type": kind for part in ("Det", "Cls", "Rec")}}
if engine == "openvino":
    params["EngineConfig.openvino.inference_num_threads"] = threads
else:
    params["EngineConfig.onnxruntime.intra_op_num_threads"] = threads
    params["EngineConfig.onnxruntime.inter_op_num_threads"] = 1
def start():
    global document, reader
    document, reader = pypdfium2.PdfDocument(file), RapidOCR(params=params)
    read(0)
def read(number):
    return len(reader(document[number].render(scale=200 / 72).to_numpy()).txts or ())
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(processes, start) as pool:
        pool.map(read, range(processes), chunksize=1)
        begun = time.perf_counter()
        lines = sum(pool.imap_unordered(read, range(pages)))
        print(pages / (time.perf_counter() - begun), lines)
"""
PEER_NEEDS = ("rapidocr==3.10.0", "onnxruntime==1.23.2", "openvino", "pypdfium2")
SMALL = {
    "SLUICEWAY_DETECTION__MODEL": "ppocrv6-small-det",
    "SLUICEWAY_RECOGNITION__MODELS": '["ppocrv6-small"]',
}


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


def _times_sent(plan: ClusterPlan) -> int:
    """How often detection got a document, as its replicas counted the calls."""
    total = 0
    for server in plan.servers:
        if service_of(server.name) == "detection":
            host, port = server.operations
            with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
                found = re.findall(r'^rpc_server_call_duration_seconds_count{[^}]*DetectPages"[^}]*} (\S+)$',
                                   answer.read().decode(), re.MULTILINE)  # fmt: skip
            total += sum(int(float(count)) for count in found)
    return total


async def cluster_run(document: bytes, pages: int, variables: Mapping[str, str]) -> dict[str, object]:
    """The document through `sluiceway up` as it is with these variables alone, warmed by two pages."""
    plan = plan_cluster(None, os.environ, free_ports=True, overrides=variables)
    async with Cluster(plan.servers) as cluster, AsyncClient(plan.address) as client:
        await client.process(document_of(2), timeout_s=120)
        sent_before = await asyncio.to_thread(_times_sent, plan)
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
        sent = await asyncio.to_thread(_times_sent, plan) - sent_before
    fifth = max(1, len(memory.seen) // 5)
    return {
        "document_bytes": len(document),
        "sent_bytes": sent * len(document),
        "times_sent": sent,
        "first_region_s": first_s,
        "first_text_s": first_text_s,
        "pages_per_s": pages / took_s,
        "each_page_once": told == Counter(range(pages)),
        "lines_read": texts.total(),
        "memory_mb_first_fifth": max(memory.seen[:fifth]),
        "memory_mb_most_later": max(memory.seen[fifth:] or memory.seen),
        "memory_mb_end": memory.seen[-1],
    }


def peer_pages_per_s(document: bytes, pages: int) -> dict[str, float]:
    """RapidOCR on some of the pages, in each way that it can be run."""
    folder = Path(".venv-peers/documents")
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER_NEEDS], check=True)
        (folder / ".ready").touch()
    file, program = Path("out/documents.pdf"), Path("out/documents_peer.py")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(document)
    program.write_text(PEER)
    cores = len(os.sched_getaffinity(0))
    found = {}
    for engine in ("openvino", "onnxruntime"):
        for processes, threads in ((1, cores), (cores, 1)):
            command = [str(python), str(program), str(file), str(pages), engine, str(processes), str(threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            speed, lines = done.stdout.split()
            if int(lines) < pages * LINES * ENOUGH_LINES:
                raise SystemExit(f"RapidOCR by {engine} has read {lines} lines of {pages * LINES}")
            found[f"{engine}, {processes} x {threads} threads"] = float(speed)
    return found


def missed_bars(figures: Mapping[str, Any]) -> list[str]:
    """What is not as it has to be."""
    bars = {
        "every page comes once": figures["each_page_once"],
        f"the first region within {FIRST_REGION_S} s": figures["first_region_s"] <= FIRST_REGION_S,
        f"the file is sent {MOST_SENDS} times at most": figures["times_sent"] <= MOST_SENDS,
        "memory is flat": figures["memory_mb_most_later"] <= FLAT * figures["memory_mb_first_fifth"],
    }
    return [bar for bar, held in bars.items() if not held]


def show(title: str, figures: Mapping[str, Any]) -> None:
    """Print them."""
    print(title)
    for name, value in figures.items():
        print(f"{name:>36}  {value:.3f}" if isinstance(value, float) else f"{name:>36}  {value}")


def main() -> int:
    """Measure, print, and fail where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--peer", action="store_true", help="measure RapidOCR as well")
    parser.add_argument("--peer-pages", type=int, default=6)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    document = document_of(arguments.pages)
    found: dict[str, Any] = {}
    before = peer_pages_per_s(document, arguments.peer_pages) if arguments.peer else {}
    for title, variables in (("defaults", {}), *((("small models", SMALL),) if arguments.peer else ())):
        found[title] = asyncio.run(cluster_run(document, arguments.pages, variables))
        show(f"Sluiceway, {title}", found[title])
    if arguments.peer:
        after = peer_pages_per_s(document, arguments.peer_pages)
        found["rapidocr"] = {way: (speed + after[way]) / 2 for way, speed in before.items()}
        show("RapidOCR, pages a second", found["rapidocr"])
        best = max(found["rapidocr"].values())
        found["times_rapidocr"] = {title: found[title]["pages_per_s"] / best for title in ("defaults", "small models")}
        show("so many times as fast as its best", found["times_rapidocr"])
    if arguments.json is not None:
        arguments.json.parent.mkdir(exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1))
    missed = missed_bars(found["defaults"])
    for bar in missed:
        print(f"MISSED: {bar}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
