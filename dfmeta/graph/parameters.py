"""Which initializers are weights: what training may change, and what is counted as a parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import onnx

from dfmeta.graph.dtypes import FLOATS, name_of

# Input positions at which a floating constant is a learned weight. Running means and variances of
# BatchNormalization (positions 3 and 4) are statistics, not weights; so are scales of quantizers.
_POSITIONS: Final[dict[str, frozenset[int]]] = {
    "Conv": frozenset({1, 2}),
    "ConvTranspose": frozenset({1, 2}),
    "Gemm": frozenset({0, 1, 2}),
    "MatMul": frozenset({0, 1}),
    "Einsum": frozenset(range(8)),
    "BatchNormalization": frozenset({1, 2}),
    "InstanceNormalization": frozenset({1, 2}),
    "LayerNormalization": frozenset({1, 2}),
    "GroupNormalization": frozenset({1, 2}),
    "RMSNormalization": frozenset({1}),
    "PRelu": frozenset({1}),
    "Gather": frozenset({0}),
}
# A constant with axes that is added, multiplied or joined is a bias, a gain or a learned token; a bare
# number (an epsilon, 1/sqrt(d), the 0.5 of a Gelu) is not, nor is a factor of one element.
_BROADCAST: Final = frozenset({"Add", "Mul", "Concat"})
_VIEWS: Final = frozenset({"Transpose", "Reshape", "Identity", "Unsqueeze", "Squeeze", "Expand", "Flatten", "Cast"})


def weight_names(graph: onnx.GraphProto) -> frozenset[str]:
    """Floating initializers that reach a weight position, directly or through views such as Transpose."""
    constants = {t.name: t for t in graph.initializer if name_of(t.data_type) in FLOATS}
    sources = {name: name for name in constants}
    found: set[str] = set()
    for node in graph.node:
        if node.op_type in _VIEWS and node.input and node.input[0] in sources:
            sources[node.output[0]] = sources[node.input[0]]
        for position, name in enumerate(node.input):
            source = sources.get(name)
            if source is not None and _learns(node.op_type, position, constants[source].dims):
                found.add(source)
    return frozenset(found)


def _learns(op: str, position: int, dims: Sequence[int]) -> bool:
    """Whether a constant of shape ``dims`` at this position of an operator is a weight."""
    if op in _BROADCAST:
        return bool(dims) and (op != "Mul" or math.prod(dims) > 1)
    return position in _POSITIONS.get(op, frozenset())
