"""What weight operators read: the values whose second moments serve to compress their weights."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final

import onnx

from dfmeta.graph.load import Graph
from dfmeta.graph.ops.registry import Node
from dfmeta.graph.ops.windows import Window, window
from dfmeta.graph.sites import _WEIGHT_OPERATORS, _sources

_BATCH_AXIS: Final = "its features lie along axis 0, which is the batch elsewhere"


@dataclass(frozen=True, slots=True)
class OperatorInput:
    """One weight operator and what it multiplies with its weight.

    Attributes:
        label: the operator's node name, or its operator and place among its like (``Conv_3``), as for sites.
        op: the operator.
        weight: name of the initializer that holds the weight.
        value: name of the value that is multiplied.
        feature_axis: axis of ``value`` along which products are summed; None where there is no such single axis.
        window: of a convolution, over the spatial axes, with ``auto_pad`` resolved; None elsewhere. A transposed
            convolution multiplies each position's channels by its whole weight and has none.
        groups: convolution groups; 1 elsewhere.
        left_out: why second moments of this input are not recorded; empty where they can be.
    """

    label: str
    op: str
    weight: str
    value: str
    feature_axis: int | None
    window: Window | None = None
    groups: int = 1
    left_out: str = ""

    @property
    def taps(self) -> int:
        """Positions of its kernel, each of which reads every channel as a feature of its own; 1 without a window."""
        return 1 if self.window is None else math.prod(self.window.kernel)


def operator_inputs(graph: Graph) -> tuple[OperatorInput, ...]:
    """Inputs of every Conv, ConvTranspose, Gemm and MatMul with one constant operand, in the graph's own order.

    Args:
        graph: the model.

    Returns:
        One entry for each operator, so that a value that several of them read appears as often; look at ``left_out``
        before using one.

    Raises:
        GraphError: attributes of a convolution that do not fit its kernel.
    """
    sources = _sources(graph)
    seen: Counter[str] = Counter()
    found = []
    for proto in graph.model.graph.node:
        if proto.op_type not in _WEIGHT_OPERATORS or proto.domain not in ("", "ai.onnx"):
            continue
        label = proto.name or f"{proto.op_type}_{seen[proto.op_type]}"
        seen[proto.op_type] += 1
        constant = [name in sources for name in proto.input[:2]]
        if len(constant) == 2 and sum(constant) == 1 and (constant[1] or "Conv" not in proto.op_type):
            found.append(_input(graph, proto, label, constant.index(True), sources))
    return tuple(found)


def _input(graph: Graph, proto: onnx.NodeProto, label: str, place: int, sources: dict[str, str]) -> OperatorInput:
    """The entry of an operator whose weight is its operand number ``place``."""
    node = Node(label, proto.op_type, graph.opset, tuple(proto.input), tuple(proto.output), _attributes(proto))
    value, weight = node.inputs[1 - place], node.inputs[place]
    entry = OperatorInput(label, node.op, sources[weight], value, None)
    shape, weight_shape = graph.value(value).shape, graph.value(weight).shape
    if not shape or not weight_shape:
        return _left_out(entry, "its shape is not known")
    if node.op == "Conv":
        return _convolution(entry, node, shape, weight_shape)
    if node.op == "ConvTranspose":
        return _replaced(entry, feature_axis=1, groups=node.int("group", 1))
    axis = _gemm_axis(node, place) if node.op == "Gemm" else _matmul_axis(place, len(shape), weight_shape)
    if axis is None:
        return _left_out(entry, "its weight is a stack of matrices, each for other rows of it")
    return _left_out(entry, _BATCH_AXIS) if axis == 0 else _replaced(entry, feature_axis=axis)


def _convolution(
    entry: OperatorInput, node: Node, shape: tuple[int | str, ...], weight_shape: tuple[int | str, ...]
) -> OperatorInput:
    kernel = [size for size in weight_shape[2:] if isinstance(size, int)]
    sizes = [size for size in shape[2:] if isinstance(size, int)]
    if len(kernel) < len(weight_shape) - 2 or len(sizes) < len(shape) - 2:
        return _left_out(entry, "its sizes are not all known")
    found = window(node, kernel, sizes)
    return _replaced(entry, feature_axis=1, window=found, groups=node.int("group", 1))


def _gemm_axis(node: Node, place: int) -> int:
    """Axis of the data over which a Gemm sums: of A' its last, of B' its first."""
    return (1 if node.int("transB", 0) else 0) if place == 0 else (0 if node.int("transA", 0) else 1)


def _matmul_axis(place: int, axes: int, weight_shape: tuple[int | str, ...]) -> int | None:
    """Axis of the data over which a MatMul sums; None for a weight that differs from row to row."""
    if len(weight_shape) > 2 and math.prod(size for size in weight_shape[:-2] if isinstance(size, int)) != 1:
        return None
    return axes - 1 if place == 1 else max(axes - 2, 0)


def _replaced(entry: OperatorInput, feature_axis: int, window: Window | None = None, groups: int = 1) -> OperatorInput:
    return OperatorInput(entry.label, entry.op, entry.weight, entry.value, feature_axis, window, groups)


def _left_out(entry: OperatorInput, reason: str) -> OperatorInput:
    return OperatorInput(entry.label, entry.op, entry.weight, entry.value, None, left_out=reason)


def _attributes(proto: onnx.NodeProto) -> dict[str, object]:
    """Attributes as Python values, text decoded."""
    found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in proto.attribute}
    return {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for name, value in found.items()
    }
