"""ONNX's own tests of its operators, and what the conversion to torch makes of each of them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["Case", "Way", "cases", "outcome", "standard_operators"]

STANDARD = ("", "ai.onnx")
# Files beside the tests that onnx makes in memory: exports in opsets of old.
FOLDERS = ("pytorch-converted", "pytorch-operator", "simple")
# Half a unit in the last place of what is compared, where that is more than the tolerance of the case.
COARSE = {"bfloat16": 2**-6, "float16": 2**-9}


class Way(Enum):
    """Which inputs are known while the module is built, as initialisers of the file."""

    FLOWS = "flows"  # none
    KNOWN = "known"  # all but the first, as files have shapes, axes and weights
    FOLDED = "folded"  # all: nothing is left to compute


@dataclass(frozen=True)
class Case:
    """One graph, mostly of one node, with inputs and what has to come of them."""

    name: str
    model: onnx.ModelProto
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    rtol: float
    atol: float

    @property
    def operators(self) -> frozenset[str]:
        """All that are in it, with those of subgraphs."""
        return frozenset(_operators(self.model.graph))

    @property
    def ways(self) -> tuple[Way, ...]:
        """Those that differ."""
        arrays = all(isinstance(item, np.ndarray | np.generic) for item in self.inputs)
        fed = len(self.inputs) if arrays else 0
        return (Way.FLOWS, Way.KNOWN, Way.FOLDED)[: min(fed, 2) + 1] if fed != 1 else (Way.FLOWS, Way.FOLDED)


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _operators(inner)


@functools.cache
def cases() -> tuple[Case, ...]:
    """All of them: those of single operators, what these are made of, and the exports."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # their data are made at their borders
        made = load_model_tests(kind="node")
    found = [
        Case(item.name, item.model, *_arrays(item.data_sets[0]), rtol=item.rtol, atol=item.atol)
        for item in made
        if item.model is not None and item.data_sets
    ]
    for folder in FOLDERS:
        for item in load_model_tests(kind=folder):
            found += _of_folder(Path(item.model_dir), item.rtol, item.atol) if item.model_dir else []
    return tuple(found)


def _arrays(data: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Some of these tests bring their tensors as messages."""
    return [
        [numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value for value in values]
        for values in data
    ]


def _of_folder(folder: Path, rtol: float, atol: float) -> list[Case]:
    model = onnx.load(folder / "model.onnx")
    found = []
    for data in sorted(folder.glob("test_data_set_*")):
        inputs = [
            _read(data / f"input_{index}.pb", item)
            for index, item in enumerate(model.graph.input)
            if (data / f"input_{index}.pb").exists()
        ]
        outputs = [_read(data / f"output_{index}.pb", item) for index, item in enumerate(model.graph.output)]
        found.append(Case(folder.name + data.name.removeprefix("test_data_set"), model, inputs, outputs, rtol, atol))
    return found


def _read(path: Path, item: onnx.ValueInfoProto) -> Any:
    if item.type.WhichOneof("value") != "tensor_type":
        return None
    proto = onnx.TensorProto()
    proto.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(proto)


def standard_operators() -> frozenset[str]:
    """All that the standard has, without those that it has taken back."""
    return frozenset(
        schema.name for schema in onnx.defs.get_all_schemas() if schema.domain in STANDARD and not schema.deprecated
    )


def outcome(case: Case, way: Way, folder: Path) -> str:
    """Load a case and compute it.

    Returns:
        Nothing if that was right, the message of a refusal after "refused: ", or what was wrong after "wrong: ".
    """
    import torch
    from sluiceway_runtime.errors import StartupError
    from sluiceway_runtime.onnx_torch import load

    path, fed = folder / "case.onnx", {Way.FLOWS: len(case.inputs), Way.KNOWN: 1, Way.FOLDED: 0}[way]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    known = {item.name for item in model.graph.initializer}
    names = [item.name for item in model.graph.input if item.name not in known]
    for name, value in list(zip(names, case.inputs, strict=True))[fed:]:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    path.write_bytes(model.SerializeToString())
    shapes = {name: _shape(value) for name, value in zip(names[:fed], case.inputs, strict=False)}
    try:
        module = load(path, shapes)
    except StartupError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"wrong: to load it raised {error!r}"
    try:
        with torch.inference_mode():
            found = module(*map(_tensor, case.inputs[:fed]))
    except Exception as error:
        return f"wrong: to compute it raised {error!r}"
    results = list(found) if isinstance(found, tuple) else [found]
    return "; ".join(filter(None, (_difference(*pair, case) for pair in zip(results, case.outputs, strict=True))))


def _shape(value: Any) -> tuple[int, ...]:
    """A sequence has none, and neither has what is left out."""
    return () if value is None or isinstance(value, list) else tuple(np.shape(value))


def _tensor(value: Any) -> Any:
    import torch

    array = np.array(value)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(array)


def _difference(result: Any, expected: Any, case: Case) -> str:
    import torch

    expected = np.asarray(expected)
    type_name = str(result.dtype).removeprefix("torch.")
    if type_name != expected.dtype.name or tuple(result.shape) != expected.shape:
        return f"wrong: {type_name} {list(result.shape)}, not {expected.dtype.name} {list(expected.shape)}"
    if result.dtype == torch.bfloat16:
        result, expected = result.to(torch.float32), expected.astype(np.float32)
    rtol = max(case.rtol, COARSE.get(type_name, 0.0))
    if np.allclose(result.numpy(), expected, rtol=rtol, atol=case.atol, equal_nan=True):
        return ""
    far = np.abs(result.numpy().astype(np.float64) - expected.astype(np.float64)).max(initial=0)
    return f"wrong: as much as {far:g} from what it should be"
