"""Put the weights of one service into its image: `python weights.py SECTION "NAME NAME"`.

Without names it takes the models that the service's own configuration has as defaults. With names it also writes a
configuration that names them, so that an image serves what it carries without being told anything. Downloads go to the
cache, which outlives the build; weights that ship in the package stay there.
"""

import importlib
import json
import shutil
import sys
from pathlib import Path

from sluiceway_runtime.weights import cache_folder, load_registry, pull
from sluiceway_runtime.weights.store import Store

WEIGHTS, CONFIGURATION = Path("/weights"), Path("/configuration")
CONFIG = {"detection": "DetectionConfig", "recognition": "RecognitionConfig"}


def default_models(section: str) -> list[str]:
    """Return the names of the weights that a service loads unless it is told otherwise."""
    model = getattr(importlib.import_module(f"sluiceway_{section}.config"), CONFIG[section])
    fields = model.model_fields
    default = fields["models" if "models" in fields else "model"].get_default(call_default_factory=True)
    served = default if isinstance(default, list | tuple) else [default]
    # A model has a name of its own; its weights are those of that name unless it says otherwise.
    return [model if isinstance(model, str) else model.weights or model.name for model in served]


def configuration(section: str, names: list[str]) -> str:
    """Return a sluiceway.toml; detection serves one model, the others are there to be chosen by its `model`."""
    line = f"model = {json.dumps(names[0])}" if section == "detection" else f"models = {json.dumps(names)}"
    return f"[{section}]\n{line}\n"


def main() -> None:
    """Pull and copy."""
    section, named = sys.argv[1], sys.argv[2].split()
    names = named or default_models(section)
    registry = load_registry()
    apart = [entry for name in names if (entry := registry.models[name]).shipped is None]
    pull([entry.name for entry in apart])
    WEIGHTS.mkdir()
    CONFIGURATION.mkdir()
    for entry in apart:
        shutil.copytree(Store(cache_folder()).folder(entry), Store(WEIGHTS).folder(entry))
    if named:
        (CONFIGURATION / "sluiceway.toml").write_text(configuration(section, named), encoding="utf-8")
    print(f"{section}: {', '.join(names)}")


if __name__ == "__main__":
    main()
