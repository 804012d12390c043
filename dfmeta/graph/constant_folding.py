"""A graph whose constants are all written out: what is computed from constants alone is an initializer.

Exporters leave small programs behind: a bias of zeros as ``Expand(CastLike(0, x), Shape(weight))``, a slice's bounds
as casts of reshapes. Whoever changes a graph wants to see the numbers. Values and weights keep their names; a weight
that is read through a view, such as a transposition, takes the name of the view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor

from dfmeta.errors import GraphError, UnsupportedOperator
from dfmeta.graph.canonical import drop_passthroughs, drop_unused, lift_constants
from dfmeta.graph.carriers import to_torch
from dfmeta.graph.dtypes import FLOATS
from dfmeta.graph.load import Graph
from dfmeta.graph.plan import Step, _bind, execute

_MAX_ELEMENTS: Final = 2**24
# Types that numpy and torch both have.
_EXACT: Final = frozenset({"float16", "float32", "float64", "int32", "int64", "bool"})
# Folding these would undo a quantization.
_KEPT: Final = frozenset({"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"})


def folded(graph: Graph) -> Graph:
    """``graph`` with everything that depends on constants alone as initializers, and nothing that no output needs.

    Left as they are: nodes that the torch executor does not run, quantizers, results of more than 2^24 elements, and
    views of a weight that something else reads too, because those are tied. Zero biases that the file computes are
    dropped.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    lift_constants(model.graph)
    drop_passthroughs(model.graph)
    given = {tensor.name for tensor in model.graph.initializer}
    _fold(model.graph, graph)
    _drop_zero_biases(model.graph, given)
    drop_unused(model.graph)
    del model.graph.value_info[:]
    return Graph.from_bytes(model.SerializeToString(deterministic=True), graph.where)


def _fold(proto: onnx.GraphProto, graph: Graph) -> None:
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.initializer}
    readers = Counter(name for node in proto.node for name in set(node.input))
    tied = {name for name in graph.weights if readers[name] > 1}
    done = []
    for index, node in enumerate(proto.node):
        results = _results(graph, node, index, known, tied)
        if results is None:
            continue
        done.append(index)
        known |= results
        proto.initializer.extend(numpy_helper.from_array(array, name) for name, array in results.items())
    for index in reversed(done):
        del proto.node[index]


def _results(
    graph: Graph, node: onnx.NodeProto, index: int, known: Mapping[str, np.ndarray], tied: set[str]
) -> dict[str, np.ndarray] | None:
    """The node's outputs where they are certain and small; None elsewhere."""
    names = list(node.output)
    types = {graph.dtype(name) for name in (*node.input, *names) if name}
    returned = {output.name for output in graph.outputs}
    if node.op_type in _KEPT or not types <= _EXACT or not returned.isdisjoint(names):
        return None
    if node.op_type == "CastLike" and node.input[0] in known:
        return {names[0]: known[node.input[0]].astype(graph.dtype(names[0]))}
    if not all(name in known for name in node.input if name):
        return None
    if not tied.isdisjoint(node.input) and any(graph.dtype(name) in FLOATS for name in names):
        return None
    try:
        bound, operator = _bind(graph, node, index)
    except UnsupportedOperator:
        return None
    step = Step(bound, operator, operator.host)
    arguments = [to_torch(known[name], bound.label) if name else None for name in node.input]
    if not _small(step, arguments):
        return None
    return {name: np.array(tensor.numpy(), order="C") for name, tensor in execute(step, arguments)}


def _small(step: Step, arguments: Sequence[Tensor | None]) -> bool:
    """Whether all results are of a reasonable size, found on shapes alone (torch's meta device)."""
    empty = [
        argument if argument is None or place in step.host else argument.to("meta")
        for place, argument in enumerate(arguments)
    ]
    try:
        return all(tensor.numel() <= _MAX_ELEMENTS for _, tensor in execute(step, empty))
    except GraphError:  # a result whose size depends on numbers
        return False


def _drop_zero_biases(proto: onnx.GraphProto, given: set[str]) -> None:
    computed = {tensor.name: tensor for tensor in proto.initializer if tensor.name not in given}
    for node in proto.node:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3 or node.input[2] not in computed:
            continue
        if not numpy_helper.to_array(computed[node.input[2]]).any():
            del node.input[2]
