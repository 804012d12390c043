"""The operators that the torch executor runs; importing this package fills the dispatch table."""

from dfmeta.graph.ops import (
    activation,
    attention,
    convolution,
    elementwise,
    generate,
    indexing,
    linear,
    normalization,
    padding,
    pooling,
    quantization,
    reduction,
    resizing,
    shape,
)
from dfmeta.graph.ops.registry import Node, Operator, entries, lookup

__all__ = [
    "Node",
    "Operator",
    "activation",
    "attention",
    "convolution",
    "elementwise",
    "entries",
    "generate",
    "indexing",
    "linear",
    "lookup",
    "normalization",
    "padding",
    "pooling",
    "quantization",
    "reduction",
    "resizing",
    "shape",
]
