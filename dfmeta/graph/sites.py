"""Where statistics are taken: the values right after each weight operator, before the activation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import onnx

from dfmeta.graph.load import Graph

_WEIGHT_OPERATORS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_VIEWS: Final = frozenset({"Transpose", "Reshape", "Identity", "Cast", "DequantizeLinear", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, slots=True)
class SiteValue:
    """One pre-activation value.

    Attributes:
        value: its name in the graph.
        label: the weight operator's node name, or its operator and place among its like (``Conv_3``).
        op: the weight operator.
        feature_axis: axis of the features: 1 after a convolution, the last after a matrix product.
        weight: name of the initializer that holds the weight.
    """

    value: str
    label: str
    op: str
    feature_axis: int
    weight: str


def weight_sites(graph: Graph) -> tuple[SiteValue, ...]:
    """Pre-activation values of all weight operators, in the graph's own order.

    A site is the output of a Conv, ConvTranspose, Gemm or MatMul with a constant weight; or, where the only
    reader of that output is an Add of a constant, the output of that Add (the bias belongs to the layer).
    """
    protos = graph.model.graph.node
    sources = _sources(graph)
    readers = _readers(graph)
    seen: Counter[str] = Counter()
    sites = []
    for node in protos:
        if node.op_type not in _WEIGHT_OPERATORS:
            continue
        label = node.name or f"{node.op_type}_{seen[node.op_type]}"
        seen[node.op_type] += 1
        weight = _weight(node, sources)
        if weight is None:
            continue
        value = _after_bias(node.output[0], readers, sources, graph)
        sites.append(SiteValue(value, label, node.op_type, _feature_axis(graph, node), weight))
    return tuple(sites)


def _sources(graph: Graph) -> dict[str, str]:
    """Value name to the initializer it is a mere view of (through DequantizeLinear too)."""
    sources = {name: name for name in graph.initializer_names}
    for node in graph.model.graph.node:
        if node.op_type == "Constant":
            sources[node.output[0]] = node.output[0]
        elif node.op_type in _VIEWS and node.input[0] in sources:
            sources[node.output[0]] = sources[node.input[0]]
    return sources


def _readers(graph: Graph) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _weight(node: onnx.NodeProto, sources: dict[str, str]) -> str | None:
    if len(node.input) < 2 or (node.input[0] in sources and node.input[1] in sources):
        return None
    if node.input[1] in sources:
        return sources[node.input[1]]
    if node.op_type in ("MatMul", "Gemm"):
        return sources.get(node.input[0])
    return None


def _after_bias(value: str, readers: dict[str, list[onnx.NodeProto]], sources: dict[str, str], graph: Graph) -> str:
    uses = readers.get(value, [])
    if value in {output.name for output in graph.outputs} or len(uses) != 1 or uses[0].op_type != "Add":
        return value
    other = [name for name in uses[0].input if name != value]
    return uses[0].output[0] if len(other) == 1 and other[0] in sources else value


def _feature_axis(graph: Graph, node: onnx.NodeProto) -> int:
    if node.op_type != "MatMul":
        return 1
    return max(len(graph.value(node.output[0]).shape) - 1, 0)
