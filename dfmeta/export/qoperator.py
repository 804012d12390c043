"""A quantized model in integer operators (QLinearConv, QLinearMatMul), which code generators read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dfmeta.errors import ExportError
from dfmeta.export import _integer_sums
from dfmeta.export._opset import at_opset
from dfmeta.export.quantized import EIGHT_BITS, QuantizedModel, QuantizedValue, QuantizedWeight
from dfmeta.graph import Graph
from dfmeta.graph.canonical import drop_unused, rename
from dfmeta.graph.folding import free_name

Steps = dict[str, str]


def integer_graph(model: QuantizedModel) -> Graph:
    """The model with each quantized convolution and matrix product as one integer operator.

    A Relu whose result is written as unsigned integers from 0 up disappears: cutting off at 0 is what it does. The
    largest of a window and another layout are taken of the integers themselves. A Gemm is a convolution with a kernel
    of 1, because code generators take one scale only for all columns of a product. A residual addition of images is a
    convolution too (:mod:`dfmeta.export._integer_sums`). What else lies between integer operators stays in floating
    point.

    Args:
        model: its weights and values in eight bits.

    Raises:
        ExportError: weights or values of other bits, or an operator whose result has no range.
    """
    _require_eight_bits(model)
    where = model.graph.where
    proto = at_opset(model.graph.model, *EIGHT_BITS, where)
    _Integers(proto.graph, model, where).write()
    drop_unused(proto.graph)
    del proto.graph.value_info[:]
    return Graph.from_bytes(proto.SerializeToString(deterministic=True), where)


def _require_eight_bits(model: QuantizedModel) -> None:
    narrow = [weight.tensor for weight in model.weights if weight.bits != 8]
    narrow += [value.value for value in model.values if not value.dtype.endswith("int8")]
    if narrow or not model.values:
        found = f"{narrow[0]!r} of other bits" if narrow else "values in floating point"
        raise ExportError(model.graph.where, found, "weights and values of 8 bits", "Ask for w8a8, or for form qdq.")


# What gives the same integers, whether they are looked at as integers or as the numbers that they stand for.
_SAME_OF_INTEGERS = frozenset({"MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"})


class _Integers:
    """Rewrites a graph in place."""

    def __init__(self, graph: onnx.GraphProto, model: QuantizedModel, where: str) -> None:
        self.graph, self.model, self.where = graph, model, where
        self.taken = {name for node in graph.node for name in (*node.input, *node.output)}
        self.taken |= {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
        self.arrays: Mapping[str, np.ndarray] = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self.readers: dict[str, list[str]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node.op_type)
        self.steps: dict[str, Steps] = {}
        # The integers of each value that an integer operator has already made, and their meaning.
        self.made: dict[str, tuple[str, QuantizedValue]] = {}

    def write(self) -> None:
        """Node by node, in the graph's order."""
        weights = {weight.tensor: weight for weight in self.model.weights}
        values = {value.value: value for value in self.model.values}
        nodes = [node for value in self.graph.input for node in self._quantized(values.get(value.name))]
        for node in list(self.graph.node):
            nodes += self._node(node, weights, values)
            for name in node.output:
                nodes += self._quantized(values.get(name))
        ends = {output.name for output in self.graph.output}
        for name in values:
            if name not in ends:
                for node in nodes:
                    if node.op_type != "QuantizeLinear":
                        rename(node.input, name, f"{name}_dequantized")
        raw = [node.SerializeToString() for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend([onnx.NodeProto.FromString(one) for one in raw])

    def add(self, name: str, array: np.ndarray) -> str:
        """A new initializer; its name."""
        name = free_name(name, self.taken)
        self.taken.add(name)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def shape(self, name: str) -> tuple[int | str | None, ...]:
        """Sizes of a value of the model."""
        return tuple(self.model.graph.value(name).shape)

    def step(self, value: QuantizedValue) -> tuple[str, str]:
        """Names of a value's scale and zero point."""
        key = f"{value.scale!r} {value.zero} {value.dtype}"
        if key not in self.steps:
            scale = self.add(f"{value.value}_scale", np.asarray(value.scale, np.float32))
            zero = self.add(f"{value.value}_zero_point", np.asarray(value.zero).astype(value.dtype))
            self.steps[key] = {"scale": scale, "zero": zero}
        return self.steps[key]["scale"], self.steps[key]["zero"]

    def _quantized(self, value: QuantizedValue | None) -> list[onnx.NodeProto]:
        """The integers of a value, and the numbers that they stand for."""
        if value is None:
            return []
        scale, zero = self.step(value)
        name, integers = value.value, f"{value.value}_quantized"
        nodes = []
        given = self.made.get(name)
        if given is not None and (given[1].scale, given[1].zero, given[1].dtype) == (
            value.scale,
            value.zero,
            value.dtype,
        ):
            integers = given[0]
        else:
            nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [integers]))
        self.made[name] = integers, value
        nodes.append(helper.make_node("DequantizeLinear", [integers, scale, zero], [f"{name}_dequantized"]))
        return nodes

    def _node(
        self, node: onnx.NodeProto, weights: Mapping[str, QuantizedWeight], values: Mapping[str, QuantizedValue]
    ) -> list[onnx.NodeProto]:
        given = self._without_weights(node)
        if given is not None:
            return given
        weight = weights.get(node.input[1]) if len(node.input) > 1 else None
        value = values.get(node.input[0]) if weight is not None else None
        if weight is None or value is None or node.op_type not in ("Conv", "MatMul", "Gemm"):
            if weight is not None:
                return [self._dequantized(weight), node]
            return [node]
        output = self.model.outputs.get(node.output[0])
        if output is None:
            raise ExportError(
                f"{self.where}: output {node.output[0]!r}",
                "no range",
                "the range of each integer operator's result",
                "Record with the preset 'calibration', or ask for form qdq.",
            )
        if node.op_type == "Conv":
            return self._convolution(node, weight, value, output)
        if node.op_type == "Gemm":
            return self._gemm(node, weight, value, output)
        return self._product(node, weight, value, output)

    def _without_weights(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """What needs no weight to be done with integers; None for all else."""
        name = node.output[0]
        if node.op_type == "Relu" and node.input[0] in self.made and self.readers[node.input[0]] == ["Relu"]:
            given = self.made[node.input[0]]
            if given[1].dtype == "uint8" and given[1].zero == 0:
                self.made[name] = given
            return [node]
        if node.op_type in _SAME_OF_INTEGERS and node.input[0] in self.made and len(node.output) == 1:
            return self._of_integers(node)
        output = self.model.outputs.get(name)
        if output is not None and _integer_sums.adds(node, self):
            return _integer_sums.added(node, self, output)
        if output is not None and _integer_sums.averages(node, self):
            return _integer_sums.averaged(node, self, output)
        return None

    def _of_integers(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """An operator that keeps integers, of the integers."""
        integers, value = self.made[node.input[0]]
        name = node.output[0]
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.input[0] = integers
        made.output[0] = self.free(f"{name}_quantized")
        self.made[name] = made.output[0], value
        return [made, helper.make_node("DequantizeLinear", [made.output[0], *self.step(value)], [name])]

    def free(self, name: str) -> str:
        """A name for a new value."""
        name = free_name(name, self.taken)
        self.taken.add(name)
        return name

    def _dequantized(self, weight: QuantizedWeight) -> onnx.NodeProto:
        """A weight that no integer operator reads: as in the default form."""
        codes = self.add(f"{weight.tensor}_codes", weight.codes)
        scale, zero = self._weight_steps(weight)
        made = free_name(f"{weight.tensor}_dequantized", self.taken)
        self.taken.add(made)
        for node in self.graph.node:
            rename(node.input, weight.tensor, made)
        return helper.make_node("DequantizeLinear", [codes, scale, zero], [made], axis=weight.axis)

    def _convolution(
        self, node: onnx.NodeProto, weight: QuantizedWeight, value: QuantizedValue, output: QuantizedValue
    ) -> list[onnx.NodeProto]:
        name = node.output[0]
        given = [self.made[value.value][0], *self.step(value)]
        given += [self.add(f"{weight.tensor}_codes", weight.codes), *self._weight_steps(weight), *self.step(output)]
        if len(node.input) > 2 and node.input[2]:
            given.append(self._bias(node.input[2], self.arrays[node.input[2]], weight.scales, value))
        integers = self.free(f"{name}_quantized")
        made = helper.make_node("QLinearConv", given, [integers], name=node.name)
        made.attribute.extend(node.attribute)
        self.made[name] = integers, output
        return [made, helper.make_node("DequantizeLinear", [integers, *self.step(output)], [name])]

    def _bias(self, name: str, bias: np.ndarray, scales: np.ndarray, value: QuantizedValue) -> str:
        """A bias in the steps of the products that it is added to."""
        codes = np.rint(bias.astype(np.float64) / (scales.astype(np.float64) * value.scale))
        most = 2**31 - 1
        return self.add(f"{name}_codes", np.clip(codes, -most, most).astype(np.int32))

    def _gemm(
        self, node: onnx.NodeProto, weight: QuantizedWeight, value: QuantizedValue, output: QuantizedValue
    ) -> list[onnx.NodeProto]:
        """A convolution with a kernel of 1, between reshapes."""
        settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        bias = self.arrays.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
        codes = weight.codes if settings.get("transB", 0) else weight.codes.T
        if settings.get("transA", 0) or bias is None or bias.size not in (1, len(codes)):
            return [self._dequantized(weight), node]
        name, alpha = node.output[0], settings.get("alpha", 1.0)
        image, channels, integers = (self.free(f"{name}_{word}") for word in ("image", "channels", "quantized"))
        to_image = self.add(f"{name}_image_shape", np.array([0, -1, 1, 1], np.int64))
        to_rows = self.add(f"{name}_rows_shape", np.array([0, -1], np.int64))
        kernels = self.add(f"{weight.tensor}_codes", np.ascontiguousarray(codes)[:, :, None, None])
        given = [image, *self.step(value), kernels, *self._weight_steps(weight, alpha), *self.step(output)]
        if len(node.input) > 2 and node.input[2]:
            full = np.broadcast_to(bias.reshape(-1) * settings.get("beta", 1.0), (len(codes),))
            given.append(self._bias(node.input[2], full, weight.scales * np.float32(alpha), value))
        self.made[name] = integers, output
        return [
            helper.make_node("Reshape", [self.made[value.value][0], to_image], [image]),
            helper.make_node("QLinearConv", given, [channels], name=node.name, kernel_shape=[1, 1]),
            helper.make_node("Reshape", [channels, to_rows], [integers]),
            helper.make_node("DequantizeLinear", [integers, *self.step(output)], [name]),
        ]

    def _product(
        self, node: onnx.NodeProto, weight: QuantizedWeight, value: QuantizedValue, output: QuantizedValue
    ) -> list[onnx.NodeProto]:
        """A product; what adds a bias to it follows in floating point."""
        if weight.codes.ndim != 2:
            return [self._dequantized(weight), node]
        given = [self.made[value.value][0], *self.step(value), self.add(f"{weight.tensor}_codes", weight.codes)]
        given += [*self._weight_steps(weight), *self.step(output)]
        integers = self.free(f"{node.output[0]}_quantized")
        self.made[node.output[0]] = integers, output
        return [
            helper.make_node("QLinearMatMul", given, [integers], name=node.name),
            helper.make_node("DequantizeLinear", [integers, *self.step(output)], [node.output[0]]),
        ]

    def _weight_steps(self, weight: QuantizedWeight, factor: float = 1.0) -> tuple[str, str]:
        scale = self.add(f"{weight.tensor}_scale", (weight.scales * np.float32(factor)).astype(np.float32))
        return scale, self.add(f"{weight.tensor}_zero_point", np.zeros(weight.scales.shape, np.int8))
