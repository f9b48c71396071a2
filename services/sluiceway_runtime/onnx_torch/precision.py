"""A module in half precision where it counts: matrix work in 16 bits, and what follows the last of it in 32."""

from __future__ import annotations

import copy
import operator

import torch
from torch import fx, nn
from torch.nn import functional

from sluiceway_runtime.onnx_torch.operators.elementwise import cast

__all__ = ["in_precision"]

_HEAVY = {
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
    functional.linear,
    torch.matmul,
    torch.einsum,
}
# A convolution with less is arithmetic in disguise, such as the expectation over 16 places in a YOLO head.
_LEAST_WEIGHTS = 256


def in_precision(module: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """A copy of a module of `load` that computes in another precision.

    All up to the last matrix product is in `dtype`. What comes after is in float32, and so are the results: boxes of
    hundreds of pixels, which 16 bits tell apart by halves of a pixel, and probabilities. Inputs may be of any floating
    type.

    Args:
        module: in float32; unchanged. Weights that keep their type are shared with it.
        dtype: float16 or bfloat16; with float32 the module itself comes back.
    """
    if dtype == torch.float32:
        return module
    graph = copy.deepcopy(module.graph)
    body = _body(graph, module)
    root = nn.Module()
    for node in list(graph.nodes):
        if node.op == "get_attr":
            _constant(graph, node, body, root, getattr(module, str(node.target)), dtype)
        elif node.op != "output" and node in body:
            _computed(graph, node, body, dtype)
    graph.lint()
    return fx.GraphModule(root, graph, class_name=type(module).__name__).eval()


def _body(graph: fx.Graph, module: nn.Module) -> set[fx.Node]:
    """The matrix products and all that they depend on."""
    body: set[fx.Node] = set()
    waiting = [node for node in graph.nodes if _is_heavy(node, module)]
    while waiting:
        node = waiting.pop()
        if node not in body:
            body.add(node)
            waiting.extend(node.all_input_nodes)
    # Parts of a result that has several come with it.
    return body | {node for node in graph.nodes if node.target is operator.getitem and node.args[0] in body}


def _is_heavy(node: fx.Node, module: nn.Module) -> bool:
    if node.op != "call_function" or node.target not in _HEAVY:
        return False
    weights = node.args[1]
    if isinstance(weights, fx.Node) and weights.op == "get_attr":
        return int(getattr(module, str(weights.target)).numel()) >= _LEAST_WEIGHTS
    return True


def _constant(  # noqa: PLR0917 - a step of the function above
    graph: fx.Graph, node: fx.Node, body: set[fx.Node], root: nn.Module, tensor: torch.Tensor, dtype: torch.dtype
) -> None:
    """Give a constant the type of whoever uses it; both types if both parts do."""
    name = str(node.target)
    if not isinstance(tensor, nn.Parameter):
        root.register_buffer(name, tensor)
        return
    inside = [user for user in node.users if user in body]
    outside = [user for user in node.users if user not in body]
    if tensor.dtype != torch.float32 or not inside:
        root.register_parameter(name, tensor)
        return
    root.register_parameter(name, nn.Parameter(tensor.to(dtype), requires_grad=False))
    if outside:
        root.register_parameter(f"{name}_float32", tensor)
        with graph.inserting_after(node):
            exact = graph.get_attr(f"{name}_float32")
        for user in outside:
            user.replace_input_with(node, exact)


def _computed(graph: fx.Graph, node: fx.Node, body: set[fx.Node], dtype: torch.dtype) -> None:
    """Keep a result of the body in its type, and hand it out to the rest in float32."""
    if node.target is cast and node.args[1] == torch.float32:
        node.args = (node.args[0], dtype)
    if node.meta.get("dtype") != torch.float32:
        return
    inside = [user for user in node.users if user in body]
    outside = [user for user in node.users if user not in body]
    if node.op == "placeholder" and inside:
        with graph.inserting_after(node):
            rounded = graph.call_function(cast, (node, dtype))
        for user in inside:
            user.replace_input_with(node, rounded)
    if outside:
        with graph.inserting_after(node):
            exact = graph.call_function(cast, (node, torch.float32))
        for user in outside:
            user.replace_input_with(node, exact)
