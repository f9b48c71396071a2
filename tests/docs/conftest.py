"""A fresh clone, set up as the README says, and a cluster that runs from it."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from ports import free_ports

from tests.docs.blocks import ROOT

# What the documents say, and the port that stands for it here: others may have a cluster on this machine.
PORTS = ("50051", "50052", "50053", "8080", "9051", "9052", "9053")
SECTIONS = ("ORCHESTRATOR__PORT", "DETECTION__PORT", "RECOGNITION__PORT", "ORCHESTRATOR__HTTP__PORT")
OPERATIONS = ("ORCHESTRATOR__OPERATIONS_PORT", "DETECTION__OPERATIONS_PORT", "RECOGNITION__OPERATIONS_PORT")
START_S = 120
RUN_S = 600


@dataclass
class Clone:
    """A clone of the last commit, where commands are run as a reader runs them."""

    folder: Path
    home: Path
    site: str
    ports: dict[str, str]
    _up: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def environment(self) -> dict[str, str]:
        """That of a reader: the environment of the clone is active, and nothing of this one is."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLUICEWAY_", "PYTHON"))}
        keys = (*SECTIONS, *OPERATIONS)
        return kept | {
            "HOME": str(self.home),
            "PATH": f"{self.folder / '.venv' / 'bin'}:{kept['PATH']}",
            "VIRTUAL_ENV": str(self.folder / ".venv"),
            **{f"SLUICEWAY_{key}": self.ports[port] for key, port in zip(keys, PORTS, strict=True)},
            "SLUICEWAY_ORCHESTRATOR__URL_ALLOW_CIDRS": '["127.0.0.0/8"]',
        }

    def here(self, text: str) -> str:
        """A text of the documents with the ports and the web site that there are here."""
        for told, real in self.ports.items():
            text = text.replace(f":{told}", f":{real}")
        return text.replace("https://example.org", self.site)

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script as a reader would type it, stopping at the first command that fails."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(script)],
            cwd=self.folder,
            env=self.environment | {name: self.here(value) for name, value in variables.items()},
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )

    def up(self) -> None:
        """Start the cluster of the clone, and wait until it is ready."""
        self._up = subprocess.Popen(
            [self.folder / ".venv" / "bin" / "sluiceway", "up", "--quiet"],
            cwd=self.folder,
            env=self.environment,
            stderr=subprocess.PIPE,
        )
        ready = threading.Event()
        threading.Thread(target=self._listen, args=(ready,), daemon=True).start()
        assert ready.wait(START_S)
        assert self._up.poll() is None

    def _listen(self, ready: threading.Event) -> None:
        assert self._up is not None
        assert self._up.stderr is not None
        with self._up.stderr as stderr:
            for line in stderr:
                if line.startswith(b"ready on"):
                    ready.set()
        ready.set()

    def close(self) -> None:
        """Stop the cluster."""
        if self._up is not None:
            self._up.terminate()
            self._up.wait(60)


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """Set up as the README says, with the files that the documents speak of, and with a cluster."""
    base = tmp_path_factory.mktemp("reader")
    folder, home, site = base / "sluiceway", base / "home", base / "site"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    home.mkdir()
    site.mkdir()
    # Weights that are here already need not be downloaded again.
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sluiceway"
    if cache.exists():
        (home / ".cache").mkdir()
        (home / ".cache" / "sluiceway").symlink_to(cache)
    handler = type("Handler", (_Quiet,), {"directory": str(site)})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    made = Clone(folder, home, f"http://127.0.0.1:{server.server_port}", ports)
    try:
        done = made.run(
            "make setup && sluiceway models pull --defaults && sluiceway samples pull bus.jpg page.png --to ."
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for name in ("photo.jpg", "a.jpg", "b.jpg", "c.jpg"):
            shutil.copyfile(folder / "bus.jpg", folder / name)
        (folder / "scans").mkdir()
        for name in ("page.png", "again.png"):
            shutil.copyfile(folder / "page.png", folder / "scans" / name)
        shutil.copyfile(folder / "page.png", site / "page.png")
        (folder / "notes.txt").write_text("no image\n")
        with Image.open(folder / "page.png") as page:
            page.convert("RGB").save(folder / "contract.pdf")
            page.save(folder / "scan.tif", save_all=True, append_images=[page])
        made.up()
        yield made
    finally:
        made.close()
        server.shutdown()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    directory = ""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments, directory=self.directory)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None: ...
