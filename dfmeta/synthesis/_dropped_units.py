"""A teacher with dropout before its weight operators, whose masks are inputs: what it gives is no matter of chance."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from torch import Tensor

from dfmeta.graph import Graph, TorchGraph
from dfmeta.graph.operator_inputs import operator_inputs
from dfmeta.synthesis._contract import Task

WEIGHT_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class DroppedUnits:
    """The task's teacher with a factor for every unit that a weight operator reads (Srivastava et al., JMLR 15, 2014).

    Every value of the graph keeps its name, and stands before its own mask: with all factors 1 it is the teacher.

    Args:
        task: whose teacher it is.
        drop_input: probability that a number of the input is dropped.
        drop_hidden: that a hidden unit is.
    """

    def __init__(self, task: Task, drop_input: float, drop_hidden: float) -> None:
        self._task = task
        graph = task.teacher.graph
        masked = _masked_values(graph)
        self._drop = {name: drop_input if name == task.input_name else drop_hidden for name in masked}
        self._shapes = {name: tuple(int(size) for size in graph.value(name).shape[1:]) for name in masked}
        self._network = TorchGraph(_with_masks(graph, masked)).to(task.device).eval().requires_grad_(False)

    def masks(self, count: int) -> dict[str, Tensor]:
        """Fresh factors for ``count`` inputs: 0, or 1 / (1 - probability), so that sums keep their mean."""
        found = {}
        for name, drop in self._drop.items():
            kept = (self._task.uniform(count, *self._shapes[name]) >= drop).float()
            found[mask_name(name)] = kept / (1 - drop) if drop < 1 else kept
        return found

    def values(self, inputs: Tensor, names: Sequence[str], masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """The named values for ``inputs`` under these factors, differentiable."""
        return self._network.run({self._task.input_name: inputs, **masks}, names)


def mask_name(value: str) -> str:
    """The graph input that holds the factors of a value."""
    return f"{value} (factors)"


def _masked_values(graph: Graph) -> tuple[str, ...]:
    """What weight operators read: floating values with the batch first and no other size unknown."""
    found = []
    for read in operator_inputs(graph):
        value = graph.value(read.value)
        whole = len(value.shape) > 1 and all(isinstance(size, int) for size in value.shape[1:])
        if whole and not read.left_out and value.dtype == "float32":
            found.append(read.value)
    return tuple(dict.fromkeys(found))


def _with_masks(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with a product before each reading of the named values by a weight operator."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:]
    for node in graph.model.graph.node:
        reads = set(node.input[:2]) & set(names) if node.op_type in WEIGHT_OPERATORS else set()
        for name in sorted(reads):
            model.graph.node.append(onnx.helper.make_node("Mul", [name, mask_name(name)], [_product(name, node)]))
        copy = model.graph.node.add()
        copy.CopyFrom(node)
        copy.input[:] = [_product(name, node) if name in reads else name for name in node.input]
    batch = graph.inputs[0].shape[:1]
    for name in names:
        shape = [*batch, *graph.value(name).shape[1:]]
        info = onnx.helper.make_tensor_value_info(mask_name(name), onnx.TensorProto.FLOAT, shape)
        model.graph.input.append(info)
    return Graph.from_bytes(model.SerializeToString(), f"{graph.where}, with dropout")


def _product(name: str, reader: onnx.NodeProto) -> str:
    """Of one value there is a product for each of its readers, under the same mask."""
    return f"{name} (kept for {reader.output[0]})"
