"""Each operator, with each of its attributes, computes what ONNX Runtime computes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]  # torch warns by itself


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


X = noise(2, 6, 9, 8)
ROW = noise(2, 6, 9)
POSITIVE = np.abs(X) + 0.1


def case(name: str, inputs: Any, *more: Any, **attributes: Any) -> Any:
    """An operator that takes `inputs`, which flow, and then the values of the dictionary in `more`, which are known.

    A number in `more` is the opset.
    """
    if not isinstance(inputs, dict):
        inputs = {"x": inputs}
    constants = next((item for item in more if isinstance(item, dict)), {})
    opset = next((item for item in more if isinstance(item, int)), 17)
    return pytest.param(name, inputs, constants, attributes, opset, id=f"{name}-{opset}")


W = noise(4, 6, 3, 3, seed=1)
CONVOLUTIONS = [
    case("Conv", X, {"w": W, "b": noise(4)}),
    case("Conv", X, {"w": W}, pads=[1, 1, 1, 1], strides=[2, 1]),
    case("Conv", X, {"w": W}, pads=[0, 1, 2, 0]),
    case("Conv", X, {"w": W}, dilations=[2, 1], pads=[2, 1, 2, 1]),
    case("Conv", X, {"w": noise(6, 2, 3, 3), "b": noise(6)}, group=3),
    case("Conv", X, {"w": noise(6, 1, 5, 5)}, group=6, pads=[2, 2, 2, 2]),
    case("Conv", X, {"w": W}, auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", X, {"w": W}, auto_pad="SAME_LOWER", strides=[2, 2]),
    case("Conv", X, {"w": noise(4, 6, 2, 4)}, auto_pad="SAME_LOWER"),
    case("Conv", X, {"w": W}, auto_pad="VALID"),
    case("Conv", ROW, {"w": noise(4, 6, 3)}, pads=[1, 1]),
    case("Conv", noise(1, 2, 4, 5, 6), {"w": noise(3, 2, 2, 2, 2)}),
    case("Conv", {"x": X, "w": W}),
    case("ConvTranspose", X, {"w": noise(6, 4, 2, 2), "b": noise(4)}, strides=[2, 2]),
    case("ConvTranspose", X, {"w": noise(6, 4, 3, 3)}, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    case("ConvTranspose", X, {"w": noise(6, 4, 3, 3), "b": noise(4)}, strides=[3, 2], pads=[1, 0, 0, 1]),
    case("ConvTranspose", X, {"w": noise(6, 4, 3, 3), "b": noise(4)}, strides=[2, 2], output_padding=[1, 1]),
    case("ConvTranspose", X, {"w": noise(6, 2, 3, 3)}, group=2, dilations=[2, 2]),
    case("ConvTranspose", X, {"w": noise(6, 4, 3, 3)}, strides=[2, 2], output_shape=[18, 16]),
    case("ConvTranspose", X, {"w": noise(6, 4, 3, 3)}, strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", X, {"w": noise(6, 4, 3, 3)}, strides=[2, 2], auto_pad="SAME_LOWER"),
    case("ConvTranspose", ROW, {"w": noise(6, 4, 3)}, strides=[2]),
]
POOLS = [
    case("MaxPool", X, kernel_shape=[3, 3]),
    case("MaxPool", X, kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
    case("MaxPool", X, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", X, kernel_shape=[3, 2], strides=[2, 1], pads=[0, 0, 1, 1]),
    case("MaxPool", X, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("MaxPool", X, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
    case("MaxPool", X, kernel_shape=[3, 3], dilations=[2, 2]),
    case("MaxPool", ROW, kernel_shape=[3]),
    case("AveragePool", X, kernel_shape=[3, 3]),
    case("AveragePool", X, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    case("AveragePool", X, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", X, kernel_shape=[3, 3], pads=[0, 1, 1, 0], strides=[2, 2]),
    case("AveragePool", X, kernel_shape=[3, 3], pads=[0, 1, 1, 0], strides=[2, 2], count_include_pad=1),
    case("AveragePool", X, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("AveragePool", X, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1),
    case("AveragePool", X, kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("AveragePool", ROW, kernel_shape=[2], strides=[2]),
    case("GlobalAveragePool", X),
    case("GlobalMaxPool", X),
]
NORMS = [
    case(
        "BatchNormalization", X, {"s": noise(6), "b": noise(6), "m": noise(6), "v": POSITIVE[0, :, 0, 0]}, epsilon=1e-3
    ),
    case("LayerNormalization", X, {"s": noise(8), "b": noise(8)}, epsilon=1e-4),
    case("LayerNormalization", X, {"s": noise(9, 8)}, axis=2),
    case("InstanceNormalization", X, {"s": noise(6), "b": noise(6)}, epsilon=1e-4),
    case("GroupNormalization", X, {"s": noise(3), "b": noise(3)}, 18, num_groups=3),
    case("GroupNormalization", X, {"s": noise(6), "b": noise(6)}, 21, num_groups=3),
    case("LRN", X, size=3, alpha=0.1, beta=0.5, bias=2.0),
    case("LpNormalization", X, axis=1, p=2),
]
MATRICES = [
    case("MatMul", noise(2, 3, 4), {"w": noise(4, 5)}),
    case("MatMul", {"x": noise(2, 3, 4), "w": noise(2, 4, 5)}),
    case("MatMul", noise(4), {"w": noise(4, 5)}),
    case("Gemm", noise(3, 4), {"w": noise(4, 5), "b": noise(5)}),
    case("Gemm", noise(3, 4), {"w": noise(5, 4), "b": noise(5)}, transB=1),
    case("Gemm", noise(4, 3), {"w": noise(4, 5)}, transA=1, alpha=0.5),
    case("Gemm", noise(3, 4), {"w": noise(4, 5), "b": noise(3, 1)}, alpha=2.0, beta=0.5),
    case("Einsum", {"x": noise(2, 3, 4), "w": noise(4, 5)}, equation="bij,jk->bik"),
]
SMOOTH = [
    "Sqrt",
    "Log",
    "Reciprocal",
    "Exp",
    "Floor",
    "Ceil",
    "Abs",
    "Neg",
    "Erf",
    "Sigmoid",
    "Tanh",
    "Relu",
    "Softplus",
]
SMOOTH += ["Softsign", "Sin", "Cos", "Sign"]
SIMPLE = [case(name, POSITIVE) for name in SMOOTH]
SIMPLE += [
    case("HardSwish", X),
    case("Mish", X, 18),
    case("Gelu", X, 20),
    case("Gelu", X, 20, approximate="tanh"),
    case("Round", np.array([-1.5, -0.5, 0.5, 1.5, 2.4], np.float32)),
    case("LeakyRelu", X, alpha=0.2),
    case("Elu", X, alpha=0.5),
    case("Celu", X, alpha=0.5),
    case("Selu", X),
    case("ThresholdedRelu", X, alpha=0.3),
    case("PRelu", X, {"s": noise(6, 1, 1)}),
    case("HardSigmoid", X),
    case("HardSigmoid", X, alpha=1 / 6, beta=0.4),
    case("Softmax", X),
    case("Softmax", X, axis=1),
    case("Softmax", X, 11),
    case("Softmax", X, 11, axis=3),
    case("Softmax", X, 11, axis=2),
    case("LogSoftmax", X, axis=1),
    case("Clip", X, {"a": np.float32(-0.5), "b": np.float32(0.5)}),
    case("Clip", X, {"a": None, "b": np.float32(0.5)}),
    case("Clip", X, 6, min=-0.2, max=0.1),
    case("Clip", X),
    case("Identity", X),
    case("Dropout", X),
    case("Cast", X, to=7),
    case("Cast", np.arange(4), to=1),
    case("CastLike", X, {"l": whole(1)}),
    case("IsNaN", np.array([1, np.nan], np.float32)),
    case("Not", np.array([True, False])),
]
PAIRS = [
    *(case(name, {"x": POSITIVE, "w": noise(6, 1, 8)}) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min")),
    *(case(name, X, {"w": np.float32(0.5)}) for name in ("Add", "Sub", "Mul", "Div", "Greater", "Less", "Equal")),
    *(case(name, POSITIVE, {"w": np.array([0.5], np.float32)}) for name in ("GreaterOrEqual", "LessOrEqual", "Pow")),
    case("Add", np.float32(2), {"w": noise(1, 1)}),
    case("Div", np.arange(-7, 8), {"w": np.int64(3)}),
    case("Div", {"x": np.arange(-7, 8), "w": np.array([-2])}),
    case("Mod", np.arange(-7, 8), {"w": np.int64(3)}),
    case("Mod", X, {"w": np.float32(0.3)}, fmod=1),
    case("Pow", np.arange(5), {"w": np.float32(2)}),
    case("Pow", POSITIVE, {"w": noise(8)}),
    case("Sum", {"x": X, "w": noise(8), "v": noise(1)}),
    case("Mean", {"x": X, "w": noise(8)}),
    case("Max", {"x": X, "w": noise(8), "v": noise(1)}),
    case("And", {"x": np.array([True, False]), "w": np.array([True])}),
    case("Or", {"x": np.array([True, False]), "w": np.array([False])}),
    case("Xor", {"x": np.array([True, False]), "w": np.array([True])}),
    case("Where", {"c": X > 0, "x": X, "w": noise(8)}),
]
LINEAR = ("ReduceMean", "ReduceMax", "ReduceMin")
REDUCTIONS = [
    case(name, POSITIVE, axes=[1, -1], keepdims=keep)
    for name in (*LINEAR, "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
    for keep in (0, 1)
]
REDUCTIONS += [
    case("ReduceSum", X, {"axes": whole(-1, 1)}, keepdims=0),
    case("ReduceSum", X),
    case("ReduceSum", X, 11, axes=[2]),
    case("ReduceSum", X, {"axes": whole()}, noop_with_empty_axes=1),
    case("ReduceMean", X, {"axes": whole(2, 3)}, 18),
    case("ReduceMax", X, {"axes": whole(1)}, 18, keepdims=0),
    case("ArgMax", X, axis=1),
    case("ArgMax", X, axis=-1, keepdims=0),
    case("ArgMax", np.array([[1, 3, 3, 2]], np.float32), axis=1, select_last_index=1),
    case("ArgMin", X),
    case("CumSum", X, {"axis": np.int64(2)}),
    case("Trilu", X, {"k": np.int64(1)}, upper=0),
    case("Trilu", X),
]
RESIZES = [
    case("Resize", X, {"r": None, "s": np.array([1, 1, 2, 2], np.float32)}, mode="nearest", nearest_mode=rounding,
         coordinate_transformation_mode=transformation)
    for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    for transformation in ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel")
]  # fmt: skip
RESIZES += [
    case("Resize", X, {"r": None, "s": None, "z": whole(2, 6, 13, 5)}, mode=mode,
         coordinate_transformation_mode=transformation, cubic_coeff_a=-0.5)
    for mode in ("nearest", "linear", "cubic")
    for transformation in ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel")
]  # fmt: skip
RESIZES += [
    case("Resize", X, {"r": None, "s": np.array([1, 1, 1.7, 0.6], np.float32)}, mode="linear"),
    case("Resize", X, {"r": None, "s": np.array([1, 1, 0.5, 0.5], np.float32)}, mode="cubic", exclude_outside=1),
    case("Resize", X, {"r": None, "s": np.array([1, 1, 1.3, 2.6], np.float32)}, mode="nearest"),
    case("Resize", X, {"s": np.array([1, 1, 2, 3], np.float32)}, 10, mode="nearest"),
    case("Resize", X, {"r": None, "s": np.array([2, 2], np.float32)}, 18, mode="nearest", axes=[2, 3]),
    case("Resize", X, {"r": None, "s": None, "z": whole(18, 18)}, 18, axes=[2, 3],
         keep_aspect_ratio_policy="not_larger"),
    case("Resize", X, {"r": None, "s": np.array([1, 1, 1.5, 0.5], np.float32)}, 19, mode="linear",
         coordinate_transformation_mode="half_pixel_symmetric"),
    case("Upsample", X, {"s": np.array([1, 1, 2, 2], np.float32)}, 9, mode="nearest"),
]  # fmt: skip

LAYOUTS = [
    case("Reshape", X, {"s": whole(0, -1, 8)}),
    case("Reshape", X, {"s": whole(-1)}),
    case("Reshape", np.zeros((0, 3), np.float32), {"s": whole(3, 0)}, allowzero=1),
    case("Flatten", X),
    case("Flatten", X, axis=-1),
    case("Flatten", X, axis=0),
    case("Transpose", X),
    case("Transpose", X, perm=[0, 2, 3, 1]),
    case("Squeeze", noise(1, 3, 1, 2)),
    case("Squeeze", noise(1, 3, 1, 2), {"a": whole(-2)}),
    case("Squeeze", noise(1, 3, 1, 2), 11, axes=[0]),
    case("Unsqueeze", ROW, {"a": whole(0, -1)}),
    case("Unsqueeze", ROW, 11, axes=[1, 3]),
    case("Concat", {"x": X, "w": noise(2, 2, 9, 8)}, axis=1),
    case("Concat", {"x": X, "w": X}, axis=-1),
    case("Slice", X, {"s": whole(1, 0), "e": whole(5, 100), "a": whole(1, 3), "t": whole(2, 3)}),
    case("Slice", X, {"s": whole(-1), "e": whole(-100), "a": whole(2), "t": whole(-1)}),
    case("Slice", X, {"s": whole(7), "e": whole(1), "a": whole(-2), "t": whole(-3)}),
    case("Slice", X, {"s": whole(100), "e": whole(-(2**63)), "a": whole(3), "t": whole(-2)}),
    case("Slice", X, {"s": whole(-3), "e": whole(2**63 - 1), "a": whole(1)}),
    case("Slice", X, {"s": whole(0, 1), "e": whole(1, 3)}),
    case("Slice", X, {"s": whole(4), "e": whole(2), "a": whole(1)}),
    case("Slice", X, 9, starts=[1, -3], ends=[4, 2000], axes=[1, 2]),
    case("Gather", X, {"i": whole(0, -1, 2)}, axis=1),
    case("Gather", X, {"i": np.int64(-2)}, axis=2),
    case("Gather", X, {"i": np.array([[0, 1], [3, -1]])}, axis=3),
    case("Gather", {"x": X, "i": np.array([[0, -1]])}, axis=1),
    case("Gather", X, {"i": whole(2, 3, 4)}, axis=1),
    case("GatherElements", {"x": X, "i": np.array([[[[0, -1, 3]]]])}, axis=3),
    case("GatherND", {"x": ROW, "i": np.array([[0, 1], [1, -1]])}),
    case("GatherND", {"x": ROW, "i": np.array([[[2], [3]], [[0], [-1]]])}, batch_dims=1),
    case("GatherND", {"x": ROW, "i": np.array([[0, 1, 2], [1, 5, -1]])}),
    case("ScatterElements", {"x": noise(3, 4), "i": np.array([[1, -1]]), "u": noise(1, 2)}, axis=1),
    case("ScatterElements", {"x": noise(3, 4), "i": np.array([[1, 1]]), "u": noise(1, 2)}, 16, axis=1, reduction="add"),
    case("Expand", noise(3, 1), {"s": whole(2, 1, 4)}),
    case("Expand", ROW, {"s": whole(1)}),
    case("Tile", ROW, {"r": whole(1, 2, 3)}),
    case("Pad", X, {"p": whole(0, 0, 1, 2, 0, 1, 0, -1), "v": np.float32(7)}),
    case("Pad", X, {"p": whole(0, 0, 3, 2, 0, 0, 4, 1)}, mode="reflect"),
    case("Pad", X, {"p": whole(0, 1, 3, 2, 0, 0, 4, 1)}, mode="edge"),
    case("Pad", X, {"p": whole(1, 2, 2, 1), "v": np.float32(0), "a": whole(2, -1)}, 18),
    case("Pad", X, {"p": whole(0, 0, 1, 2, 0, 0, 3, 1)}, 19, mode="wrap"),
    case("Pad", X, 2, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.5),
    case("DepthToSpace", noise(2, 8, 3, 4), blocksize=2),
    case("DepthToSpace", noise(2, 8, 3, 4), blocksize=2, mode="CRD"),
    case("SpaceToDepth", noise(2, 3, 4, 6), blocksize=2),
    case("Shape", X),
    case("Shape", X, start=1, end=-1),
    case("Size", X),
    case("EyeLike", noise(3, 4), k=1),
    case("ConstantOfShape", {}, {"s": whole(2, 3)}),
    case("Range", {}, {"a": np.int64(7), "b": np.int64(1), "c": np.int64(-2)}),
]  # fmt: skip
ALL = CONVOLUTIONS + POOLS + NORMS + MATRICES + SIMPLE + PAIRS + REDUCTIONS + RESIZES + LAYOUTS


@pytest.mark.parametrize(("name", "inputs", "constants", "attributes", "opset"), ALL)
def test_computes_what_onnx_runtime_computes(
    tmp_path: Path, name: str, inputs: Any, constants: Any, attributes: Any, opset: int
) -> None:
    names = [*inputs, *(key if value is not None else "" for key, value in constants.items())]
    known = {key: np.asarray(value) for key, value in constants.items() if value is not None}
    compare(tmp_path, [(name, names, ["y"], attributes)], inputs, known, opset)


SEVERAL = [
    ("Split", ["x"], {"axis": 1}, 3, 17, None),
    ("Split", ["x", "s"], {"axis": -1}, 2, 17, whole(3, 5)),
    ("Split", ["x"], {"axis": 2, "split": [2, 3, 4]}, 3, 11, None),
    ("Split", ["x"], {"axis": 3, "num_outputs": 3}, 3, 18, None),
    ("TopK", ["x", "s"], {"axis": 1}, 2, 17, whole(3)),
    ("TopK", ["x", "s"], {"largest": 0}, 2, 17, whole(8)),
    ("TopK", ["x"], {"k": 2, "axis": 2}, 2, 9, None),
]


@pytest.mark.parametrize(("name", "names", "attributes", "count", "opset", "known"), SEVERAL)
def test_operators_with_several_results(
    tmp_path: Path, name: str, names: list[str], attributes: Any, count: int, opset: int, known: Any
) -> None:
    outputs = [f"y{index}" for index in range(count)]
    constants = {} if known is None else {"s": known}
    compare(tmp_path, [(name, names, outputs, attributes)], {"x": X}, constants, opset, outputs)


CONSTANTS = {"value_float": 1.5, "value_floats": [1.0, 2.0], "value_int": 3, "value_ints": [4, 5]}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_constants_of_every_kind(tmp_path: Path, kind: str) -> None:
    nodes = [("Constant", [], ["c"], {kind: CONSTANTS[kind]}), ("Add", ["x", "c"], ["y"], {})]
    x = np.zeros((3, 2), np.int64 if "int" in kind else np.float32)
    compare(tmp_path, nodes, {"x": x}, {}, 17)


def compare(folder: Path, nodes: Any, inputs: Any, constants: Any, opset: int, outputs: Sequence[str] = ("y",)) -> None:
    import torch
    from onnx_graphs import graph_of, reference
    from sluiceway_runtime.onnx_torch import load

    inputs = {key: np.asarray(value) for key, value in inputs.items()}
    path = graph_of(folder / "graph.onnx", nodes, inputs, constants, opset=opset, outputs=outputs)
    module = load(path, {key: value.shape for key, value in inputs.items()})
    found = module(*(torch.from_numpy(value) for value in inputs.values()))
    expected = reference(path, inputs)
    results = [found] if len(outputs) == 1 else list(found)
    assert len(results) == len(expected)
    for result, right in zip(results, expected, strict=True):
        assert result.numpy().dtype == right.dtype
        assert tuple(result.shape) == right.shape
        scale = float(np.abs(right).max(initial=1)) if right.dtype.kind == "f" else 1.0
        np.testing.assert_allclose(result.numpy(), right, atol=2e-6 * scale, rtol=2e-5)
