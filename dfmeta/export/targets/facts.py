"""What the rules ask of a graph: its nodes by label, and what is quantized how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from dfmeta.graph import Graph
from dfmeta.graph.inference import node_label

WEIGHTED = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
INTEGER = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """Something that is written as integers.

    Attributes:
        where: label of the operator that it belongs to.
        operator: what that is.
        dtype: element type of the integers.
        scale: an array of any shape; None where it is computed.
        zero: likewise; None for no zero point, which is 0.
        codes: of a constant; None for a value.
    """

    where: str
    operator: str
    dtype: str
    scale: NDArray[np.generic] | None
    zero: NDArray[np.generic] | None
    codes: NDArray[np.generic] | None = None

    @property
    def symmetric(self) -> bool:
        """Whether the zero point is 0, all of it."""
        return self.zero is None or not self.zero.any()

    @property
    def power_of_two(self) -> bool:
        """Whether each scale is one."""
        return self.scale is not None and bool((np.frexp(self.scale.astype(np.float64))[0] == 0.5).all())


@dataclass(frozen=True, eq=False)
class Facts:
    """One graph, looked at.

    Attributes:
        graph: it.
    """

    graph: Graph

    @cached_property
    def nodes(self) -> list[tuple[str, onnx.NodeProto]]:
        """Label and node, in the graph's order."""
        return [(node_label(node, index), node) for index, node in enumerate(self.graph.model.graph.node)]

    @cached_property
    def constants(self) -> frozenset[str]:
        """Values that no input changes."""
        fixed = set(self.graph.initializer_names)
        for _, node in self.nodes:
            if all(name in fixed for name in node.input if name):
                fixed.update(node.output)
        return frozenset(fixed)

    @cached_property
    def makers(self) -> dict[str, tuple[str, onnx.NodeProto]]:
        """The node behind each value, with its label."""
        return {name: (label, node) for label, node in self.nodes for name in node.output if name}

    @cached_property
    def form(self) -> str:
        """``none``, ``qdq`` or ``qoperator``."""
        present = {node.op_type for _, node in self.nodes}
        if present & INTEGER:
            return "qoperator"
        return "qdq" if present & QUANTIZERS else "none"

    def where(self, label: str) -> str:
        """A node for people."""
        return label

    def values(self) -> Iterator[tuple[str, str]]:
        """Label of a node and each value that it makes or reads and that no constant settles, each value once."""
        seen = set(self.constants)
        for label, node in self.nodes:
            for name in (*node.input, *node.output):
                if name and name not in seen:
                    seen.add(name)
                    yield label, name

    def sizes(self, name: str) -> tuple[int | str, ...]:
        """Shape of a value; empty where nothing is known."""
        return self.graph.value(name).shape if name in self.graph.values else ()

    def attributes(self, node: onnx.NodeProto) -> dict[str, object]:
        """Attributes of a node, text as text."""
        found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}

    def array(self, name: str) -> NDArray[np.generic] | None:
        """A constant tensor; None for anything else."""
        return self.graph.initializers.get(name)

    @cached_property
    def weights(self) -> tuple[Quantized, ...]:
        """Quantized weights, each with its operator."""
        found = []
        for label, node in self.nodes:
            if node.op_type in ("QLinearConv", "QLinearMatMul"):
                found.append(self._quantized(label, node.op_type, *node.input[3:6]))
            elif node.op_type in WEIGHTED:
                _, maker = self.makers.get(node.input[WEIGHTED[node.op_type]], ("", None))
                if maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in self.constants:
                    found.append(self._quantized(label, node.op_type, *_three(maker)))
        return tuple(one for one in found if one.codes is not None)

    @cached_property
    def quantized_values(self) -> tuple[Quantized, ...]:
        """Quantized values, where they are quantized or read as what they stand for."""
        found = []
        for label, node in self.nodes:
            if node.op_type in QUANTIZERS and node.input[0] not in self.constants:
                name = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
                _, scale, zero = _three(node)
                found.append(self._quantized(label, node.op_type, name, scale, zero))
            elif node.op_type in ("QLinearConv", "QLinearMatMul"):
                found.append(self._quantized(label, node.op_type, node.input[0], node.input[1], node.input[2]))
                found.append(self._quantized(label, node.op_type, node.output[0], node.input[6], node.input[7]))
        return tuple(found)

    def biases(self) -> Iterator[tuple[str, str]]:
        """Label of each operator with quantized weights and values and a bias, and the bias's stored type."""
        for label, node in self.nodes:
            if node.op_type == "QLinearConv" and len(node.input) > 8 and node.input[8]:
                yield label, self.graph.dtype(node.input[8])
            elif node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2 and node.input[2]:
                read = [self.makers.get(name, ("", None))[1] for name in node.input[:3]]
                if all(one is not None and one.op_type == "DequantizeLinear" for one in read[:2]):
                    bias = read[2].input[0] if read[2] is not None and read[2].op_type == "DequantizeLinear" else ""
                    yield label, self.graph.dtype(bias or node.input[2])

    def float_weights(self) -> Iterator[str]:
        """Label of each operator whose constant weight is in floating point."""
        for label, node in self.nodes:
            if node.op_type in WEIGHTED and node.input[WEIGHTED[node.op_type]] in self.graph.weights:
                yield label

    def _quantized(self, label: str, operator: str, name: str, scale: str, zero: str) -> Quantized:
        return Quantized(
            label,
            operator,
            self.graph.dtype(name),
            self.array(scale),
            self.array(zero) if zero else None,
            self.array(name),
        )


def _three(node: onnx.NodeProto) -> tuple[str, str, str]:
    """Operand, scale and zero point of a quantizer; the last may be empty."""
    return node.input[0], node.input[1], node.input[2] if len(node.input) > 2 else ""
