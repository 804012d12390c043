"""Sums and means of integers in the operators that integers have.

ONNX's own domain adds no quantized values. A convolution of one channel at a time does: with two taps, one on each
summand, and weights in the ratio of their steps; and with a tap on every place of a plane, the mean of the plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import onnx
from onnx import helper

from dfmeta.export.quantized import QuantizedValue

_MOST = 127
_Shape = tuple[int | str | None, ...]


class Writer(Protocol):
    """A graph on the way to integers.

    Attributes:
        made: value to the name of its integers, and their meaning.
        arrays: initializer to its values.
    """

    made: dict[str, tuple[str, QuantizedValue]]
    arrays: Mapping[str, np.ndarray]

    def add(self, name: str, array: np.ndarray) -> str:
        """A new initializer; its name."""

    def free(self, name: str) -> str:
        """A name for a new value."""

    def step(self, value: QuantizedValue) -> tuple[str, str]:
        """Names of a value's scale and zero point."""

    def shape(self, name: str) -> _Shape:
        """Sizes of a value."""


def adds(node: onnx.NodeProto, graph: Writer) -> bool:
    """Whether a node adds two images of integers, both ``[n, c, h, w]`` and of one type."""
    if node.op_type != "Add" or not all(name in graph.made for name in node.input):
        return False
    one, other = (graph.shape(name) for name in node.input)
    return one == other and _is_image(one) and len({graph.made[name][1].dtype for name in node.input}) == 1


def added(node: onnx.NodeProto, graph: Writer, output: QuantizedValue) -> list[onnx.NodeProto]:
    """Two images below each other, and a convolution that reads both.

    Args:
        node: of which :func:`adds` holds.
        graph: that it is in; told what was made.
        output: how the sum is written.
    """
    name, (first, second) = node.output[0], (graph.made[one] for one in node.input)
    _, channels, height, _ = _image(graph.shape(node.input[0]))
    a, b, unit = weights_of_sum(first[1].scale, second[1].scale)
    kernels = np.tile(np.array([a, b], np.int8).reshape(1, 1, 2, 1), (channels, 1, 1, 1))
    # The summands' own zero points are taken off here, so that the image of both has the zero point 0.
    bias = np.full(channels, -a * first[1].zero - b * second[1].zero, np.int32)
    joined, integers = graph.free(f"{name}_summands"), graph.free(f"{name}_quantized")
    one = graph.add(f"{name}_one", np.array(1.0, np.float32))
    none = graph.add(f"{name}_zero_point", np.zeros((), first[1].dtype))
    given = [joined, one, none, *_kernels(graph, name, kernels, unit), *graph.step(output)]
    given.append(graph.add(f"{name}_bias", bias))
    graph.made[name] = integers, output
    return [
        helper.make_node("Concat", [first[0], second[0]], [joined], axis=2),
        helper.make_node(
            "QLinearConv",
            given,
            [integers],
            name=node.name,
            group=channels,
            kernel_shape=[2, 1],
            dilations=[height, 1],
        ),
        helper.make_node("DequantizeLinear", [integers, *graph.step(output)], [name]),
    ]


def averages(node: onnx.NodeProto, graph: Writer) -> bool:
    """Whether a node takes the mean of each plane of an image of integers."""
    if node.op_type not in ("GlobalAveragePool", "ReduceMean") or node.input[0] not in graph.made:
        return False
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    given = graph.arrays.get(node.input[1]) if len(node.input) > 1 else settings.get("axes")
    axes = [] if given is None else sorted(int(axis) % 4 for axis in given)
    return _is_image(graph.shape(node.input[0])) and (node.op_type == "GlobalAveragePool" or axes == [2, 3])


def averaged(node: onnx.NodeProto, graph: Writer, output: QuantizedValue) -> list[onnx.NodeProto]:
    """A convolution that reads each plane whole.

    Args:
        node: of which :func:`averages` holds.
        graph: that it is in; told what was made.
        output: how the mean is written.
    """
    name, (integers, value) = node.output[0], graph.made[node.input[0]]
    _, channels, height, width = _image(graph.shape(node.input[0]))
    kernels = _kernels(graph, name, np.ones((channels, 1, height, width), np.int8), 1 / (height * width))
    made = graph.free(f"{name}_image")
    given = [integers, *graph.step(value), *kernels, *graph.step(output)]
    nodes = [helper.make_node("QLinearConv", given, [made], name=node.name, group=channels)]
    if len(graph.shape(name)) == 2:
        image, made = made, graph.free(f"{name}_quantized")
        rows = graph.add(f"{name}_rows_shape", np.array([0, -1], np.int64))
        nodes.append(helper.make_node("Reshape", [image, rows], [made]))
    graph.made[name] = made, output
    return [*nodes, helper.make_node("DequantizeLinear", [made, *graph.step(output)], [name])]


def weights_of_sum(first: float, second: float) -> tuple[int, int, float]:
    """Integers of 8 bits in the ratio of two steps.

    The larger step is met exactly. The other is off by at most 1/254 of the larger, which is one step of it at the end
    of 8 bits and half a step of their sum, and mostly by far less, as 127 denominators are tried.

    Args:
        first: a step, above 0.
        second: another.

    Returns:
        ``(a, b, unit)`` with ``a * unit`` about ``first`` and ``b * unit`` about ``second``.
    """
    largest = max(first, second)
    ratio = min(first, second) / largest
    tried = np.arange(1, _MOST + 1)
    large = int(tried[np.argmin(np.abs(np.rint(tried * ratio) / tried - ratio))])
    small = int(np.rint(large * ratio))
    return (large, small, largest / large) if first >= second else (small, large, largest / large)


def _kernels(graph: Writer, name: str, kernels: np.ndarray, unit: float) -> list[str]:
    scale = graph.add(f"{name}_unit", np.array(unit, np.float32))
    return [
        graph.add(f"{name}_kernels", kernels),
        scale,
        graph.add(f"{name}_kernels_zero_point", np.zeros((), np.int8)),
    ]


def _is_image(shape: _Shape) -> bool:
    return len(shape) == 4 and all(isinstance(size, int) for size in shape[1:])


def _image(shape: _Shape) -> tuple[int, int, int, int]:
    """Sizes of an image at batch 1."""
    channels, height, width = (int(size) for size in shape[1:] if isinstance(size, int))
    return 1, channels, height, width
