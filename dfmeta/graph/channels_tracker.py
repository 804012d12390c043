"""Which entries of which axes are one channel: labels on axes, and what ties labels together.

Every axis that can be cut has an array of labels, one for each entry. Operators tie labels (a residual addition ties
its two operands entry by entry) or fix them. Two entries are the same channel when a chain of ties joins them; a fixed
label fixes its whole channel. An axis without labels (a batch, a height) cannot be cut, and fixes what is tied to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from dfmeta.graph.load import Graph
from dfmeta.graph.ops.registry import Node

Labels = NDArray[np.int64]
Axes = list[Labels | None]
Role = Literal["producer", "parameter", "consumer"]


class Untraceable(Exception):
    """Raised by a rule that cannot say what an operator does to channels; the text says why."""


@dataclass(frozen=True, slots=True)
class _Fixed:
    labels: Labels
    reason: str


class Tracker:
    """Labels of all axes of one graph, filled in by the rules of :mod:`dfmeta.graph.channels_rules`.

    Args:
        graph: with its constants written out (:func:`~dfmeta.graph.constant_folding.folded`).
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.roles: dict[tuple[str, int], Role] = {}
        self._axes: dict[str, Axes] = {}
        self._count = 0
        self._ties: list[tuple[Labels, Labels]] = []
        self._fixed: list[_Fixed] = []
        self._read = {name for node in graph.model.graph.node for name in node.input}
        self._read |= {output.name for output in graph.outputs}
        for value in graph.inputs:
            self.set_fixed(value.name, f"graph input {value.name!r}")

    def fresh(self, count: int) -> Labels:
        """``[count]`` new labels, tied to nothing."""
        self._count += count
        return np.arange(self._count - count, self._count)

    def axes(self, name: str) -> Axes:
        """Labels of every axis of a value; an initializer gets its own when it is first asked for."""
        if name not in self._axes:
            if name not in self.graph.initializers:
                raise Untraceable(f"value {name!r} is not known")
            self._axes[name] = [self.fresh(size) for size in self.graph.initializers[name].shape]
        return self._axes[name]

    def known(self) -> Mapping[str, Axes]:
        """Labels of all values that rules have looked at."""
        return self._axes

    def constant(self, name: str) -> NDArray[np.generic]:
        """The numbers of an initializer.

        Raises:
            Untraceable: a value that is not constant.
        """
        if name not in self.graph.initializers:
            raise Untraceable(f"{name!r} is not a constant")
        array: NDArray[np.generic] = self.graph.initializers[name]
        return array

    def shape(self, name: str) -> tuple[int | str, ...]:
        """Sizes of a value, as inferred."""
        return self.graph.value(name).shape if name in self.graph.values else ()

    def read(self, name: str) -> bool:
        """Whether a value is used at all."""
        return bool(name) and name in self._read

    def set(self, name: str, axes: Axes) -> None:
        """Give a computed value its labels."""
        self._axes[name] = axes

    def set_fixed(self, name: str, reason: str) -> None:
        """Give a value labels of its own that cannot be cut; free axes get none."""
        if not name:
            return
        axes: Axes = [self.fresh(size) if isinstance(size, int) else None for size in self.shape(name)]
        self.set(name, axes)
        for labels in axes:
            self.fix(labels, reason)

    def tie(self, one: Labels | None, other: Labels | None, where: str) -> None:
        """Make two axes the same channels, entry by entry; an axis without labels fixes the other."""
        if one is None or other is None:
            self.fix(other if one is None else one, f"{where} joins it to an axis that is not of channels")
        elif len(one) != len(other):
            raise Untraceable(f"axes of {len(one)} and {len(other)} entries do not match")
        else:
            self._ties.append((one, other))

    def fix(self, labels: Labels | None, reason: str) -> None:
        """Let these channels never be cut; the first reason counts."""
        if labels is not None:
            self._fixed.append(_Fixed(labels, reason))

    def role(self, tensor: str, axis: int, role: Role) -> None:
        """Say what an initializer's axis is to its channels; the first word counts."""
        self.roles.setdefault((tensor, axis), role)

    def initializer_axes(self) -> dict[tuple[str, int], Labels]:
        """Labels of the initializers that rules have looked at, by tensor and axis, in file order."""
        return {
            (name, axis): labels
            for name in self.graph.initializer_names
            if name in self._axes
            for axis, labels in enumerate(self._axes[name])
            if labels is not None
        }

    def channels(self) -> tuple[Labels, dict[int, str]]:
        """The channel of every label (equal numbers, one channel), and why a channel is fixed."""
        parents = list(range(self._count))

        def root(label: int) -> int:
            while parents[label] != label:
                parents[label] = parents[parents[label]]
                label = parents[label]
            return label

        for one, other in self._ties:
            for first, second in zip(one.tolist(), other.tolist(), strict=True):
                low, high = sorted((root(first), root(second)))
                parents[high] = low
        channels = np.array([root(label) for label in range(self._count)], dtype=np.int64)
        reasons: dict[int, str] = {}
        for fixed in self._fixed:
            for channel in np.unique(channels[fixed.labels]).tolist():
                reasons.setdefault(channel, fixed.reason)
        return channels, reasons


def as_node(graph: Graph, proto: onnx.NodeProto, label: str) -> Node:
    """The node with its attributes as Python values."""
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in proto.attribute}
    text = {name: value.decode("utf-8", "replace") for name, value in attributes.items() if isinstance(value, bytes)}
    return Node(label, proto.op_type, graph.opset, tuple(proto.input), tuple(proto.output), attributes | text)


def numbers(array: NDArray[np.generic] | Sequence[int]) -> list[int]:
    """Integers of a small constant."""
    return [int(item) for item in np.asarray(array).reshape(-1)]
