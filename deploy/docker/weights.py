"""Put the weights of one service into a folder of an image: `python weights.py SECTION FOLDER "NAME NAME"`.

Without names it takes the models that the service's own configuration has as defaults, so that an image starts without
being told anything. Downloads go to the cache, which outlives the build; weights that ship inside the package stay there.
"""

import importlib
import shutil
import sys
from pathlib import Path

from sluiceway_runtime.weights import cache_folder, load_registry, pull
from sluiceway_runtime.weights.store import Store

CONFIG = {"detection": "DetectionConfig", "recognition": "RecognitionConfig"}


def default_models(section: str) -> list[str]:
    """Return the names that the configuration model of a service starts with."""
    model = getattr(importlib.import_module(f"sluiceway_{section}.config"), CONFIG[section])
    fields = model.model_fields
    default = fields["models" if "models" in fields else "model"].get_default(call_default_factory=True)
    served = default if isinstance(default, list | tuple) else [default]
    # A model has a name of its own; its weights are those of that name unless it says otherwise.
    return [model if isinstance(model, str) else model.weights or model.name for model in served]


def main() -> None:
    """Pull and copy."""
    section, folder, names = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split()
    registry = load_registry()
    names = names or default_models(section)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [registry.models[name] for name in names]
    apart = [entry for entry in wanted if entry.shipped is None]
    pull([entry.name for entry in apart], lambda progress: None)
    for entry in apart:
        shutil.copytree(Store(cache_folder()).folder(entry), Store(folder).folder(entry))
    print(f"{section}: {', '.join(names)}")


if __name__ == "__main__":
    main()
