"""Sluiceway beside what people would use instead: same weights, same images, same load generator, on this machine.

    python benchmarks/peers/run.py                              on the cores: frameworks and OCR servers
    python benchmarks/peers/run.py --gpu                        recognition on a GPU: frameworks alone
    python benchmarks/peers/run.py --only "mosec tuned" --fresh some of them, measured anew

Each contestant is alone on the machine while it is measured; ours comes first and last. Those with names that end in
`tuned` compute with the very engines of our workers, a pinned process a core; `documented` is what the framework's and
the libraries' documentation writes. Environments are made in .venv-peers/ at the first run. What was measured is kept
in out/peers/, so that a run that was cut short goes on where it ended, and --fresh begins anew.

Exits 1 below a bar. What a busy machine shows is printed and not judged.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Where nothing is installed, a checkout is enough.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "services"))
sys.path.insert(2, str(Path(__file__).resolve().parents[2] / "orchestrator"))
sys.path.insert(3, str(Path(__file__).resolve().parents[2] / "cluster"))

import psutil
from sluiceway_runtime import weights

from benchmarks.accuracy.picture import Stored
from benchmarks.peers import ocr_pictures, report
from benchmarks.peers.contestants import CONTESTANTS, OURS, Contestant, Place, contestants_of
from benchmarks.peers.course import Pace, run_stint
from benchmarks.peers.figures import Figures, equal_share
from benchmarks.peers.hosting import StartFault

SAMPLES = ("bus.jpg", "page.png")
WATCHED_S = 2.0
MOST_CALLERS = 128
# A contestant that has not answered by then does not count as one that serves.
READY_S, GPU_READY_S = 600.0, 240.0


@dataclass(frozen=True)
class Plan:
    """One start of a contestant.

    Attributes:
        name: of the contestant.
        workers: it is started with.
        usual: whether that is the number that we would choose; then everything is measured.
        turn: 0, and 1 for ours once more at the end.
    """

    name: str
    workers: int
    usual: bool
    turn: int = 0

    @property
    def file(self) -> str:
        """Where it is kept."""
        return f"{self.name.replace(' ', '-')}-{self.workers}-{self.turn}.json"


def plans_of(names: Sequence[str], cores: int, *, on_gpu: bool) -> list[Plan]:
    """What is measured, in order."""
    found: list[Plan] = []
    for name in names:
        one = CONTESTANTS[name]
        usual = usual_workers(one, cores, on_gpu=on_gpu)
        others = other_workers(one, name, usual, on_gpu=on_gpu)
        found.append(Plan(name, usual, usual=True))
        found += [Plan(name, count, usual=False) for count in others]
    if on_gpu:
        # Starting so many there takes minutes: whoever ends a run early has all the rest.
        found.sort(key=lambda plan: not plan.usual)
    elif len(found) > 1 and OURS in names:
        found.append(Plan(OURS, usual_workers(CONTESTANTS[OURS], cores, on_gpu=on_gpu), usual=True, turn=1))
    return found


def other_workers(one: Contestant, name: str, usual: int, *, on_gpu: bool) -> tuple[int, ...]:
    """For throughput by workers: of ours, of those that we tuned, and of LitServe as this project first met it."""
    if one.kind != "framework" or one.bound_ms is not None:
        return ()
    if one.tuned:
        # A start with a GPU takes up to a minute and more, and fewer workers than cores surprise nobody.
        fewer_or_more = 1 if one.script else 2 * usual
        return (4 * usual,) if on_gpu else (fewer_or_more, 4 * usual)
    return (1, 2 * usual) if name.startswith("litserve") else ()


def usual_workers(one: Contestant, cores: int, *, on_gpu: bool) -> int:
    """As many as we would choose: a core each; with a GPU some cores are for what feeds it.

    Of ours they are workers of each stage. Where two compute on the cores, each gets half of them: the two models that
    frameworks compute cost the same. The default pipeline has as many as `sluiceway up` chooses.
    """
    if one.tuned and on_gpu:
        return max(1, cores - 2)
    if one.tuned:
        return max(1, cores // 2) if one.kind == "framework" and not one.script else cores
    # With the libraries' defaults more are slower, and nobody gets that far.
    return 2


def kept_in(place: Place, pace: Pace) -> Path:
    """Where stints are kept: another folder for other code, models or lengths."""
    root = Path(__file__).resolve().parents[2]
    parts = [place.detector, place.recogniser, place.device, str(pace)]
    for name in ("sluiceway", "services", "orchestrator", "cluster", "benchmarks/peers"):
        parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((root / name).rglob("*.py"))]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return place.work / f"{'gpu' if place.on_gpu else 'cpu'}-{digest}"


async def measure(plan: Plan, place: Place, images: Sequence[bytes], pace: Pace) -> dict[str, Any]:
    """One start, as it is kept."""
    busy = await asyncio.to_thread(psutil.cpu_percent, WATCHED_S) / 100
    async with CONTESTANTS[plan.name].host(plan.name, place, images, plan.workers) as running:
        begun_s, others_s = time.monotonic(), _computed_s() - running.cpu_s()
        stint = await run_stint(running, len(images), own_pace(plan, pace, psutil.cpu_count() or 1), whole=plan.usual)
        cores_s = (time.monotonic() - begun_s) * psutil.cpu_count()
        busy = max(busy, (_computed_s() - running.cpu_s() - others_s) / cores_s)
    return {"name": plan.name, "workers": plan.workers, "usual": plan.usual, "busy": busy, **stint.to_dict()}


def own_pace(plan: Plan, pace: Pace, cores: int) -> Pace:
    """What of a pace is for one start."""
    one = CONTESTANTS[plan.name]
    if not plan.usual:
        # Enough that no worker waits for a caller.
        return replace(pace, settle_s=0.0, callers=(min(4 * plan.workers, MOST_CALLERS),))
    if one.bound_ms is not None:
        # More would have to wait longer than it allows.
        return replace(pace, settle_s=0.0, callers=tuple(count for count in pace.callers if count <= 2 * cores))
    return pace if one.kind == "ocr" else replace(pace, settle_s=0.0)


def _computed_s() -> float:
    """CPU time that this machine has computed for anybody so far."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def run_all(
    plans: Sequence[Plan], place: Place, pace: Pace, folder: Path, *, fresh: bool
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Measure what is missing in a folder.

    Returns:
        All stints, and why contestants did not start.
    """
    samples = [path.read_bytes() for path in weights.pull_samples(SAMPLES).values()]
    folder.mkdir(parents=True, exist_ok=True)
    stints, failed = [], {}
    for plan in plans:
        kept = folder / plan.file
        if kept.exists() and not fresh:
            stints.append(json.loads(kept.read_text(encoding="utf-8")))
            continue
        pictures: list[Stored] = []
        try:
            if CONTESTANTS[plan.name].kind == "ocr":
                pictures = ocr_pictures.pictures()
            images = [picture.path.read_bytes() for picture in pictures] or samples
            found = asyncio.run(measure(plan, place, images, pace))
        except (StartFault, SystemExit) as fault:
            failed[plan.name] = str(fault)
            print(f"{plan.name}, {plan.workers} workers: {fault}", file=sys.stderr, flush=True)
            continue
        if pictures:
            found["word_f1"] = ocr_pictures.word_f1(pictures, found["texts"])
        kept.write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")
        stints.append(found)
        print(report.line(found), flush=True)
    return stints, failed


def pace_of(cores: int, *, on_gpu: bool, quick: bool) -> Pace:
    """How long everything is: with a GPU fewer seconds, in which as many images are answered."""
    if quick:
        return Pace((2 * cores,), 1.0, 1.0, 2.0)
    if on_gpu:
        return Pace((cores, 3 * cores, 6 * cores), 3.0, 4.0, 6.0)
    return Pace((max(1, cores // 2), cores, 2 * cores, 4 * cores), 4.0, 6.0, 12.0, settle_s=20.0)


async def check(names: Sequence[str], place: Place, cores: int) -> int:
    """Start each once, and compare what it reads with what ours reads."""
    images = [path.read_bytes() for path in weights.pull_samples(SAMPLES).values()]
    ours: Sequence[Sequence[str]] = []
    status = 0
    for name in names:
        one = CONTESTANTS[name]
        try:
            workers = usual_workers(one, cores, on_gpu=place.on_gpu)
            async with one.host(name, place, images, workers) as running:
                ours = running.texts if name == OURS else ours
                share = f", {equal_share(ours, running.texts):.1%} of them ours" if ours and one.kind != "ocr" else ""
                print(f"{name}: {sum(map(len, running.texts))} texts{share}, {running.memory_mb():.0f} MB", flush=True)
        except (StartFault, SystemExit) as fault:
            status = 1
            print(f"{name}: {fault}", flush=True)
    return status


def main() -> int:
    """Compare, print, and say by exit code whether the bars were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="recognition on cuda:0, text-small and ppocrv5-mobile")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), metavar="NAME", help=", ".join(CONTESTANTS))
    parser.add_argument("--detector", help="of the frameworks; text-nano, or text-small where there is a GPU")
    parser.add_argument("--quick", action="store_true", help="shorter, for whether it runs at all")
    parser.add_argument("--check", action="store_true", help="only whether each starts, and reads what ours reads")
    parser.add_argument("--fresh", action="store_true", help="measure anew what was kept")
    parser.add_argument("--peer-python", type=Path, default=Path("python3.12"), help="for TurboOCR: 3.12 or newer")
    parser.add_argument("--packed", type=Path, help="packages by contestant, see pack.py, where nothing is installed")
    parser.add_argument("--work", type=Path, default=Path("out/peers"))
    parser.add_argument("--json", type=Path, default=Path("out/bench-peers.json"))
    parser.add_argument("--score-only", action="store_true", help="figures of what was kept")
    arguments = parser.parse_args()
    # Told to end, what runs here is ended before.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.packed:
        # Servers of ours are processes of their own, and nothing of ours is installed there.
        os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:4], os.environ.get("PYTHONPATH", "")])
    on_gpu, cores = arguments.gpu, len(os.sched_getaffinity(0))
    place = Place(
        detector=arguments.detector or ("text-small" if on_gpu else "text-nano"),
        recogniser="ppocrv5-mobile" if on_gpu else "ppocrv6-tiny",
        device="cuda:0" if on_gpu else "cpu",
        ready_s=GPU_READY_S if on_gpu else READY_S,
        work=arguments.work.absolute(),
        peer_python=arguments.peer_python,
        packed=arguments.packed.absolute() if arguments.packed else None,
    )
    names = contestants_of("framework", on_gpu=on_gpu, detector=place.detector)
    names += [] if on_gpu else contestants_of("ocr", on_gpu=False, detector=place.detector)
    names = [name for name in names if name in (arguments.only or names)]
    if arguments.check:
        return asyncio.run(check(names, place, cores))
    plans = plans_of(names, cores, on_gpu=on_gpu)
    pace = pace_of(cores, on_gpu=on_gpu, quick=arguments.quick)
    folder = kept_in(place, pace)
    if arguments.score_only:
        plans = [plan for plan in plans if (folder / plan.file).exists()]
    stints, failed = run_all(plans, place, pace, folder, fresh=arguments.fresh and not arguments.score_only)
    found = Figures(
        stints,
        {name: one.title for name, one in CONTESTANTS.items()},
        frozenset(name for name, one in CONTESTANTS.items() if one.kind == "ocr"),
        frozenset(name for name, one in CONTESTANTS.items() if one.tuned and name != OURS),
        on_gpu,
        failed,
        complete=not arguments.only,
    )
    what = {"machine": report.machine(), "detector": place.detector, "recogniser": place.recogniser}
    written = what | found.to_dict()
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    report.show(written)
    report.draw(written, arguments.json.with_suffix(".svg"))
    if not found.judged:
        print(f"not judged: others had {found.busy:.0%} of this machine's cores before or during a measurement")
        return 0
    print("FAILED" if found.faults() else "passed")
    return 1 if found.faults() else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("cut short: what was measured is kept, and the next run goes on from there", file=sys.stderr)
        sys.exit(130)
