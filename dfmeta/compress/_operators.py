"""Weight operators as matrices, what a bundle says of their inputs, and graphs with other weights and biases.

A matrix is ``[g, o, d]``: for each convolution group, a row for each output and a column for each feature, features in
the order (channel, tap), as records have them. A transposed convolution multiplies each position's channels with its
whole weight, so that its rows are (output, tap) and its columns are channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dfmeta.compress._matrices import Array, Indices, by_channel, matrix, rows
from dfmeta.graph import Graph
from dfmeta.graph.dtypes import FLOATS
from dfmeta.graph.folding import free_name
from dfmeta.graph.learning import with_values
from dfmeta.graph.operator_inputs import OperatorInput, operator_inputs
from dfmeta.records import PublishedRecords
from dfmeta.records.operator_moments import moment_record, operator_moment


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """One weight operator as a matrix.

    Attributes:
        entry: its label, operator, weight, the value that it reads, window and groups.
        node: its place in ``graph.model.graph.node``.
        place: which operand the weight is; 0 for a product with the weight on the left.
        bias: name of its bias: an initializer of one number for each output, or for all; None without one.
        bias_node: the node that reads it: the operator, or the Add that alone follows a MatMul.
        weight: ``[g, o, d]`` the initializer's values, without a Gemm's ``alpha``.
        alpha, beta: of a Gemm; 1 elsewhere.
        shape: of the initializer.
        transposed: whether the initializer has features before outputs.
        axis: of the initializer, along which each channel has its own scale when it is quantized.
        scale_of: ``[g, o]`` index along ``axis`` of each row.
        output_of: ``[g, o]`` channel of the output that each row adds to.
        shares: labels of the other operators that read the same initializer, as the same matrix.
    """

    entry: OperatorInput
    node: int
    place: int
    bias: str | None
    bias_node: int
    weight: Array
    alpha: float
    beta: float
    shape: tuple[int, ...]
    transposed: bool
    axis: int
    scale_of: Indices
    output_of: Indices
    shares: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The operator's name in reports and in records."""
        return self.entry.label

    @property
    def outputs(self) -> int:
        """Channels of the output."""
        return int(self.output_of.max()) + 1

    def restored(self, weight: NDArray[np.floating]) -> NDArray[np.float32]:
        """``[g, o, d]`` in the initializer's own shape and layout, float32."""
        return self.laid_out(weight).astype(np.float32)

    def laid_out(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """As :meth:`restored`, in the array's own element type (codes, masks)."""
        groups, outputs, features = rows.shape
        moved = rows.swapaxes(1, 2) if self.transposed else rows
        if (groups, outputs, features) != self.weight.shape:
            raise ValueError(f"a matrix of shape {rows.shape} for a weight of {self.weight.shape}")
        return np.ascontiguousarray(moved).reshape(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class InputRecord:
    """What a bundle says of an operator's input x.

    Attributes:
        moment: ``[g, d, d]`` E[x x^T], float64; None where nothing was recorded.
        mean: ``[g, d]`` E[x].
        count: samples that went in.
        form: ``full``, ``toeplitz``, ``kronecker`` or ``diagonal``; empty where nothing was recorded.
        exact: whether the moment's entries are those of the data, to float32.
    """

    moment: Array | None = None
    mean: Array | None = None
    count: int = 0
    form: str = ""
    exact: bool = False


def operators(graph: Graph) -> tuple[Operator, ...]:
    """Every operator whose weight is an initializer that nothing but such operators reads, in the graph's order.

    Args:
        graph: with its constants written out (:func:`dfmeta.graph.folding.without_batch_norm`).
    """
    return _found(graph)[0]


def left_as_they_are(graph: Graph) -> tuple[tuple[str, str], ...]:
    """Label of each operator with a constant weight that :func:`operators` leaves out, and why."""
    return _found(graph)[1]


def _found(graph: Graph) -> tuple[tuple[Operator, ...], tuple[tuple[str, str], ...]]:
    nodes = _nodes(graph)
    given = Counter(name for proto in graph.model.graph.node for name in proto.input)
    given.update(output.name for output in graph.outputs)
    entries = operator_inputs(graph)
    named = {entry.label: entry for entry in entries}
    read = Counter(entry.weight for entry in entries if _is_weight(graph, entry, nodes[entry.label]))
    found: list[Operator] = []
    reasons: list[tuple[str, str]] = []
    for label, entry in named.items():
        if not _is_weight(graph, entry, nodes[label]):
            reasons.append((label, f"its weight is a view of {entry.weight!r}, or quantized already"))
        elif given[entry.weight] != read[entry.weight]:
            reasons.append((label, f"its weight {entry.weight!r} is read elsewhere too"))
        else:
            found.append(_operator(graph, entry, nodes[label]))
    alike = {one.label: tuple(o.label for o in found if o is not one and _same(one, o)) for one in found}
    single = [one for one in found if len(alike[one.label]) == read[one.entry.weight] - 1]
    reasons += [
        (one.label, f"its weight {one.entry.weight!r} is read in several ways") for one in found if one not in single
    ]
    return tuple(replace(one, shares=alike[one.label]) for one in single), tuple(reasons)


def _nodes(graph: Graph) -> dict[str, int]:
    """Place of each weight operator, by the label that :func:`operator_inputs` gives it."""
    seen: Counter[str] = Counter()
    places = {}
    for place, proto in enumerate(graph.model.graph.node):
        if proto.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and proto.domain in ("", "ai.onnx"):
            places[proto.name or f"{proto.op_type}_{seen[proto.op_type]}"] = place
            seen[proto.op_type] += 1
    return places


def _is_weight(graph: Graph, entry: OperatorInput, place: int) -> bool:
    """Whether the operator reads the initializer itself, in floating point."""
    proto = graph.model.graph.node[place]
    return entry.weight in proto.input and graph.dtype(entry.weight) in FLOATS


def _same(one: Operator, other: Operator) -> bool:
    same_weight = one.entry.weight == other.entry.weight
    return same_weight and one.weight.shape == other.weight.shape and one.transposed == other.transposed


def _operator(graph: Graph, entry: OperatorInput, place: int) -> Operator:
    proto = graph.model.graph.node[place]
    array = np.asarray(graph.initializers[entry.weight], np.float64)
    operand = list(proto.input).index(entry.weight)
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in proto.attribute}
    weight, transposed, axis = matrix(entry, array, operand, settings)
    scale_of, output_of = rows(entry, weight, array.shape)
    bias, bias_node = _bias(graph, entry.op, place, operand, int(output_of.max()) + 1)
    alpha, beta = float(settings.get("alpha", 1.0)), float(settings.get("beta", 1.0))
    return Operator(
        entry, place, operand, bias, bias_node, weight, alpha, beta, array.shape, transposed, axis, scale_of, output_of
    )


def _bias(graph: Graph, op: str, place: int, operand: int, outputs: int) -> tuple[str | None, int]:
    """Name of the bias, and the node that reads it."""
    proto = graph.model.graph.node[place]
    if op != "MatMul":
        name = proto.input[2] if len(proto.input) > 2 else ""
        usable = name in graph.initializers and by_channel(graph.value(name).shape, op, operand, outputs)
        return (name, place) if usable else (None, place)
    made = proto.output[0]
    readers = [number for number, node in enumerate(graph.model.graph.node) for name in node.input if name == made]
    if len(readers) != 1 or made in {output.name for output in graph.outputs}:
        return None, place
    reader = graph.model.graph.node[readers[0]]
    other = [name for name in reader.input if name != made]
    if reader.op_type != "Add" or len(other) != 1 or other[0] not in graph.initializers:
        return None, place
    same_rank = len(graph.value(reader.output[0]).shape) == len(graph.value(made).shape)
    if not same_rank or not by_channel(graph.value(other[0]).shape, op, operand, outputs):
        return None, place
    return other[0], readers[0]


def input_record(records: PublishedRecords, operator: Operator) -> InputRecord:
    """What the records say of an operator's input; an empty one where they say nothing, or observed nothing.

    Args:
        records: of the very graph that the operator's own was made from, before any weight was changed.
        operator: of it.
    """
    statistic = moment_record(records, operator.entry)
    found = operator_moment(statistic) if statistic is not None else None
    if found is None:
        return InputRecord()
    moment, mean, (groups, _, features) = found.whole, found.mean, operator.weight.shape
    if len(moment) == 1 and groups > 1:
        # A grouped transposed convolution has one record over all of its channels.
        blocks = moment[0].reshape(groups, features, groups, features)
        moment = np.stack([blocks[group, :, group] for group in range(groups)])
        mean = mean.reshape(groups, features)
    return InputRecord(moment, mean, found.count, found.form, found.exact)


def bias_values(graph: Graph, operator: Operator) -> Array:
    """``[outputs]`` what an operator adds to each channel of its output, ``beta`` included; zeros without a bias."""
    if operator.bias is None:
        return np.zeros(operator.outputs)
    factor = operator.beta if operator.bias_node == operator.node else 1.0
    values = factor * np.asarray(graph.initializers[operator.bias], np.float64).reshape(-1)
    return np.broadcast_to(values, (operator.outputs,)).copy()


def with_weights(graph: Graph, values: Mapping[str, NDArray[np.floating]]) -> Graph:
    """The same graph with other values for some initializers, each of its own shape.

    Raises:
        GraphError: an unknown name or another shape.
    """
    return with_values(graph, values)


def with_bias(graph: Graph, values: Mapping[str, Array]) -> Graph:
    """The same graph with other biases; an operator without one gets it.

    Where the operator has no place for a bias, an Add follows it, and the names of all values stay. A bias that others
    read too is left to them.

    Args:
        graph: stays as it is.
        values: label of an operator of :func:`operators` to its whole bias ``[outputs]``, in units of its output.
    """
    known = {operator.label: operator for operator in operators(graph)}
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    nodes = list(model.graph.node)
    taken = set(graph.values)
    for label, bias in values.items():
        operator = known[label]
        dtype = graph.initializers[operator.entry.weight].dtype
        array = np.asarray(bias, np.float64).reshape(_bias_shape(graph, operator)).astype(dtype)
        name = free_name(f"{operator.label}.bias", taken)
        taken.add(name)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
        _connect(model.graph, nodes, operator, name, taken)
    _drop_unread(model.graph)
    del model.graph.value_info[:]
    return Graph.from_bytes(model.SerializeToString(deterministic=True), graph.where)


def _bias_shape(graph: Graph, operator: Operator) -> tuple[int, ...]:
    node = graph.model.graph.node[operator.node]
    if operator.entry.op in ("Conv", "ConvTranspose"):
        slot = operator.bias is not None or len(node.input) < 3 or not node.input[2]
        return (-1,) if slot else (-1, *[1] * (len(operator.shape) - 2))
    return (-1,) if operator.place == 1 else (-1, 1)


def _connect(
    proto: onnx.GraphProto, nodes: list[onnx.NodeProto], operator: Operator, name: str, taken: set[str]
) -> None:
    """Make the operator, or the Add behind it, read the new bias."""
    reader = nodes[operator.bias_node]
    own_slot = operator.entry.op != "MatMul" and (operator.bias is not None or not any(reader.input[2:]))
    if own_slot:
        del reader.input[2:]
        reader.input.append(name)
        for attribute in [attribute for attribute in reader.attribute if attribute.name == "beta"]:
            reader.attribute.remove(attribute)
    elif operator.bias is not None:
        reader.input[list(reader.input).index(operator.bias)] = name
    else:
        made = reader.output[0]
        reader.output[0] = free_name(f"{made}_without_bias", taken)
        taken.add(reader.output[0])
        proto.node.insert(list(proto.node).index(reader) + 1, helper.make_node("Add", [reader.output[0], name], [made]))


def _drop_unread(proto: onnx.GraphProto) -> None:
    read = {name for node in proto.node for name in node.input} | {output.name for output in proto.output}
    for tensor in [tensor for tensor in proto.initializer if tensor.name not in read]:
        proto.initializer.remove(tensor)
