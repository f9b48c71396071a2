"""The conversion is held to ONNX's own tests: each is computed rightly, or is refused as `refused.toml` says.

A refusal that the table does not have is a fault, and so is one in the table that is none any more.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

# Torch warns by itself. Making the tests takes half a minute on a busy machine.
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]

TABLE = tomllib.loads((Path(__file__).parent / "refused.toml").read_text(encoding="utf-8"))


def listed(operator: str) -> dict[str, str]:
    """What the table says of an operator's cases: by `case/way`, the words of its refusal."""
    found: dict[str, str] = {}
    for entry in TABLE["refused"]:
        if entry["operator"] == operator:
            for case in entry["cases"]:
                for way in entry["ways"]:
                    assert f"{case}/{way}" not in found, f"{case}/{way} is listed twice"
                    found[f"{case}/{way}"] = entry["says"]
    return found


def differences(operator: str, cases: Any, folder: Path) -> list[str]:
    """Where what happens is not what has to happen."""
    from onnx_node_tests import outcome

    expected, found = listed(operator), []
    for case in cases:
        for way in case.ways:
            name = f"{case.name}/{way.value}"
            said = expected.pop(name, None)
            happened = outcome(case, way, folder)
            if said is None and happened:
                found.append(f"{name}: {happened}")
            elif said is not None and not happened.startswith("refused: "):
                found.append(f"{name}: is listed, and is {happened or 'computed'}")
            elif said is not None and said not in happened:
                found.append(f"{name}: is listed with {said!r}, and is {happened}")
    return found + [f"{name}: is listed, and there is no such case" for name in expected]


@pytest.mark.parametrize("operator", TABLE["known"])
def test_node_tests_of_an_operator(operator: str, tmp_path: Path) -> None:
    from onnx_node_tests import cases

    own = [case for case in cases() if case.operators == {operator}]
    assert own, "ONNX has no test of it alone"
    assert differences(operator, own, tmp_path) == []


def test_graphs_of_known_operators(tmp_path: Path) -> None:
    """What ONNX expands its functions to, and exports."""
    from onnx_node_tests import cases

    known = set(TABLE["known"])
    several = [case for case in cases() if len(case.operators) != 1 and case.operators <= known]
    assert len(several) > 100
    assert differences("several", several, tmp_path) == []


def test_whatever_has_an_unknown_operator_is_refused_by_its_name(tmp_path: Path) -> None:
    from onnx_node_tests import Way, cases, outcome

    known, wrong = set(TABLE["known"]), []
    for case in cases():
        if unknown := case.operators - known:
            said = outcome(case, Way.FLOWS, tmp_path)
            if not said.startswith("refused: "):
                wrong.append(f"{case.name} with {unknown}: {said or 'computed'}")
    assert wrong == []


def test_the_table_has_every_operator_of_the_standard() -> None:
    from onnx_node_tests import standard_operators
    from sluiceway_runtime.onnx_torch.operation import OPERATORS

    known, unknown = set(TABLE["known"]), set(TABLE["unknown"])
    assert known == set(OPERATORS)
    assert unknown == standard_operators() - known
    assert {entry["operator"] for entry in TABLE["refused"]} <= known | {"several"}


def test_what_is_newer_than_these_tests_is_refused(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx_graphs import graph_of
    from sluiceway_runtime.errors import StartupError
    from sluiceway_runtime.onnx_torch import load
    from sluiceway_runtime.onnx_torch.graph import NEWEST_OPSET

    assert onnx.defs.onnx_opset_version() == NEWEST_OPSET
    x = {"x": np.zeros(3, np.float32)}
    load(graph_of(tmp_path / "newest.onnx", [("Relu", ["x"], ["y"], {})], x, opset=NEWEST_OPSET), {"x": (3,)})
    path = graph_of(tmp_path / "newer.onnx", [("Relu", ["x"], ["y"], {})], x, opset=NEWEST_OPSET + 1)
    with pytest.raises(StartupError, match=rf"newer\.onnx: opset {NEWEST_OPSET + 1} is not supported"):
        load(path, {"x": (3,)})
