"""How a process makes a module. Builder processes make the same one, so what travels is the recipe, not the module."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from sluiceway_runtime.gpu.shapes import Shape

__all__ = ["Maker", "Recipe"]

# Of torch: the module for a shape, on its device, in evaluation mode.
Maker = Callable[[Shape], Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A module by the name of what makes it.

    Attributes:
        factory: `module:callable`. Called with a `torch.device` and the arguments, it returns a `Maker`: a function
            from a shape to a `torch.nn.Module` that takes the arrays of the shape as tensors and returns a tuple of
            tensors, the first dimension of each the batch. Shapes may share one module and its weights.
        arguments: keyword arguments of the callable; what JSON can hold.
        identity: what else the values depend on, such as the hash of a weights file.
        code: modules and packages by which the values are computed. Their source text is part of the artefacts' key.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict)
    code: tuple[str, ...] = ()

    def make(self, device: Any) -> Maker:
        """Call the factory. Raises whatever it raises."""
        module_name, _, attribute = self.factory.partition(":")
        factory = getattr(importlib.import_module(module_name), attribute)
        return cast("Maker", factory(device, **self.arguments))

    def facts(self) -> dict[str, str]:
        """All that an artefact depends on, this side of torch and the device."""
        return {
            "factory": self.factory,
            "arguments": json.dumps(dict(self.arguments), sort_keys=True),
            **{f"identity.{key}": value for key, value in self.identity.items()},
            **{f"code.{name}": _source_digest(name) for name in self.code},
        }

    def to_json(self) -> dict[str, Any]:
        """For a builder process."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(**{**values, "code": tuple(values["code"])})


def _source_digest(name: str) -> str:
    """A hash of the source text of a module, or of all modules of a package."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {name}", name=name)
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    digest = hashlib.sha256()
    for path in files:
        text = path.read_bytes()
        digest.update(f"{path.relative_to(origin.parent)} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()
