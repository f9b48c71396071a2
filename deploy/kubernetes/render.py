"""Render the chart with its defaults into this folder: `python deploy/kubernetes/render.py [--check]`.

For those who use no helm: `kubectl apply -k deploy/kubernetes`. One file for each object, so that a change is easy to
read.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHART = HERE.parent / "helm" / "sluiceway"
NAMESPACE = "sluiceway"
# New enough for the current versions of the APIs; the chart itself goes further back.
KUBE_VERSION = "1.30.0"
NOTE = "# Rendered from deploy/helm/sluiceway by render.py; change the chart, not this.\n"
NAMESPACE_FILE = f"{NOTE}apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n"


def rendered() -> dict[str, str]:
    """File names and their texts."""
    # Hooks belong to helm's own commands.
    command = ["helm", "template", "sluiceway", str(CHART), "--namespace", NAMESPACE, "--no-hooks"]
    command += ["--kube-version", KUBE_VERSION]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    files = {"namespace.yaml": NAMESPACE_FILE}
    for document in re.split(r"^---\n", output, flags=re.MULTILINE):
        text = re.sub(r"^# Source: .*\n", "", document).strip()
        kind, name = re.search(r"^kind: (\w+)$", text, re.MULTILINE), re.search(r"^  name: (\S+)$", text, re.MULTILINE)
        if kind and name:
            # Nobody's release: kubectl owns these.
            text = re.sub(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", "", text, flags=re.MULTILINE)
            files[f"{name[1]}-{kind[1].lower()}.yaml"] = f"{NOTE}{text}\n"
    resources = "".join(f"  - {file}\n" for file in sorted(files))
    files["kustomization.yaml"] = (
        f"{NOTE}apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"namespace: {NAMESPACE}\nresources:\n{resources}"
    )
    return files


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only tell whether the files are current")
    check = parser.parse_args().check
    wanted = rendered()
    present = {path.name: path.read_text(encoding="utf-8") for path in HERE.glob("*.yaml")}
    if check:
        stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
        print(f"not current, run deploy/kubernetes/render.py: {', '.join(stale)}" if stale else "current")
        return 1 if stale else 0
    for name in present.keys() - wanted.keys():
        (HERE / name).unlink()
    for name, text in wanted.items():
        (HERE / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
