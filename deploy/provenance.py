"""How a release came to be: an in-toto statement with SLSA's provenance, to be signed by whoever publishes it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "deploy" / "docker" / "requirements"
BUILD_TYPE = "urn:sluiceway:deploy/release.py:v1"


@dataclass(frozen=True)
class Base:
    """The image that all others are made from.

    Attributes:
        reference: what the build is given, by its digest where a registry has one.
        digest: `sha256:...` of the registry's manifest; of an image that was made on this machine, its own.
        pinned: whether the reference has the digest, so that nothing else can be built on.
    """

    reference: str
    digest: str
    pinned: bool


def base_image(docker: str, name: str) -> Base:
    """Find the base image, pulled if need be, and its digest."""
    if "@" in name:
        return Base(name, name.partition("@")[2], pinned=True)
    if _engine(docker, "image", "inspect", name) is None:
        _engine(docker, "pull", "--quiet", name)
    told = _engine(docker, "image", "inspect", name, "--format", "{{json .}}")
    if told is None:
        raise SystemExit(f"there is no base image {name}, and it cannot be pulled")
    image = json.loads(told)
    digests = image.get("RepoDigests") or []
    if not digests:
        return Base(name, image["Id"], pinned=False)
    digest = str(digests[0]).partition("@")[2]
    return Base(f"{name}@{digest}", digest, pinned=True)


def revision() -> str:
    """The commit, marked if anything differs from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - its own words


def statement(files: Sequence[Path], base: Base | None, parameters: Mapping[str, str], number: str) -> str:
    """The statement about files of a release, as text; the same for the same sources.

    Args:
        files: what was made.
        base: of the images among them.
        parameters: what the release was asked for.
        number: its version.
    """
    materials: list[dict[str, Any]] = [
        {"name": str(path.relative_to(ROOT)), "digest": {"sha256": sha256(path)}}
        for path in sorted(REQUIREMENTS.glob("*.txt"))
    ]
    commit = revision()
    materials.append({"name": "source", "digest": {"gitCommit": commit.removesuffix("-dirty")}})
    if base is not None:
        materials.append({"name": base.reference, "digest": {"sha256": base.digest.removeprefix("sha256:")}})
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": {"sha256": sha256(path)}} for path in sorted(files)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": number, **parameters},
                "internalParameters": {"unchanged": not commit.endswith("-dirty")},
                "resolvedDependencies": materials,
            },
            "runDetails": {"builder": {"id": BUILD_TYPE}},
        },
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _engine(docker: str, *words: str) -> str | None:
    """What an engine answers; None where it refuses."""
    done = subprocess.run([docker, *words], capture_output=True, text=True, check=False)  # noqa: S603 - named by who calls
    return done.stdout if done.returncode == 0 else None
