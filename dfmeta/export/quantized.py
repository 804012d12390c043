"""A quantized model, and the default way to write it: QuantizeLinear and DequantizeLinear around float operators.

onnxruntime can write such a graph itself from ranges, but it wants a range of every value that it touches, and where
BatchNormalization is folded the values before a residual addition are values that nobody recorded; nor does it take
weights that somebody else rounded. So the graph is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dfmeta.errors import ExportError
from dfmeta.export._opset import at_opset
from dfmeta.graph import Graph
from dfmeta.graph.canonical import drop_unused, rename
from dfmeta.graph.folding import free_name

EIGHT_BITS = (18, 8)
FEWER_BITS = (21, 10)
# The integers that codes of four bits use, of the type that they are stored in.
_FOUR_BITS: Mapping[str, tuple[int, int]] = {"int4": (-8, 7), "uint4": (0, 15)}


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeight:
    """The codes of one initializer: its values are ``codes * scales`` along an axis.

    Attributes:
        tensor: name of the initializer.
        codes: int8, of its shape.
        scales: ``[n]`` float32, each above 0.
        axis: along which the scales lie.
        bits: that the codes use, 2 to 8.
    """

    tensor: str
    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    axis: int
    bits: int

    @property
    def nominal_bytes(self) -> int:
        """Bytes of the codes, packed to their very bits, and of the scales."""
        return (self.codes.size * self.bits + 7) // 8 + 4 * self.scales.size

    def stored_bytes(self, *, int4: bool) -> int:
        """Bytes of the codes as ONNX stores them, and of the scales."""
        packed = int4 and self.bits <= 4
        return ((self.codes.size + 1) // 2 if packed else self.codes.size) + 4 * self.scales.size


@dataclass(frozen=True, slots=True)
class QuantizedValue:
    """How a value is written as integers.

    Attributes:
        value: its name in the graph.
        scale: above 0.
        zero: the integer that stands for 0.
        dtype: ``uint8``, ``int8``, ``uint4`` or ``int4``.
        everywhere: whether everything that reads it reads the rounded value, and not only operators with weights.
    """

    value: str
    scale: float
    zero: int
    dtype: str
    everywhere: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedModel:
    """A graph, and what of it is written as integers.

    Attributes:
        graph: in float32, its weights already those that the codes stand for.
        weights: one for each quantized initializer.
        values: one for each quantized value.
        outputs: by name of an operator's output, how integer operators would write it (:mod:`dfmeta.export.qoperator`).
    """

    graph: Graph
    weights: tuple[QuantizedWeight, ...]
    values: tuple[QuantizedValue, ...] = ()
    outputs: Mapping[str, QuantizedValue] = field(default_factory=dict)

    def needs_int4(self, *, int4: bool) -> bool:
        """Whether types of opset 21 are needed: for weights of at most 4 bits that shall be stored so."""
        return int4 and any(weight.bits <= 4 for weight in self.weights)


def quantized_graph(model: QuantizedModel, *, int4: bool = True, integer_bias: bool = True) -> Graph:
    """The model with its weights as integers behind DequantizeLinear, and its values rounded in passing.

    Opset 18 and IR 8 where weights are stored in eight bits, else opset 21 and IR 10, whose INT4 holds 2, 3 and 4 bits.
    Values of four bits are eight-bit integers that a Clip holds within 16 of them: the optimisers of onnxruntime move
    integers across operators such as MaxPool, and no kernel of those takes UINT4. A bias between 8-bit weights and
    values is an INT32 at the product of their scales, as integer kernels take it.

    Args:
        model: what to write.
        int4: store codes of at most 4 bits as INT4. Where a target has no INT4, the codes are stored as INT8: the same
            function at twice the bytes.
        integer_bias: write biases as INT32 where they can be; some parsers take them in floating point only.

    Raises:
        ExportError: a graph that the operator set cannot say.
    """
    opset, ir_version = FEWER_BITS if model.needs_int4(int4=int4) else EIGHT_BITS
    where = model.graph.where
    proto = at_opset(model.graph.model, opset, ir_version, where)
    _Writer(proto.graph, model, int4, integer_bias).write()
    drop_unused(proto.graph)
    del proto.graph.value_info[:]
    return Graph.from_bytes(proto.SerializeToString(deterministic=True), where)


class _Writer:
    """Adds quantizers to a graph, in place."""

    def __init__(self, graph: onnx.GraphProto, model: QuantizedModel, int4: bool, integer_bias: bool) -> None:
        self.graph, self.model, self.int4, self.integer_bias = graph, model, int4, integer_bias
        self.taken = {name for node in graph.node for name in (*node.input, *node.output)}
        self.taken |= {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
        self.known = {tensor.name: tensor for tensor in graph.initializer}

    def write(self) -> None:
        """Weights, then biases (while weights and values can still be told), then values."""
        weights = {weight.tensor: weight for weight in self.model.weights}
        values = {value.value: value for value in self.model.values}
        first = [self._weight(weight) for weight in weights.values()]
        first += self._biases(weights, values) if self.integer_bias else []
        made = {name: self._value(value) for name, value in values.items()}
        for weight in weights.values():
            self._replace(weight.tensor, f"{weight.tensor}_dequantized")
        nodes = [node for value in self.graph.input for node in made.get(value.name, ())]
        for node in list(self.graph.node):
            nodes += [node, *(added for name in node.output for added in made.get(name, ()))]
        self._rewire(values)
        raw = [node.SerializeToString() for node in (*first, *nodes)]
        del self.graph.node[:]
        self.graph.node.extend([onnx.NodeProto.FromString(one) for one in raw])

    def add(self, name: str, array: np.ndarray) -> str:
        """A new initializer; its name."""
        name = free_name(name, self.taken)
        self.taken.add(name)
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _weight(self, weight: QuantizedWeight) -> onnx.NodeProto:
        dtype = np.dtype(ml_dtypes.int4 if self.int4 and weight.bits <= 4 else np.int8)
        codes = self.add(f"{weight.tensor}_codes", weight.codes.astype(dtype))
        scale = self.add(f"{weight.tensor}_scale", weight.scales.astype(np.float32))
        zero = self.add(f"{weight.tensor}_zero_point", np.zeros(weight.scales.shape, dtype))
        made = f"{weight.tensor}_dequantized"
        return helper.make_node("DequantizeLinear", [codes, scale, zero], [made], axis=weight.axis)

    def _value(self, value: QuantizedValue) -> list[onnx.NodeProto]:
        scale = self.add(f"{value.value}_scale", np.asarray(value.scale, np.float32))
        dtype = np.dtype(value.dtype.replace("4", "8"))
        zero = self.add(f"{value.value}_zero_point", np.asarray(value.zero).astype(dtype))
        integers = f"{value.value}_quantized"
        nodes = [helper.make_node("QuantizeLinear", [value.value, scale, zero], [integers])]
        if value.dtype in _FOUR_BITS:
            ends = [
                self.add(f"{value.value}_{end}", np.asarray(limit).astype(dtype))
                for end, limit in zip(("least", "most"), _FOUR_BITS[value.dtype], strict=True)
            ]
            wide, integers = integers, f"{value.value}_clipped"
            nodes.append(helper.make_node("Clip", [wide, *ends], [integers]))
        nodes.append(helper.make_node("DequantizeLinear", [integers, scale, zero], [f"{value.value}_dequantized"]))
        return nodes

    def _biases(
        self, weights: Mapping[str, QuantizedWeight], values: Mapping[str, QuantizedValue]
    ) -> list[onnx.NodeProto]:
        nodes = []
        for node in self.graph.node:
            scaled = any(a.name in ("alpha", "beta") and a.f != 1 for a in node.attribute)
            if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or scaled:
                continue
            weight, value = weights.get(node.input[1]), values.get(node.input[0])
            bias = self.known.get(node.input[2])
            if weight is None or value is None or bias is None or not value.dtype.endswith("8"):
                continue
            # A target without INT4 runs codes of few bits in its kernels for eight.
            eight = weight.bits == 8 or not self.int4
            if eight and list(bias.dims) == [len(weight.scales)]:
                nodes += self._bias(node, bias, weight.scales, value.scale)
        return nodes

    def _bias(
        self, node: onnx.NodeProto, bias: onnx.TensorProto, scales: NDArray[np.float32], scale: float
    ) -> list[onnx.NodeProto]:
        """A bias in INT32; none where it does not fit."""
        steps = (scales * np.float32(scale)).astype(np.float32)
        with np.errstate(divide="ignore"):
            codes = np.rint(numpy_helper.to_array(bias).astype(np.float64) / steps)
        if not (np.abs(codes) < 2**31 - 1).all():
            return []
        stored = self.add(f"{bias.name}_codes", codes.astype(np.int32))
        made = free_name(f"{bias.name}_dequantized", self.taken)
        self.taken.add(made)
        node.input[2] = made
        return [helper.make_node("DequantizeLinear", [stored, self.add(f"{bias.name}_scale", steps)], [made], axis=0)]

    def _replace(self, old: str, new: str) -> None:
        for node in self.graph.node:
            rename(node.input, old, new)

    def _rewire(self, values: Mapping[str, QuantizedValue]) -> None:
        """Readers read the rounded value."""
        weighted = {f"{weight.tensor}_dequantized" for weight in self.model.weights}
        for node in self.graph.node:
            for place, name in enumerate(node.input):
                value = values.get(name)
                if value is not None and (value.everywhere or not weighted.isdisjoint(node.input)):
                    node.input[place] = f"{name}_dequantized"


def value_bits(graph: Graph) -> frozenset[int]:
    """How many bits values, and not only weights, are rounded to: 8, or 4 where a Clip holds the integers."""
    clipped = {node.input[0] for node in graph.model.graph.node if node.op_type == "Clip"}
    nodes = (node for node in graph.model.graph.node if node.op_type == "QuantizeLinear")
    return frozenset(4 if node.output[0] in clipped else 8 for node in nodes)


def require_float32(graph: Graph, tensors: Sequence[str]) -> None:
    """Refuse weights of another type: scales are float32.

    Raises:
        ExportError: the text names the first.
    """
    for name in tensors:
        if graph.dtype(name) != "float32":
            raise ExportError(
                f"{graph.where}: weight {name!r}", graph.dtype(name), "float32", "Export the model in float32."
            )
