"""A graph whose BatchNormalization is part of the operator before it, as every runtime computes it.

``gamma (W x + b - mean) / sqrt(var + epsilon) + beta`` is again a linear map of x, so that the weights that are
rounded, cut or factorised are the ones that a device multiplies with (Ioffe and Szegedy, "Batch Normalization", 2015,
section 3.1). What the operators *read* is the same value under the same name, so that records of it still hold; what
the operator alone made is gone, and the name of the normalised value is now its output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dfmeta.graph.canonical import drop_unused
from dfmeta.graph.constant_folding import folded
from dfmeta.graph.dtypes import FLOATS
from dfmeta.graph.load import Graph

Array = NDArray[np.float64]

_DEFAULT_EPSILON = 1e-5


def without_batch_norm(graph: Graph) -> Graph:
    """``graph`` with each BatchNormalization folded into the operator that alone feeds it.

    Folded are those with constant statistics behind a Conv, ConvTranspose, Gemm or MatMul (with a constant added to
    it, or not) whose channels lie along axis 1, where nothing else reads the value in between and nothing else reads
    the weight. All others stay. Constants are written out first (:func:`dfmeta.graph.constant_folding.folded`).

    Args:
        graph: stays as it is.

    Returns:
        The same function but for rounding. Inputs, outputs and weights keep their names, and so does every value that
        an operator with a weight reads. A product that had no bias has an initializer, or an Add, more.
    """
    prepared = folded(graph)
    model = onnx.ModelProto()
    model.CopyFrom(prepared.model)
    parts = _Parts.of(model.graph, prepared)
    changed = False
    for node in [node for node in model.graph.node if node.op_type == "BatchNormalization" and not node.domain]:
        changed = _fold(node, parts) or changed
    if not changed:
        return prepared
    drop_unused(model.graph)
    del model.graph.value_info[:]
    return Graph.from_bytes(model.SerializeToString(deterministic=True), graph.where)


@dataclass(frozen=True, slots=True)
class _Parts:
    """A graph under rewriting.

    Attributes:
        proto: changed in place.
        graph: as it was.
        constants: initializers by name.
        makers: the node behind each value.
        readers: how often nodes and graph outputs read each value.
    """

    proto: onnx.GraphProto
    graph: Graph
    constants: dict[str, onnx.TensorProto]
    makers: dict[str, onnx.NodeProto]
    readers: Counter[str]

    @classmethod
    def of(cls, proto: onnx.GraphProto, graph: Graph) -> _Parts:
        readers = Counter(name for node in proto.node for name in node.input if name)
        readers.update(output.name for output in proto.output)
        makers = {name: node for node in proto.node for name in node.output}
        return cls(proto, graph, {tensor.name: tensor for tensor in proto.initializer}, makers, readers)

    def array(self, name: str) -> Array:
        return numpy_helper.to_array(self.constants[name]).astype(np.float64)

    def set(self, name: str, values: Array) -> None:
        """Another value for an initializer, in its own element type."""
        dtype = self.graph.initializers[name].dtype if name in self.graph.initializers else np.dtype(np.float32)
        self.constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values.astype(dtype)), name))

    def add(self, wanted: str, values: Array, dtype: np.dtype[np.generic]) -> str:
        """A new initializer; its name."""
        name = free_name(wanted, {*self.constants, *self.makers, *(value.name for value in self.proto.input)})
        tensor = self.proto.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values.astype(dtype)), name))
        self.constants[name] = tensor
        return name

    def alone(self, name: str) -> bool:
        """Whether one node reads a value, and nobody outside."""
        return self.readers[name] == 1


def free_name(wanted: str, taken: set[str]) -> str:
    """``wanted``, or with the first number after it that makes it new."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def _fold(norm: onnx.NodeProto, parts: _Parts) -> bool:
    """Whether the normalisation could go into what feeds it."""
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in norm.attribute}
    statistics = list(norm.input[1:5])
    if any(name not in parts.constants for name in statistics) or settings.get("training_mode", 0):
        return False
    if any(norm.output[1:]) or not parts.alone(norm.input[0]):
        return False
    gain, shift, mean, variance = map(parts.array, statistics)
    factor = gain / np.sqrt(variance + settings.get("epsilon", _DEFAULT_EPSILON))
    offset = shift - mean * factor
    node = parts.makers.get(norm.input[0])
    added = None
    if node is not None and node.op_type == "Add":
        added, node = node, _product_behind(node, parts)
    if node is None or node.domain or not _scalable(node, len(factor), parts):
        return False
    if added is not None:
        _scale_added(added, norm, factor, offset, parts)
    else:
        _give_bias(node, norm, factor, offset, parts)
    _scale_weight(node, factor, parts)
    parts.proto.node.remove(norm)
    return True


def _product_behind(added: onnx.NodeProto, parts: _Parts) -> onnx.NodeProto | None:
    """The MatMul to whose product alone the Add adds a constant."""
    constant = [name in parts.constants for name in added.input]
    if sum(constant) != 1:
        return None
    value = added.input[constant.index(False)]
    node = parts.makers.get(value)
    if node is None or node.op_type != "MatMul" or not parts.alone(value):
        return None
    return node if len(parts.graph.value(value).shape) == len(parts.graph.value(added.output[0]).shape) else None


def _scalable(node: onnx.NodeProto, channels: int, parts: _Parts) -> bool:
    """Whether the node's weight is its own, and makes the channels along axis 1 of its output."""
    place = _weight_place(node, parts)
    if place is None:
        return False
    weight = node.input[place]
    shape, rank = parts.constants[weight].dims, len(parts.graph.value(node.output[0]).shape)
    if not parts.alone(weight) or parts.graph.dtype(weight) not in FLOATS:
        return False
    if node.op_type == "MatMul" and (len(shape) != 2 or rank != (2 if place == 1 else 3)):
        return False
    bias = node.input[2] if len(node.input) > 2 else ""
    if bias and (bias not in parts.constants or not _row_like(parts.constants[bias].dims, channels)):
        return False
    return _channels(node, place, parts) == channels


def _row_like(shape: Sequence[int], channels: int) -> bool:
    """Whether a constant has one number for each channel along axis 1 of two, or one for all."""
    return list(shape) in ([channels], [1, channels], [1], [], [1, 1])


def _weight_place(node: onnx.NodeProto, parts: _Parts) -> int | None:
    """Which operand is the weight; None where it is not one that makes axis 1."""
    if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
        return 1 if node.input[1] in parts.constants and node.input[0] not in parts.constants else None
    if node.op_type != "MatMul":
        return None
    constant = [name in parts.constants for name in node.input]
    return constant.index(True) if sum(constant) == 1 else None


def _channels(node: onnx.NodeProto, place: int, parts: _Parts) -> int:
    shape = list(parts.constants[node.input[place]].dims)
    return int(shape[_axis(node, place)]) * (_integer(node, "group", 1) if node.op_type == "ConvTranspose" else 1)


def _axis(node: onnx.NodeProto, place: int) -> int:
    """Axis of the weight along which its outputs lie."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if _integer(node, "transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" or place == 1 else 0


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _real(node: onnx.NodeProto, name: str, default: float) -> float:
    return next((float(attribute.f) for attribute in node.attribute if attribute.name == name), default)


def _scale_weight(node: onnx.NodeProto, factor: Array, parts: _Parts) -> None:
    place = _weight_place(node, parts)
    assert place is not None  # noqa: S101 - found before
    name = node.input[place]
    weight = parts.array(name)
    if node.op_type == "ConvTranspose":
        groups = _integer(node, "group", 1)
        # [groups, inputs of one, outputs of one, taps]
        grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        parts.set(name, (grouped * factor.reshape(groups, 1, -1, 1)).reshape(weight.shape))
        return
    shape = [1] * weight.ndim
    shape[_axis(node, place)] = -1
    parts.set(name, weight * factor.reshape(shape))


def _give_bias(node: onnx.NodeProto, norm: onnx.NodeProto, factor: Array, offset: Array, parts: _Parts) -> None:
    """The operator writes the normalised value, its bias scaled and shifted."""
    place = _weight_place(node, parts) or 0
    dtype = parts.graph.initializers[node.input[place]].dtype
    bias = node.input[2] if len(node.input) > 2 else ""
    result = norm.output[0]
    if node.op_type == "MatMul":
        shape = (-1,) if place == 1 else (-1, 1)
        constant = parts.add(f"{result}_bias", offset.reshape(shape), dtype)
        after = helper.make_node("Add", [node.output[0], constant], [result])
        parts.proto.node.insert(list(parts.proto.node).index(node) + 1, after)
        return
    beta = _real(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    before = beta * parts.array(bias).reshape(-1) if bias else np.zeros(1)
    _drop_attribute(node, "beta")
    parts.readers[bias] -= 1
    name = parts.add(f"{result}_bias", before * factor + offset, dtype)
    del node.input[2:]
    node.input.append(name)
    node.output[0] = result
    parts.readers[name] += 1
    parts.makers[result] = node


def _drop_attribute(node: onnx.NodeProto, name: str) -> None:
    for attribute in list(node.attribute):
        if attribute.name == name:
            node.attribute.remove(attribute)


def _scale_added(added: onnx.NodeProto, norm: onnx.NodeProto, factor: Array, offset: Array, parts: _Parts) -> None:
    """The Add behind a MatMul writes the normalised value, its constant scaled and shifted."""
    place = next(number for number, name in enumerate(added.input) if name in parts.constants)
    rank = len(parts.graph.value(added.output[0]).shape)
    shape = [1] * rank
    shape[1] = -1
    before = parts.array(added.input[place])
    values = before * factor.reshape(shape) + offset.reshape(shape)
    dtype = parts.graph.initializers[added.input[place]].dtype
    parts.readers[added.input[place]] -= 1
    added.input[place] = parts.add(f"{norm.output[0]}_bias", values, dtype)
    parts.readers[added.input[place]] += 1
    added.output[0] = norm.output[0]
    parts.makers[norm.output[0]] = added
