"""The fenced blocks of the documents, and what becomes of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

__all__ = ["DECISIONS", "ROOT", "Block", "Decision", "What", "blocks", "decision_of"]

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


class What(Enum):
    """What becomes of a block."""

    SHELL = "its lines are run in the clone, beside a cluster"
    PYTHON = "it is run in the clone, beside a cluster"
    IMPORTS = "its imports are run, and its syntax is looked at: what it calls is a reader's own"
    CONFIGURATION = "`sluiceway doctor` finds nothing wrong with it"
    VALUES = "the chart takes it as its values"
    OVERLAY = "it changes services that docker-compose.yml has"
    SHOWN = "a real answer has the same form"
    TYPED = "an operator types it where something is wrong, with names of their own: the shell can read it"
    ELSEWHERE = "a make target of its own runs it"
    FIGURES = "it is what a run of a make target printed"


@dataclass(frozen=True)
class Decision:
    """What becomes of the blocks of a document that hold a text.

    Attributes:
        without: beginnings of lines that are left out: they are run by the target, or have nothing to run.
        target: make target that runs it, or printed it.
        promises: for SHELL: what its output, or a file that it makes, has to hold, by file name ("" is the output).
        replace: texts that stand for something of a reader's own, and what they are here.
        variables: of the environment, for SHELL.
    """

    document: str
    holds: str
    what: What
    without: tuple[str, ...] = ()
    target: str = ""
    promises: Mapping[str, str] = field(default_factory=dict)
    replace: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def _elsewhere(document: str, holds: str, target: str) -> Decision:
    return Decision(document, holds, What.ELSEWHERE, target=target)


def _figures(document: str, holds: str, target: str) -> Decision:
    return Decision(document, holds, What.FIGURES, target=target)


# The first that fits a block decides. A block that none fits, and a decision that fits none, are faults.
DECISIONS: tuple[Decision, ...] = (
    Decision("README.md", "make demo", What.SHELL, ("make test",), "test", {"out/demo/bus.jpg": "", "": "emisiones"}),
    Decision(
        "README.md",
        "--out annotated",
        What.SHELL,
        ("sluiceway up", "sluiceway top", "sluiceway reload", "docker "),
        "test-compose",
        {"annotated/photo.jpg": "", "annotated/page.png": "", "results.ndjson": '"status": "ok"', "": "emisiones"},
    ),
    Decision("README.md", '"source": "page.png"', What.SHOWN),
    Decision("README.md", "from sluiceway import Client", What.PYTHON, promises={"": "a.jpg"}),
    Decision(
        "README.md",
        "[api.shop]",
        What.CONFIGURATION,
        variables={"SHOP_TOKEN": "secret"},
        replace={"workers = 4": "workers = 1"},
    ),
    Decision("README.md", "[stages.layout]", What.CONFIGURATION),
    _elsewhere("README.md", "the contract\n", "lint"),
    _elsewhere("examples/README.md", "[[recognition.models]]", "test"),
    Decision("examples/README.md", "async def main", What.PYTHON, promises={"": "INVALID_IMAGE"}),
    Decision("examples/README.md", 'pipeline="parking"', What.IMPORTS),
    Decision("examples/README.md", "vision.example.org", What.IMPORTS),
    _elsewhere("examples/README.md", "results.cancel", "test"),
    _elsewhere("docs/bench.md", "sluiceway bench scans/", "test"),
    _elsewhere("docs/clients.md", "grpcurl", "test-clients"),
    _elsewhere("docs/clients.md", "tritonclient", "test-clients"),
    Decision("docs/clients.md", "[detection.http]", What.CONFIGURATION),
    Decision(
        "docs/detection.md",
        "models calibrate",
        What.SHELL,
        promises={"text-nano-int8.onnx": "", "": "int8"},
        replace={"'.[calibration]'": "--quiet '.[calibration]'"},
    ),
    _elsewhere("docs/explain.md", "sluiceway explain", "test"),
    _elsewhere("docs/explain.md", "What it waited for", "test"),
    _elsewhere("docs/explain.md", "OTEL_EXPORTER_OTLP_ENDPOINT", "test"),
    _elsewhere("docs/docker.md", "sluiceway compose --to", "test"),
    _elsewhere("docs/docker.md", "SHA256SUMS", "test-release"),
    Decision("docs/docker.md", "SLUICEWAY_DETECTION__MODEL: /models", What.OVERLAY),
    _elsewhere("docs/docker.md", "FROM sluiceway/recognition-cpu", "test-compose"),
    Decision("docs/docker.md", "~/authority", What.SHELL, promises={"certificates/server.pem": "BEGIN CERTIFICATE"}),
    _elsewhere("docs/docker.md", "gpu.yml", "test-gpu-image"),
    _elsewhere("docs/docker.md", "--gpus all", "test-gpu-image"),
    _elsewhere("docs/docker.md", "docker compose", "test-compose"),
    Decision("docs/docker.md", 'detection = "a:50052', What.CONFIGURATION),
    Decision(
        "docs/command-line.md",
        "--format text",
        What.SHELL,
        ("sluiceway run scans/ --format searchable-pdf",),
        "test",
        {"scans.txt": "segmentation"},
    ),
    Decision("docs/command-line.md", "os.fsencode", What.PYTHON, promises={"": ""}),
    Decision("docs/command-line.md", "--resume", What.SHELL, promises={"results.ndjson": '"status": "ok"'}),
    Decision(
        "docs/command-line.md",
        "config show",
        What.SHELL,
        ("sluiceway run photo.jpg", "sluiceway up"),
        "test",
        {"": "[detection.http]"},
    ),
    Decision("docs/http.md", '"sources":', What.SHELL, promises={"": "job_done"}),
    Decision("docs/http.md", "Accept: application/json", What.SHELL, promises={"": '"source": "photo.jpg"'}),
    _elsewhere("docs/http.md", "curl -N", "test"),
    Decision("docs/http.md", "curl ", What.SHELL, promises={"": "job_done"}),
    Decision("docs/http.md", '"status": "ok"', What.SHOWN),
    Decision("docs/http.md", '"job_id"', What.SHOWN),
    Decision("docs/http.md", "urn:sluiceway", What.SHOWN),
    Decision("docs/http.md", "[orchestrator.http]", What.CONFIGURATION),
    _elsewhere("docs/kubernetes.md", "helm install eye", "test-kubernetes"),
    _elsewhere("docs/kubernetes.md", "helm upgrade eye", "test-kubernetes"),
    _elsewhere("docs/kubernetes.md", "DNS:eye-sluiceway-detection", "test-kubernetes"),
    Decision("docs/kubernetes.md", "sluiceway top --address", What.TYPED),
    _figures("docs/kubernetes.md", "installed and ready in", "test-kubernetes"),
    Decision("docs/kubernetes.md", ":", What.VALUES),
    Decision("docs/pipelines.md", "[stages.vehicles]", What.CONFIGURATION, replace={"plates.onnx": "{weights}"}),
    Decision("docs/recognition.md", "[recognition]", What.CONFIGURATION),
    _figures("docs/recognition.md", "compiling 8 graphs", "test-cuda"),
    _elsewhere("docs/recognition.md", "logos.pt2", "test"),
    _elsewhere("docs/recognition.md", "crnn_mobilenet_v3_small.onnx", "test"),
    _elsewhere("docs/detection.md", "signs-obb.onnx", "test"),
    _elsewhere("docs/detection.md", "rtdetr-r18.onnx", "test"),
    _figures("docs/reliability.md", "goodput", "bench-overload"),
    _figures("docs/reliability.md", "doubled", "soak"),
    _figures("docs/reliability.md", "executions in", "fuzz"),
    _elsewhere("docs/security.md", "[security]", "test"),
    _elsewhere("docs/runtime.md", "server/door", "lint"),
    Decision("docs/security.md", "openssl req -x509", What.SHELL, promises={"tls.crt": "BEGIN CERTIFICATE"}),
    _elsewhere("docs/security.md", "grpcurl -cacert", "test-clients"),
    _elsewhere("docs/security.md", "Client(", "test"),
    Decision("docs/security.md", "interactive_clients", What.CONFIGURATION),
    Decision("docs/documents.md", "contract.pdf", What.SHELL, promises={"all.txt": "Region-based"}),
    *(
        Decision("docs/operations.md", begin, What.TYPED)
        for begin in ("kubectl ", "curl -sS ", "nvidia-smi", "openssl ", "sluiceway reload")
    ),
    Decision(
        "docs/top.md",
        "--once",
        What.SHELL,
        promises={"": "orchestrator", "look.json": '"limits"'},
        variables={"SLUICEWAY_ADDRESS": "localhost:50051"},
    ),
    _elsewhere("docs/top.md", "top --address", "test"),
    Decision("docs/top.md", "client.watch", What.PYTHON, promises={"": "."}),
    _elsewhere("docs/top.md", "port-forward", "test-kubernetes"),
)


def blocks() -> list[Block]:
    """Those of all documents that a newcomer reads."""
    documents = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = []
    for path in documents:
        text = path.read_text("utf-8")
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(str(path.relative_to(ROOT)), line, match[1], match[2]))
    return found


def decision_of(block: Block) -> Decision | None:
    """What becomes of a block; None if nobody has decided."""
    return next((item for item in DECISIONS if item.document == block.document and item.holds in block.text), None)
