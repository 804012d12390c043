"""A layer of a graph as a chain of smaller ones, and the graph around it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dfmeta.graph import Graph
from dfmeta.graph.canonical import drop_unused
from dfmeta.numerics.tucker import tucker2
from dfmeta.students._tucker_layers import Layer

Ranks = tuple[int, ...]


def parameters(layer: Layer, ranks: Ranks) -> int:
    """Weights of the chain, biases left out: ranks of input and output side, or the one of a dense layer."""
    wide_out, wide_in = map(int, layer.weight.shape[:2])
    positions = math.prod(layer.weight.shape[2:])
    if len(ranks) == 1:
        return ranks[0] * (wide_in * positions + wide_out)
    rank_in, rank_out = ranks
    aside = (rank_in * wide_in if rank_in < wide_in else 0) + (rank_out * wide_out if rank_out < wide_out else 0)
    return aside + positions * rank_in * rank_out


def rewritten(graph: Graph, chosen: Iterable[tuple[Layer, Ranks]]) -> Graph:
    """The graph with these layers as chains; names of all values that were there before stay as they were."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    places = {layer.index: (layer, ranks) for layer, ranks in chosen}
    nodes = list(model.graph.node)
    taken = {*graph.values, *(node.name for node in nodes)}
    del model.graph.node[:]
    for index, node in enumerate(nodes):
        if index not in places:
            model.graph.node.append(node)
            continue
        layer, ranks = places[index]
        chain = _Chain(model.graph, node, taken, layer.weight.dtype)
        if len(ranks) == 1:
            chain.dense(layer.weight.reshape(len(layer.weight), -1), ranks[0])
        else:
            chain.convolutions(layer, ranks)
    drop_unused(model.graph)
    # Shapes of what is no longer there; the gate infers those of what is.
    del model.graph.value_info[:]
    return Graph.from_bytes(model.SerializeToString(deterministic=True), graph.where)


class _Chain:
    """Writes the nodes and constants that take one node's place."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto, taken: set[str], dtype: np.dtype[Any]) -> None:
        self._graph, self._node, self._taken, self._dtype = graph, node, taken, dtype
        self._given = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}

    def convolutions(self, layer: Layer, ranks: Ranks) -> None:
        """1x1, then the core with the layer's own strides and pads, then 1x1 with its bias.

        A side that keeps all its channels has no 1x1 of its own.
        """
        rank_in, rank_out = ranks
        wide_out, wide_in = layer.weight.shape[:2]
        factors = tucker2(layer.weight, rank_out, rank_in)
        outer, core, inner = factors.outer, factors.core, factors.inner
        pointwise = (1,) * (core.ndim - 2)
        value = layer.map or self._node.input[0]
        if rank_in == wide_in:
            core = np.einsum("iq,pq...->pi...", inner, core)
        else:
            value = self._add("Conv", "in", [value], [inner.T.reshape(rank_in, wide_in, *pointwise)])
        own = {} if layer.map else self._given
        if rank_out == wide_out:
            core = np.einsum("op,pi...->oi...", outer, core)
        else:
            value = self._add("Conv", "core", [value], [core], {**own, "kernel_shape": core.shape[2:]})
            own, core = {}, outer.reshape(wide_out, rank_out, *pointwise)
        attributes = {**own, "kernel_shape": core.shape[2:]}
        if not layer.map:
            self._add("Conv", "out", [value], [core], attributes, bias=True, last=True)
            return
        value = self._add("Conv", "out", [value], [core], attributes, bias=True)
        self._graph.node.append(helper.make_node("Flatten", [value], [self._node.output[0]], axis=1))

    def dense(self, weight: np.ndarray, rank: int) -> None:
        """Two dense layers from the leading singular vectors, the singular values shared out evenly."""
        left, values, right = np.linalg.svd(weight.astype(np.float64), full_matrices=False)
        root = np.sqrt(values[:rank])
        first = root[:, None] * right[:rank]
        value = self._add("Gemm", "in", [self._node.input[0]], [first], {"transB": 1})
        attributes = {"transB": 1, "alpha": self._given.get("alpha", 1.0), "beta": self._given.get("beta", 1.0)}
        self._add("Gemm", "out", [value], [left[:, :rank] * root], attributes, bias=True, last=True)

    def _add(
        self,
        op: str,
        part: str,
        values: Sequence[str],
        constants: Sequence[np.ndarray],
        attributes: dict[str, Any] | None = None,
        *,
        bias: bool = False,
        last: bool = False,
    ) -> str:
        """Append one node; the name of its output."""
        node = self._node
        names = []
        for constant in constants:
            names.append(self._free(f"{node.input[1]}.{part}"))
            self._graph.initializer.append(numpy_helper.from_array(constant.astype(self._dtype), names[-1]))
        output = node.output[0] if last else self._free(f"{node.output[0]}.{part}")
        rest = list(node.input[2:]) if bias else []
        label = self._free(f"{node.name or node.output[0]}.{part}")
        self._graph.node.append(helper.make_node(op, [*values, *names, *rest], [output], label, **(attributes or {})))
        return output

    def _free(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
