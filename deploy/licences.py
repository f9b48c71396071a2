"""List the licence of everything that goes into the images: `python deploy/licences.py` writes `docs/licences.md`.

What goes in is what `deploy/docker/requirements/` pins; what a package's licence is, its own metadata says, as
installed in this environment or under `--path`. A package that is not installed keeps the line that it has, as long as
its version is the same. With `--check` nothing is written, and the exit code is 1 if a package or version is missing.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageMetadata, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "deploy" / "docker" / "requirements"
PAGE = ROOT / "docs" / "licences.md"
HEADER = """# Licences of what the images contain

Made by `python deploy/licences.py` from the pinned requirements; the licence is what each package's own metadata says.
Sluiceway itself is Apache-2.0. Weights are not in this list: `sluiceway models list` names the licence of each, and the
README says what the AGPL of some of them means. `ultralytics` (AGPL-3.0) is in no image; it is an optional extra.

HEIC is read by `pi-heif`, which is in no image either: it is the extra `heic`, for whoever wants it. Its wheels hold
libheif and libde265 as shared libraries of their own, under the LGPL-3.0, which asks that a recipient may replace
them; nothing of the GPL is in them. (`pillow-heif`, which can also write, brings x265 under the GPL-2.0, and is not
used.) HEVC is covered by patents in some countries, which no licence of code settles. What decodes AVIF (libavif,
dav1d, libaom; BSD), JPEG 2000 (OpenJPEG; BSD) and PDF (PDFium; BSD and Apache-2.0, in `pypdfium2`) comes with packages
that are listed.

| package | version | licence | images |
|---|---|---|---|
"""
# Metadata of old style has whole licence texts; their first line is enough.
_LONGEST = 80
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
_ROW = re.compile(r"^\| (\S+) \| (\S+) \| (.+?) \| .* \|$", re.MULTILINE)


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[tuple[str, str], list[str]]:
    """Images by package and version."""
    found: dict[tuple[str, str], list[str]] = {}
    for file in sorted(REQUIREMENTS.glob("*.txt")):
        for name, version in _PINNED.findall(file.read_text(encoding="utf-8")):
            found.setdefault((normal(name), version), []).append(file.stem)
    return found


def licence_of(metadata: PackageMetadata) -> str:
    """What a package says: an SPDX expression, its classifiers, or the first line of its text."""
    values: Mapping[str, str] = {key.lower(): str(metadata[key]) for key in metadata}
    if expression := values.get("license-expression"):
        return expression
    classifiers = [text.split(" :: ")[-1] for text in metadata.get_all("Classifier") or () if "License ::" in text]
    if classifiers:
        return ", ".join(classifiers)
    text = next((line.strip() for line in values.get("license", "").splitlines() if line.strip()), "")
    return text[:_LONGEST].replace("|", "/")


def listed() -> dict[tuple[str, str], str]:
    """What the page says now."""
    if not PAGE.is_file():
        return {}
    return {(name, version): licence for name, version, licence in _ROW.findall(PAGE.read_text(encoding="utf-8"))}


def installed(paths: Iterable[Path]) -> dict[str, str]:
    """Licences by package, of this environment and of further folders of packages."""
    found: dict[str, str] = {}
    for distribution in distributions(path=[*sys.path, *map(str, paths)]):
        if name := distribution.metadata["Name"]:
            found.setdefault(normal(name), licence_of(distribution.metadata) or "not stated")
    return found


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something is missing")
    parser.add_argument("--path", action="append", type=Path, default=[], help="a folder of installed packages")
    arguments = parser.parse_args()
    wanted, known = pinned(), listed()
    if not arguments.check:
        here = installed(arguments.path)
        # A licence belongs to a package more than to its version: what is installed may be a little older.
        known = {key: here.get(key[0]) or known.get(key, "") for key in wanted}
        rows = [
            f"| {name} | {version} | {known[name, version]} | {', '.join(images)} |"
            for (name, version), images in sorted(wanted.items())
            if known[name, version]
        ]
        PAGE.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    missing = [f"{name}=={version}" for name, version in sorted(wanted) if not known.get((name, version))]
    if missing:
        sys.stderr.write(f"no licence is known of {', '.join(missing)}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
