"""The rewrites of the canonical form that are not those of every graph we write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dfmeta.graph.folding import free_name

Sizes = tuple[int, ...]
# Of BatchNormalization, where it says nothing.
_EPSILON = 1e-5
_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})


@dataclass
class _Rewriting:
    """A graph under rewriting.

    Attributes:
        graph: changed in place.
        shapes: of the values whose sizes are all known.
        constants: initializers.
        readers: how often nodes and outputs read each value.
        makers: the node behind each value.
    """

    graph: onnx.GraphProto
    shapes: Mapping[str, Sizes]
    constants: dict[str, NDArray[np.generic]]
    readers: dict[str, int] = field(default_factory=dict)
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)

    def add(self, name: str, array: NDArray[np.generic]) -> str:
        """A new initializer; its name."""
        taken = {one for node in self.graph.node for one in (*node.input, *node.output)} | set(self.constants)
        free = free_name(name, taken)
        self.graph.initializer.append(numpy_helper.from_array(array, free))
        self.constants[free] = array
        return free


def rewrite(graph: onnx.GraphProto, inferred: onnx.GraphProto) -> None:
    """Apply every rule once to each node, in place.

    Args:
        graph: with its batch set; at the operator set of the canonical form.
        inferred: the same with the shapes of its values.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    described = [*inferred.input, *inferred.value_info, *inferred.output]
    state = _Rewriting(graph, {info.name: sizes for info in described if (sizes := _sizes(info))}, constants)
    for node in graph.node:
        state.makers.update(dict.fromkeys(node.output, node))
        for name in node.input:
            state.readers[name] = state.readers.get(name, 0) + 1
    for output in graph.output:
        state.readers[output.name] = state.readers.get(output.name, 0) + 1
    for node in list(graph.node):
        for rule in () if node.domain else _RULES.get(node.op_type, ()):
            rule(state, node)


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """Attributes of a node by name; text as text."""
    found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def _sizes(info: onnx.ValueInfoProto) -> Sizes:
    dims = info.type.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else ()


def _numbers(value: object, count: int, default: int) -> list[int]:
    return [int(one) for one in value] if isinstance(value, list | tuple) else [default] * count


def _padding(state: _Rewriting, node: onnx.NodeProto) -> None:
    """``auto_pad`` as numbers."""
    given = attributes(node)
    how = given.get("auto_pad", "NOTSET")
    data = state.shapes.get(node.input[0], ())
    if how == "NOTSET" or len(data) < 3:
        return
    kernel = (
        given.get("kernel_shape") or state.shapes.get(node.input[1], ())[2:] or state.constants[node.input[1]].shape[2:]
    )
    window = _numbers(kernel, 0, 0)
    strides, dilations = (_numbers(given.get(name), len(window), 1) for name in ("strides", "dilations"))
    before, after = [], []
    for size, width, stride, dilation in zip(data[2:], window, strides, dilations, strict=True):
        whole = max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0) if how != "VALID" else 0
        less, more = whole // 2, whole - whole // 2
        before.append(more if how == "SAME_LOWER" else less)
        after.append(less if how == "SAME_LOWER" else more)
    for attribute in [one for one in node.attribute if one.name in ("auto_pad", "pads")]:
        node.attribute.remove(attribute)
    if any((*before, *after)):
        node.attribute.append(helper.make_attribute("pads", [*before, *after]))


def _normalised(state: _Rewriting, node: onnx.NodeProto) -> None:
    """A normalisation that no weight could take up is a factor and a shift for each channel."""
    statistics, rank = [state.constants.get(name) for name in node.input[1:5]], len(state.shapes.get(node.input[0], ()))
    if any(one is None for one in statistics) or not rank or attributes(node).get("training_mode", 0):
        return
    gain, shift, mean, variance = (np.asarray(one, np.float64) for one in statistics)
    epsilon = attributes(node).get("epsilon", _EPSILON)
    assert isinstance(epsilon, float)  # noqa: S101 - the operator's own type, checked by the gate
    factor = gain / np.sqrt(variance + epsilon)
    value, result, dtype = node.input[0], node.output[0], state.constants[node.input[1]].dtype
    wide = [-1, *[1] * (rank - 2)]
    names = [
        state.add(f"{result}_{suffix}", array.reshape(wide).astype(dtype))
        for suffix, array in (("factor", factor), ("shift", shift - mean * factor))
    ]
    scaled = free_name(f"{result}_scaled", {one for each in state.graph.node for one in each.output})
    node.CopyFrom(helper.make_node("Mul", [value, names[0]], [scaled], name=node.name))
    place = next(place for place, each in enumerate(state.graph.node) if each.output[0] == scaled)
    state.graph.node.insert(place + 1, helper.make_node("Add", [scaled, names[1]], [result]))


def _whole_plane(state: _Rewriting, node: onnx.NodeProto) -> None:
    """An average over the whole plane is GlobalAveragePool."""
    given, data = attributes(node), state.shapes.get(node.input[0], ())
    kernel = _numbers(given.get("kernel_shape"), 0, 0)
    padded = any(_numbers(given.get("pads"), 0, 0))
    if len(data) >= 3 and tuple(kernel) == data[2:] and not padded:
        node.op_type = "GlobalAveragePool"
        del node.attribute[:]


def _added(state: _Rewriting, node: onnx.NodeProto) -> None:
    """A constant that is added to a convolution or a product is its bias."""
    for place in (0, 1):
        maker, bias = state.makers.get(node.input[place]), state.constants.get(node.input[1 - place])
        if maker is None or bias is None or maker.domain or state.readers[node.input[place]] != 1:
            continue
        form = _with_bias(state, maker, bias)
        if form is None:
            continue
        operator, row = form
        _join(state, node, maker, operator, row)
        return


def _with_bias(
    state: _Rewriting, maker: onnx.NodeProto, added: NDArray[np.generic]
) -> tuple[str, NDArray[np.generic]] | None:
    """What the operator becomes, and its bias; None where it cannot take it up."""
    shape = state.shapes.get(maker.output[0], ())
    weight = state.shapes.get(maker.input[1]) or state.constants.get(maker.input[1], np.zeros(0)).shape
    axis = {"Conv": 1, "ConvTranspose": 1, "MatMul": len(shape) - 1, "Gemm": 1}.get(maker.op_type)
    if axis is None or not shape or (maker.op_type in ("MatMul", "Gemm") and (len(shape), len(weight)) != (2, 2)):
        return None
    aligned = (1,) * (len(shape) - added.ndim) + added.shape
    if len(aligned) != len(shape) or any(
        size not in (1, shape[at] if at == axis else 1) for at, size in enumerate(aligned)
    ):
        return None
    if maker.op_type == "Gemm" and attributes(maker).get("beta", 1.0) != 1.0:
        return None
    row = np.broadcast_to(added.reshape(-1), (shape[axis],))
    if len(maker.input) > 2 and maker.input[2]:
        old = state.constants.get(maker.input[2])
        if old is None or old.size not in (1, row.size):
            return None
        row = old.reshape(-1) + row
    return ("Gemm" if maker.op_type == "MatMul" else maker.op_type), np.ascontiguousarray(row)


def _join(
    state: _Rewriting, node: onnx.NodeProto, maker: onnx.NodeProto, operator: str, row: NDArray[np.generic]
) -> None:
    """The operator with its bias in the place of the addition, so that its result has the addition's name."""
    del maker.input[2:]
    joined = onnx.NodeProto()
    joined.CopyFrom(maker)
    joined.op_type = operator
    joined.input.append(state.add(f"{joined.input[1]}_bias", row))
    joined.output[0] = node.output[0]
    node.CopyFrom(joined)
    state.graph.node.remove(maker)
    state.makers[node.output[0]] = node


_RULES: Mapping[str, tuple[Callable[[_Rewriting, onnx.NodeProto], None], ...]] = MappingProxyType(
    {
        "Add": (_added,),
        "BatchNormalization": (_normalised,),
        "Conv": (_padding,),
        "MaxPool": (_padding,),
        "AveragePool": (_padding, _whole_plane),
    }
)
