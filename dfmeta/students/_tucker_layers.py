"""Which layers of a graph can be decomposed, and under which names a user may speak of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from dfmeta.graph import Graph


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or a dense layer whose weight is a constant.

    Attributes:
        index: of its node in the graph.
        names: the node's name, its weight's and its output's: each of them means this layer.
        weight: ``[c_out, c_in, ...]`` as a convolution's kernel; ``[out, in]`` of a dense layer elsewhere.
        map: the ``[n, c, h, w]`` value that a dense layer reads flattened; empty for any other layer.
        last: whether its output is one of the graph's.
    """

    index: int
    names: tuple[str, ...]
    weight: np.ndarray
    map: str
    last: bool

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.names[0]

    @property
    def spatial(self) -> bool:
        """Whether its kernel has more than one position: only then it has two modes and more to decompose."""
        return math.prod(self.weight.shape[2:]) > 1


def layers(graph: Graph) -> tuple[Layer, ...]:
    """The layers that can be decomposed, in the graph's order.

    They are convolutions of all channels at once (``group`` 1) with more than one position, and dense layers (Gemm). A
    dense layer on a flattened ``[c, h, w]`` map is the convolution of the whole map that it equals.
    """
    found = (_layer(graph, index) for index in range(len(graph.model.graph.node)))
    return tuple(layer for layer in found if layer is not None)


def _layer(graph: Graph, index: int) -> Layer | None:
    node = graph.model.graph.node[index]
    if node.domain or node.op_type not in ("Conv", "Gemm") or node.input[1] not in graph.initializers:
        return None
    weight, source = graph.initializers[node.input[1]], ""
    if node.op_type == "Gemm":
        if _attribute(node, "transA", 0):
            return None
        weight = weight if _attribute(node, "transB", 0) else weight.T
        source, shape = _flattened(graph, node)
        weight = weight.reshape(len(weight), *shape) if source else weight
    elif _attribute(node, "group", 1) != 1:
        return None
    names = tuple(dict.fromkeys(name for name in (node.name, node.input[1], node.output[0]) if name))
    last = node.output[0] in {value.name for value in graph.outputs}
    layer = Layer(index, names, weight, source, last)
    return layer if node.op_type == "Gemm" or layer.spatial else None


def _flattened(graph: Graph, dense: onnx.NodeProto) -> tuple[str, tuple[int, ...]]:
    """The map whose flat form a dense layer reads, and its shape without the batch; empty for any other layer."""
    makers = (node for node in graph.model.graph.node if dense.input[0] in node.output and not node.domain)
    node = next(makers, None)
    if node is None or node.op_type not in ("Flatten", "Reshape") or not _plain(graph, dense):
        return "", ()
    before, after = graph.value(node.input[0]).shape, graph.value(dense.input[0]).shape
    shape = tuple(size for size in before[1:] if isinstance(size, int))
    whole = len(before) >= 3 and len(shape) == len(before) - 1 and after[1:] == (math.prod(shape),)
    return (node.input[0], shape) if whole and math.prod(shape[1:]) > 1 else ("", ())


def _plain(graph: Graph, dense: onnx.NodeProto) -> bool:
    """Whether a dense layer is a product and one number for each output, as a convolution is."""
    given = {entry.name: helper.get_attribute_value(entry) for entry in dense.attribute}
    bias = dense.input[2] if len(dense.input) > 2 else ""
    return given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and (
        not bias or graph.value(bias).shape == graph.value(dense.output[0]).shape[1:]
    )


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    found = next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)
    return int(found)
