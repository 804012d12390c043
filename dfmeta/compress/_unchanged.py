"""Which values of a changed graph are exactly what they were, or some channels of what they were.

Two graphs of one family are compared node by node, from the inputs on. A value is what it was if the same operator
makes it from the same constants, bit by bit, and from values that are what they were. Where a weight has lost outputs
and nothing else, what it makes is some channels of what it made, and so is everything that operators compute from it
channel by channel. Anything else counts as changed: the first weight that was refitted, retrained, factorised or
rounded, and all that follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from dfmeta.graph import Graph

Indices = NDArray[np.int64]

# Each channel of the result is a function of the same channel of the operand alone.
_ONE_OPERAND = frozenset(
    {
        "AveragePool",
        "Clip",
        "Dropout",
        "Elu",
        "Erf",
        "Gelu",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Tanh",
    }
)
_SEVERAL_OPERANDS = frozenset({"Add", "Sub", "Mul", "Div", "PRelu", "Max", "Min"})


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """A value that is what it was."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A value that is some channels of what it was.

    Attributes:
        axis: of the channels.
        kept: ``[k]`` the place that each channel had.
        of: how many there were.
    """

    axis: int
    kept: Indices
    of: int


Origin = Whole | Part


def origins(before: Graph, after: Graph) -> dict[str, Origin]:
    """For each value of ``after`` that is one of ``before``, whole or in part, which; changed ones are left out.

    Args:
        before: as it was.
        after: a graph made from it, whose values have kept their names.
    """
    found: dict[str, Origin] = {
        value.name: Whole() for value in after.inputs if value.name in {given.name for given in before.inputs}
    }
    makers = {name: node for node in before.model.graph.node for name in node.output if name}
    for node in after.model.graph.node:
        earlier = makers.get(next((name for name in node.output if name), ""))
        if earlier is not None and _same_node(earlier, node):
            origin = _origin(_Step(before, after, earlier, node, found))
            if origin is not None:
                found.update({name: origin for name in node.output if name})
    return found


def _same_node(earlier: onnx.NodeProto, node: onnx.NodeProto) -> bool:
    if (earlier.op_type, earlier.domain, list(earlier.output)) != (node.op_type, node.domain, list(node.output)):
        return False
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        # A graph inside may read values that its node does not list.
        return False
    return _attributes(earlier) == _attributes(node)


def _attributes(node: onnx.NodeProto) -> list[bytes]:
    return sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)


@dataclass(frozen=True, slots=True)
class _Step:
    """One node as it was and as it is.

    Attributes:
        before, after: the graphs.
        earlier, node: the node in each.
        known: origins of the values so far.
    """

    before: Graph
    after: Graph
    earlier: onnx.NodeProto
    node: onnx.NodeProto
    known: Mapping[str, Origin]

    def operands(self) -> list[Origin] | None:
        """Origins of the operands that are no constants; None where one has changed, or is another one."""
        if len(self.earlier.input) != len(self.node.input):
            return None
        found = []
        for was, now in zip(self.earlier.input, self.node.input, strict=True):
            constant = (was in self.before.initializers, now in self.after.initializers)
            if constant == (True, True) or not (was or now):
                continue
            if any(constant) or was != now or now not in self.known:
                return None
            found.append(self.known[now])
        return found

    def constants(self) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Place of each constant operand, and its values as they were and are."""
        pairs = enumerate(zip(self.earlier.input, self.node.input, strict=True))
        return [
            (place, self.before.initializers[was], self.after.initializers[now])
            for place, (was, now) in pairs
            if now in self.after.initializers
        ]

    def integer(self, name: str, default: int) -> int:
        """An attribute."""
        return next((int(each.i) for each in self.node.attribute if each.name == name), default)


def _origin(step: _Step) -> Origin | None:
    operands = step.operands()
    if operands is None:
        return None
    constants = step.constants()
    if all(isinstance(one, Whole) for one in operands):
        if all(_equal(was, now) for _, was, now in constants):
            return Whole()
        return _fewer_outputs(step, constants)
    parts = [one for one in operands if isinstance(one, Part)]
    if len(parts) != len(operands) or any(not _same_part(parts[0], one) for one in parts):
        return None
    return _channel_by_channel(step, parts[0], constants)


def _equal(was: np.ndarray, now: np.ndarray) -> bool:
    return was.dtype == now.dtype and was.shape == now.shape and was.tobytes() == now.tobytes()


def _same_part(one: Part, other: Part) -> bool:
    return one.axis == other.axis and one.of == other.of and np.array_equal(one.kept, other.kept)


def _fewer_outputs(step: _Step, constants: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> Part | None:
    """A weight operator whose weight and bias have lost outputs and nothing else."""
    axis = _output_axis(step)
    of = {place: (was, now) for place, was, now in constants}
    if axis is None or 1 not in of or set(of) - {1, 2}:
        return None
    was, now = (np.moveaxis(array, axis, 0) for array in of[1])
    if was.shape[1:] != now.shape[1:] or was.dtype != now.dtype:
        return None
    bias = of.get(2)
    if bias is not None and (bias[0].shape != (len(was),) or bias[1].shape != (len(now),)):
        return None
    rows, wanted = (_rows(weight, None if bias is None else bias[k]) for k, weight in enumerate((was, now)))
    # Of outputs that are equal in every bit, any stands for the others.
    places = {row: place for place, row in reversed(list(enumerate(rows)))}
    if any(row not in places for row in wanted):
        return None
    rank = len(step.after.value(step.node.output[0]).shape)
    channels = 1 if step.node.op_type == "Conv" else rank - 1
    return Part(channels, np.array([places[row] for row in wanted], np.int64), len(was))


def _output_axis(step: _Step) -> int | None:
    """Axis of the weight along which its outputs lie; None for an operator whose outputs cannot be cut alone."""
    if step.node.op_type == "Conv":
        return 0 if step.integer("group", 1) == 1 else None
    if step.node.op_type == "Gemm":
        return 0 if step.integer("transB", 0) else 1
    weight = step.node.op_type == "MatMul" and step.node.input[1] in step.after.initializers
    return 1 if weight and step.after.initializers[step.node.input[1]].ndim == 2 else None


def _rows(weight: np.ndarray, bias: np.ndarray | None) -> list[bytes]:
    tails = [b""] * len(weight) if bias is None else [number.tobytes() for number in bias]
    return [row.tobytes() + tail for row, tail in zip(weight, tails, strict=True)]


def _channel_by_channel(
    step: _Step, part: Part, constants: Sequence[tuple[int, np.ndarray, np.ndarray]]
) -> Part | None:
    op, rank = step.node.op_type, len(step.after.value(step.node.output[0]).shape)
    if any(step.node.output[1:]):
        # Places of largest values, say, are counted over all channels.
        return None
    if op in _ONE_OPERAND:
        return part if all(_equal(was, now) for _, was, now in constants) else None
    if op == "BatchNormalization" and part.axis == 1:
        return part if all(_cut(was, now, part, 0) for _, was, now in constants) else None
    if op in _SEVERAL_OPERANDS:
        fits = all(_cut(was, now, part, part.axis - (rank - was.ndim)) for _, was, now in constants)
        return part if fits else None
    if op == "Flatten" and part.axis == 1 and step.integer("axis", 1) == 1:
        sizes = step.before.value(step.earlier.input[0]).shape[2:]
        if all(isinstance(size, int) for size in sizes):
            each = int(np.prod([int(size) for size in sizes], dtype=np.int64))
            places = (part.kept[:, None] * each + np.arange(each)).reshape(-1)
            return Part(1, places, part.of * each)
    return None


def _cut(was: np.ndarray, now: np.ndarray, part: Part, axis: int) -> bool:
    """Whether a constant is the kept channels of what it was, or says the same of all channels."""
    if axis < 0 or was.shape[axis] == 1:
        return _equal(was, now)
    return was.shape[axis] == part.of and _equal(np.ascontiguousarray(was.take(part.kept, axis)), now)
