"""What an image is made of, as CycloneDX: `python deploy/sbom.py detection [--image sluiceway/detection:0.1.0]`.

Packages of Python as they are pinned, with the hashes of their files, and the weights of the registry that are built in
by default. With an image, also the Debian packages in it, which an engine is asked for. Needs cyclonedx-bom (the
`deploy` dependency group).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from sluiceway_detection.config import DEFAULT_MODEL as DETECTOR
from sluiceway_recognition.config import DEFAULT_MODEL as READER
from sluiceway_runtime.weights.registry import load_registry

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "deploy" / "docker" / "requirements"
SPECIFICATION = SchemaVersion.V1_6
Component = dict[str, Any]

# What each image pins, and which kind of weights it carries; the default ones, as deploy/docker/weights.py pulls them.
IMAGES: dict[str, tuple[str, str | None]] = {
    "orchestrator": ("orchestrator", None),
    "detection": ("detection", "detection"),
    "recognition-cpu": ("recognition-cpu", "recognition"),
    "detection-gpu": ("recognition-gpu", "detection"),
    "recognition-gpu": ("recognition-gpu", "recognition"),
}


def packages(requirements: str) -> dict[str, Any]:
    """The packages of Python."""
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--mc-type", "application"]
    command += ["--pyproject", str(ROOT / "pyproject.toml")]
    command += ["--output-reproducible", "--short-PURLs", "--sv", SPECIFICATION.to_version()]
    command.append(str(REQUIREMENTS / f"{requirements}.txt"))
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - its own words
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def weights(kind: str, defaults: set[str]) -> Iterator[Component]:
    """The models that come with an image."""
    for entry in load_registry().models.values():
        if entry.kind == kind and entry.name in defaults:
            yield {
                "type": "machine-learning-model",
                "bom-ref": f"model:{entry.name}",
                "name": entry.name,
                "version": entry.version,
                "licenses": [{"license": {"name": entry.licence}}],
                "hashes": [
                    {"alg": "SHA-256", "content": file.sha256} for file in entry.files if file.role == entry.main_role
                ],
            }


def debian(docker: str, image: str) -> Iterator[Component]:
    """The packages of the distribution in an image."""
    query = "${db:Status-Status}\\t${Package}\\t${Version}\\t${Architecture}\\n"
    command = [docker, "run", "--rm", "--network", "none", "--entrypoint", "dpkg-query", image, "--show"]
    done = subprocess.run(  # noqa: S603 - who calls names the engine
        [*command, "--showformat", query], check=True, capture_output=True, text=True
    )
    for line in done.stdout.splitlines():
        status, name, version, architecture = line.split("\t")
        if status == "installed":
            url = f"pkg:deb/debian/{name}@{version.replace(':', '%3A')}?arch={architecture}"
            yield {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}


def sbom(name: str, *, docker: str = "docker", image: str | None = None) -> str:
    """The document of an image, as text.

    Args:
        name: of the image, without registry and tag.
        docker: the program that runs it.
        image: its tag; None leaves the distribution's packages out.

    Raises:
        ValueError: what was made does not fit CycloneDX's schema.
    """
    requirements, kind = IMAGES[name]
    document = packages(requirements)
    document["metadata"]["component"]["name"] = f"sluiceway-{name}"
    components: list[Component] = document["components"]
    if kind is not None:
        components += weights(kind, {DETECTOR, READER})
    if image is not None:
        components += debian(docker, image)
    components.sort(key=lambda component: component["bom-ref"])
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    if fault := JsonStrictValidator(SPECIFICATION).validate_str(text):
        raise ValueError(f"{name}: {fault}")
    return text


def main() -> None:
    """Print one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=IMAGES)
    parser.add_argument("--image", help="tag of the image, to list the distribution's packages too")
    parser.add_argument("--docker", default="docker")
    given = parser.parse_args()
    sys.stdout.write(sbom(given.name, docker=given.docker, image=given.image))


if __name__ == "__main__":
    main()
