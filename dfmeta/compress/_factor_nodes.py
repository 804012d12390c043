"""An operator of a graph as a chain of smaller ones of its own kind; all other nodes and names stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dfmeta.compress._operators import Operator
from dfmeta.graph import Graph
from dfmeta.graph.canonical import drop_unused
from dfmeta.graph.folding import free_name

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stage:
    """One linear operator of a chain.

    Attributes:
        name: what is added to the names of the operator that it comes from.
        weight: a convolution's kernel ``[out, in, ...]``; of a product ``[out, in]``.
        axes: spatial axes along which it strides, pads and dilates as the whole operator does.
    """

    name: str
    weight: Array
    axes: tuple[int, ...] = ()


def rewritten(graph: Graph, chains: Iterable[tuple[Operator, Sequence[Stage]]]) -> Graph:
    """The graph with some of its operators as chains.

    The first stage reads what the operator read, the last one writes what it wrote and adds its bias. New names are
    the old ones of node, weight and output, with the stage's name after a dot.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    nodes = list(model.graph.node)
    places = {operator.node: (operator, stages) for operator, stages in chains}
    taken = {*graph.values, *(node.name for node in nodes)}
    del model.graph.node[:]
    for index, node in enumerate(nodes):
        if index in places:
            _write(model.graph, node, *places[index], taken)
        else:
            model.graph.node.append(node)
    drop_unused(model.graph)
    # Shapes of what is no longer there; those of what is are inferred.
    del model.graph.value_info[:]
    return Graph.from_bytes(model.SerializeToString(deterministic=True), graph.where)


def _write(
    proto: onnx.GraphProto, node: onnx.NodeProto, operator: Operator, stages: Sequence[Stage], taken: set[str]
) -> None:
    """Append the chain."""

    def free(wanted: str) -> str:
        taken.add(name := free_name(wanted, taken))
        return name

    value = operator.entry.value
    dtype = next(tensor.data_type for tensor in proto.initializer if tensor.name == operator.entry.weight)
    for number, stage in enumerate(stages):
        last = number == len(stages) - 1
        weight, attributes = _laid_out(operator, node, stage, first=not number, last=last)
        constant = free(f"{operator.entry.weight}.{stage.name}")
        numbers = weight.astype(helper.tensor_dtype_to_np_dtype(dtype))
        proto.initializer.append(numpy_helper.from_array(np.ascontiguousarray(numbers), constant))
        output = node.output[0] if last else free(f"{node.output[0]}.{stage.name}")
        inputs = [value, constant] if operator.place == 1 else [constant, value]
        inputs += list(node.input[2:]) if last else []
        label = free(f"{operator.label}.{stage.name}")
        proto.node.append(helper.make_node(node.op_type, inputs, [output], label, **attributes))
        value = output


def _laid_out(
    operator: Operator, node: onnx.NodeProto, stage: Stage, *, first: bool, last: bool
) -> tuple[Array, dict[str, Any]]:
    """A stage's weight as its operator reads it, and its attributes."""
    given = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if operator.entry.op == "Conv":
        return stage.weight, _window(operator, stage)
    if operator.entry.op == "MatMul":
        weight = stage.weight if operator.place == 0 else stage.weight.T
        return weight.reshape(*operator.shape[:-2], *weight.shape), {}
    scales = {name: given[name] for name in ("alpha", "beta") if last and name in given}
    # Of a Gemm with its weight on the left, only the first stage reads the data, which may lie turned.
    turned = {"transB": 1} if operator.place == 1 or (first and given.get("transB")) else {}
    return stage.weight, {**turned, **scales}


def _window(operator: Operator, stage: Stage) -> dict[str, Any]:
    window = operator.entry.window
    if window is None:
        raise ValueError(f"a convolution {operator.label!r} without a window")
    axes = len(window.kernel)

    def along(sizes: Sequence[int], otherwise: int) -> list[int]:
        return [sizes[axis] if axis in stage.axes else otherwise for axis in range(axes)]

    return {
        "kernel_shape": list(stage.weight.shape[2:]),
        "strides": along(window.strides, 1),
        "dilations": along(window.dilations, 1),
        "pads": [*along(window.before, 0), *along(window.after, 0)],
    }
