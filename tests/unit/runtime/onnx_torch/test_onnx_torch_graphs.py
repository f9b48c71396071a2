"""ONNX graphs as modules: what is folded, what is refused, and whole models beside ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sluiceway_runtime import weights
from sluiceway_runtime.errors import StartupError

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]  # torch warns by itself

PICO = Path(__file__).parents[2] / "detection" / "models"
# A model, the shape to load it for, and whether its file is for a batch of one alone.
MODELS = [
    ("text-nano", (2, 3, 192, 256), True),
    ("text-small", (2, 3, 192, 256), False),
    ("coco-v8n", (2, 3, 640, 640), True),
    ("doclaynet-v8n", (1, 3, 1024, 1024), True),
    ("ppocrv6-tiny-det", (2, 3, 192, 256), False),
    ("ppocrv6-small-det", (2, 3, 192, 256), False),
    ("ppocrv5-mobile", (2, 3, 48, 320), False),
    ("ppocrv6-tiny", (2, 3, 48, 320), False),
    ("ppocrv6-small", (2, 3, 48, 320), False),
    ("yolo11-pico.onnx", (2, 3, 96, 64), False),
    ("yolo26-pico.onnx", (2, 3, 96, 64), False),
    ("yolo26-pico-nms-free.onnx", (3, 3, 96, 64), True),
]
W = np.ones((4, 3, 1, 1), np.float32)


def weights_of(name: str) -> Path:
    if not weights.is_available(name):
        weights.pull(name)
    return weights.resolve(name, kind=weights.load_registry().models[name].kind).path


def graph(tmp_path: Path, nodes: Any, shape: tuple[int, ...] = (1, 3, 4, 4), /, **options: Any) -> Path:
    from onnx_graphs import graph_of

    return graph_of(tmp_path / "graph.onnx", nodes, {"x": np.zeros(shape, np.float32)}, **options)


def load(path: Path, *shape: int) -> Any:
    from sluiceway_runtime.onnx_torch import load

    return load(path, {"x": shape})


@pytest.mark.parametrize(("name", "shape", "alone"), MODELS)
def test_models_equal_onnx_runtime(name: str, shape: tuple[int, ...], alone: bool) -> None:
    import onnx
    import torch
    from onnx_graphs import reference
    from sluiceway_runtime.onnx_torch import load

    path = PICO / name if name.endswith(".onnx") else weights_of(name)
    key = onnx.load(path, load_external_data=False).graph.input[0].name
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    parts = [x[row : row + 1] for row in range(len(x))] if alone else [x]
    expected = np.concatenate([reference(path, {key: part})[0] for part in parts])
    module = load(path, {key: shape})
    with torch.inference_mode():
        found = module(torch.from_numpy(x)).numpy()
    assert found.shape == expected.shape
    # Maps of noise hold probabilities of a thousandth, of which no digits are left to compare.
    assert np.abs(found - expected).max() < 1e-4 * max(np.abs(expected).max(), 0.01)


def exported(folder: Path, make: Callable[[], Any], shape: tuple[int, ...], *, dynamic: bool) -> tuple[Path, Any]:
    import torch

    torch.manual_seed(0)
    net = make().eval()
    options: dict[str, Any] = {"dynamic_axes": {"x": {0: "batch"}}} if dynamic else {}
    path = folder / "exported.onnx"
    torch.onnx.export(
        net, (torch.rand(shape),), str(path), input_names=["x"], output_names=["y"], dynamo=False, **options
    )
    return path, net


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "vit"])
def test_exports_of_torch(tmp_path: Path, name: str, dynamic: bool) -> None:
    import torch
    import torchvision

    def make() -> Any:
        if name != "vit":
            return getattr(torchvision.models, name)(weights=None, num_classes=10)
        net = torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=10)
        torch.nn.init.normal_(net.heads.head.weight)  # it begins as zero, and then nothing would be compared
        return net

    # The attention of torch is written down for the batch that it was exported with; the others take any.
    path, net = exported(tmp_path, make, (3 if name == "vit" else 1, 3, 32, 32), dynamic=dynamic)
    module = load(path, 3, 3, 32, 32)
    x = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        expected, found = net(x), module(x)
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_an_unknown_operator_is_named_with_its_node(tmp_path: Path) -> None:
    path = graph(tmp_path, [("NonZero", ["x"], ["y"], {})])
    with pytest.raises(StartupError, match=r"graph.onnx: ONNX node 'the_NonZero' \(NonZero, opset 17\): operator NonZ"):
        load(path, 1, 3, 4, 4)


def test_an_operator_of_another_domain_is_named(tmp_path: Path) -> None:
    path = graph(tmp_path, [("FusedConv", ["x"], ["y"], {"domain": "com.example"})])
    with pytest.raises(StartupError, match=r"operator FusedConv of domain com\.example is not supported"):
        load(path, 1, 3, 4, 4)


@pytest.mark.parametrize(
    ("nodes", "fault"),
    [
        ([("Cast", ["x"], ["n"], {"to": 7}), ("Reshape", ["x", "n"], ["y"], {})], "depends on the content of"),
        ([("Conv", ["x", "w"], ["y"], {"auto_pad": "SOME"})], "auto_pad SOME is not known"),
        ([("Conv", ["x", "w"], ["y"], {"group": 2})], "cannot be built"),
        ([("Selu", ["x"], ["y"], {"slope": 2.0})], "attribute slope is not supported"),
        ([("LRN", ["x"], ["y"], {"size": 3, "alpha": 0.5, "region": 1})], "attribute region is not supported"),
        ([("Gather", ["x", "far"], ["y"], {})], "lies outside"),
        ([("Relu", ["nobody"], ["y"], {})], "comes from nowhere"),
        ([("Split", ["x"], ["y", "z"], {"split": [1, 1], "axis": 2})], "do not make 4"),
        ([("Resize", ["x"], ["y"], {})], "neither scales nor sizes"),
        ([("Resize", ["x", "", "two"], ["y"], {"mode": "lanczos"})], "mode lanczos is not supported"),
        ([("Cast", ["x"], ["y"], {"to": 8})], "element type STRING is not supported"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_says_why(tmp_path: Path, nodes: Any, fault: str) -> None:
    constants = {"w": W, "far": np.array([9]), "two": np.array([1, 1, 2, 2], np.float32)}
    path = graph(tmp_path, nodes, constants=constants, opset=11)
    with pytest.raises(StartupError, match=rf"graph.onnx: ONNX node 'the_{nodes[-1][0]}'.*{fault}"):
        load(path, 1, 3, 4, 4)


@pytest.mark.parametrize("used", ["by a node", "by the graph", "by nobody"])
def test_an_output_that_is_not_given_may_be_named_but_not_used(tmp_path: Path, used: str) -> None:
    nodes = [("MaxPool", ["x"], ["pooled", "places"], {"kernel_shape": [2, 2]}), ("Neg", ["pooled"], ["y"], {})]
    if used == "by a node":
        nodes.append(("Neg", ["places"], ["z"], {}))
    path = graph(tmp_path, nodes, outputs=["y", "places"] if used == "by the graph" else ["y"])
    if used == "by nobody":
        assert load(path, 1, 3, 4, 4) is not None
        return
    with pytest.raises(StartupError, match=r"graph.onnx: ONNX node 'the_MaxPool'.*: output 2 is not supported"):
        load(path, 1, 3, 4, 4)


def test_an_output_that_is_nowhere_is_named(tmp_path: Path) -> None:
    path = graph(tmp_path, [("Relu", ["x"], ["y"], {})], outputs=["y", "nobody"])
    with pytest.raises(StartupError, match=r"graph.onnx: 'nobody' comes from nowhere"):
        load(path, 1, 3, 4, 4)


def test_an_attribute_may_say_what_it_says_if_left_out(tmp_path: Path) -> None:
    for saturate in (1, 0):
        path = graph(tmp_path, [("Cast", ["x"], ["y"], {"to": 10, "saturate": saturate})], opset=19)
        if saturate:
            assert load(path, 1, 3, 4, 4) is not None
            continue
        with pytest.raises(StartupError, match="attribute saturate is not supported"):
            load(path, 1, 3, 4, 4)


@pytest.mark.parametrize("name", ["and", "x.weight", "1", "class", "forward"])
def test_weights_may_have_any_name(tmp_path: Path, name: str) -> None:
    import torch

    path = graph(tmp_path, [("Conv", ["x", name], ["y"], {})], constants={name: W})
    with torch.inference_mode():
        assert load(path, 1, 3, 4, 4)(torch.ones(1, 3, 4, 4)).shape == (1, 4, 4, 4)


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 3, 4), (2, 4, 4, 4)])
def test_shapes_that_do_not_fit_the_file_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = graph(tmp_path, [("Relu", ["x"], ["y"], {})])
    with pytest.raises(StartupError, match=f"input x is 1x3x4x4, not {'x'.join(map(str, shape))}"):
        load(path, *shape)


def test_inputs_are_given_by_name(tmp_path: Path) -> None:
    from sluiceway_runtime.onnx_torch import load

    path = graph(tmp_path, [("Relu", ["x"], ["y"], {})])
    with pytest.raises(StartupError, match="has the inputs x; shapes are given for image"):
        load(path, {"image": (1, 3, 4, 4)})


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(StartupError, match=r"junk\.onnx cannot be read as ONNX"):
        load(path, 1)


def test_a_batch_that_the_graph_loses_is_refused(tmp_path: Path) -> None:
    nodes = [("ReduceMean", ["x"], ["y"], {"axes": [0]})]
    assert load(graph(tmp_path, nodes), 1, 3, 4, 4) is not None
    with pytest.raises(StartupError, match=r"was exported for a batch of 1, and of 2 it makes \[1, 3, 4, 4\]"):
        load(graph(tmp_path, nodes), 2, 3, 4, 4)


def test_arithmetic_on_shapes_is_folded_away(tmp_path: Path) -> None:
    nodes = [
        ("Shape", ["x"], ["shape"], {}),
        ("Gather", ["shape", "two"], ["height"], {}),
        ("Mul", ["height", "two"], ["twice"], {}),
        ("Unsqueeze", ["twice", "zero"], ["last"], {}),
        ("Concat", ["rest", "last"], ["wanted"], {"axis": 0}),
        ("Reshape", ["x", "wanted"], ["flat"], {}),
        ("Relu", ["flat"], ["y"], {}),
    ]
    constants = {"two": np.int64(2), "zero": np.array([0]), "rest": np.array([0, -1])}
    module = load(graph(tmp_path, nodes, constants=constants, dynamic=True), 2, 3, 4, 4)
    assert [node.op for node in module.graph.nodes] == ["placeholder", "call_function", "call_function", "output"]
    assert not list(module.parameters())
    assert not list(module.buffers())


def test_weights_keep_the_names_of_the_file(tmp_path: Path) -> None:
    nodes = [("Conv", ["x", "backbone.0.weight"], ["y"], {})]
    module = load(graph(tmp_path, nodes, constants={"backbone.0.weight": W}), 1, 3, 4, 4)
    assert [name for name, _ in module.named_parameters()] == ["backbone_0_weight"]


def test_weights_are_shared_between_shapes(tmp_path: Path) -> None:
    from sluiceway_runtime.onnx_torch import share_weights

    path = PICO / "yolo11-pico.onnx"
    from sluiceway_runtime.onnx_torch import load

    first, second = load(path, {"images": (1, 3, 96, 64)}), load(path, {"images": (1, 3, 64, 64)})
    share_weights(second, first)
    own = {id(parameter) for parameter in first.parameters()}
    apart = [parameter for parameter in second.parameters() if id(parameter) not in own]
    # The grid of anchors and its strides depend on the shape.
    assert sum(parameter.numel() for parameter in apart) < 0.01 * sum(p.numel() for p in second.parameters())


def test_half_precision_ends_where_the_matrix_work_ends(tmp_path: Path) -> None:
    import torch
    from sluiceway_runtime.onnx_torch import in_precision

    # 2049 is the first whole number that f16 does not have.
    wide = np.full((256, 3, 1, 1), 1 / 3, np.float32)
    nodes = [
        ("Conv", ["x", "w"], ["a"], {}),
        ("Add", ["a", "offset"], ["b"], {}),
        ("Mul", ["b", "one"], ["y"], {}),
    ]
    constants = {
        "w": wide,
        "offset": np.full((1, 256, 1, 1), 2048, np.float32),
        "one": np.ones((256, 1, 1), np.float32),
    }
    module = load(graph(tmp_path, nodes, constants=constants), 1, 3, 4, 4)
    half = in_precision(module, torch.bfloat16)
    assert {name: p.dtype for name, p in half.named_parameters()} == {
        "w": torch.bfloat16,
        "offset": torch.float32,
        "one": torch.float32,
    }
    with torch.inference_mode():
        found = half(torch.ones(1, 3, 4, 4))
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.full_like(found, 2049.0), atol=0.01)
    assert module.w.dtype == torch.float32
    assert in_precision(module, torch.float32) is module


def test_a_constant_of_both_parts_has_both_types(tmp_path: Path) -> None:
    import torch
    from sluiceway_runtime.onnx_torch import in_precision

    nodes = [("Mul", ["x", "c"], ["a"], {}), ("MatMul", ["a", "w"], ["b"], {}), ("Add", ["b", "c"], ["y"], {})]
    constants = {"c": np.arange(16, dtype=np.float32), "w": np.eye(16, dtype=np.float32)}
    module = load(graph(tmp_path, nodes, (1, 3, 4, 16), constants=constants), 1, 3, 4, 16)
    half = in_precision(module, torch.bfloat16)
    x = torch.ones(1, 3, 4, 16)
    with torch.inference_mode():
        assert torch.equal(half(x), module(x))
    types = sorted(str(parameter.dtype) for parameter in half.parameters())
    assert types == ["torch.bfloat16", "torch.bfloat16", "torch.float32"]


def test_modules_can_be_exported(tmp_path: Path) -> None:
    import torch
    from sluiceway_runtime.onnx_torch import in_precision, load

    module = in_precision(load(PICO / "yolo26-pico.onnx", {"images": (2, 3, 96, 64)}), torch.bfloat16)
    x = torch.rand(2, 3, 96, 64)
    program = torch.export.export(module, (x,), strict=False)
    with torch.inference_mode():
        assert torch.equal(program.module()(x), module(x))
