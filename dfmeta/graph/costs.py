"""What a graph costs: parameters, multiply-accumulates, bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from dfmeta.errors import GraphError
from dfmeta.graph.inference import node_label
from dfmeta.graph.load import Graph


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of one graph.

    Attributes:
        parameters: elements of all learned weights.
        macs: multiply-accumulates of convolutions and matrix products for one input item.
        bytes: size of the serialized graph.
    """

    parameters: int
    macs: int
    bytes: int


def costs(graph: Graph) -> Costs:
    """Costs of ``graph`` from its inferred shapes.

    Counted are Conv, ConvTranspose, Gemm and MatMul, in their quantized spellings too; additions of a bias
    and elementwise work are not. A free axis counts as 1, so a free batch gives the cost of one item; a
    static batch is divided out.

    Raises:
        GraphError: a counted node whose shapes inference does not know.
    """
    total = sum(node_macs(graph, node, index) for index, node in enumerate(graph.model.graph.node))
    batch = {value.shape[0] for value in graph.inputs if value.shape}
    items = next(iter(batch)) if len(batch) == 1 else 1
    per_item = total // items if isinstance(items, int) and items > 0 else total
    return Costs(graph.parameter_count, per_item, len(graph.raw))


# Operator -> (position of the data input, of the weight input).
_OPERANDS = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}


def node_macs(graph: Graph, node: onnx.NodeProto, index: int) -> int:
    """Multiply-accumulates of one node, a static batch included; 0 for operators that are not counted.

    Args:
        graph: with inferred shapes; a free axis counts as 1.
        node: of it.
        index: its place, for messages.

    Raises:
        GraphError: as :func:`costs`.
    """
    if node.op_type not in _OPERANDS:
        return 0
    data, weight = (_sizes(graph, node.input[place], node, index) for place in _OPERANDS[node.op_type])
    output = _sizes(graph, node.output[0], node, index)
    if node.op_type == "ConvTranspose":
        return math.prod(data) * math.prod(weight[1:])
    if "Conv" in node.op_type:
        return math.prod(output) * math.prod(weight[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(output) * (data[0] if transposed else data[-1])


def _sizes(graph: Graph, name: str, node: onnx.NodeProto, index: int) -> list[int]:
    shape = graph.value(name).shape
    if not shape:
        raise GraphError(
            f"{graph.where}: {node_label(node, index)}",
            f"no inferred shape for {name!r}",
            "known shapes",
            "Export the graph with static shapes.",
        )
    return [size if isinstance(size, int) else 1 for size in shape]
