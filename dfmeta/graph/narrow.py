"""The same graph with fewer channels: weights cut, and whatever counts channels rewritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dfmeta.errors import GraphError
from dfmeta.graph.channels import ChannelGroup, groups_of, traced
from dfmeta.graph.channels_rules import padding, slices
from dfmeta.graph.channels_tracker import Labels, Tracker, as_node, numbers
from dfmeta.graph.constant_folding import folded
from dfmeta.graph.inference import node_label
from dfmeta.graph.load import Graph
from dfmeta.graph.ops.registry import Node

Flags = NDArray[np.bool_]
_ADVICE = "See the groups of `channel_groups`."


def narrowed(graph: Graph, kept: Mapping[str, Sequence[int] | NDArray[np.int64]]) -> Graph:
    """``graph`` with only some channels of some groups.

    Args:
        graph: stays as it is.
        kept: for the id of a group of :func:`~dfmeta.graph.channels.channel_groups`, which of its channels stay; their
            order in the graph stays too. Groups that are not named keep all.

    Returns:
        A graph with its constants written out (:func:`~dfmeta.graph.constant_folding.folded`), of the same inputs,
        outputs, values, weights' names, nodes and operator set; shapes are inferred anew.

    Raises:
        GraphError: an unknown or fixed group, no channel or an unknown one, or a cut that leaves a value empty.
    """
    source = folded(graph)
    tracker = traced(source)
    cut = _Cut(tracker, _staying(tracker, _checked(groups_of(tracker), kept, graph.where)))
    shorter = cut.shorter()
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    for index, proto in enumerate(model.graph.node):
        adjust = _ADJUST.get(proto.op_type)
        touched = not shorter.isdisjoint((*proto.input, *proto.output))
        if adjust is not None and touched and proto.domain in ("", "ai.onnx"):
            adjust(cut, as_node(source, proto, node_label(proto, index)), model.graph, proto)
    for tensor in model.graph.initializer:
        if tensor.name in shorter:
            cut.shorten(tensor)
    del model.graph.value_info[:]
    return Graph.from_bytes(model.SerializeToString(deterministic=True), graph.where)


def kept_places(graph: Graph, kept: Mapping[str, Sequence[int] | NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Which places along axis 1 of each value are left by :func:`narrowed`, for values with channels there.

    Args:
        graph: before it was narrowed.
        kept: as of :func:`narrowed`.

    Returns:
        Value's name to ``[k]`` ascending places; values that nothing is known of are not there.

    Raises:
        GraphError: as :func:`narrowed`.
    """
    tracker = traced(folded(graph))
    cut = _Cut(tracker, _staying(tracker, _checked(groups_of(tracker), kept, graph.where)))
    axes = {name: found[1] for name, found in tracker.known().items() if len(found) > 1}
    return {name: np.flatnonzero(cut.flags(labels)) for name, labels in axes.items() if labels is not None}


def _checked(
    groups: Sequence[ChannelGroup], kept: Mapping[str, Sequence[int] | NDArray[np.int64]], where: str
) -> dict[ChannelGroup, set[int]]:
    """The channels that go, by group."""
    known = {group.id: group for group in groups}
    gone = {}
    for name, chosen in kept.items():
        if name not in known:
            raise GraphError(where, f"no group of channels {name!r}", f"one of {', '.join(known)}", _ADVICE)
        group, stay = known[name], [int(channel) for channel in chosen]
        place = f"{where}: group of channels {name!r}"
        if not stay or len(set(stay)) != len(stay) or min(stay) < 0 or max(stay) >= group.size:
            expected = f"one or more different ones of 0..{group.size - 1}"
            raise GraphError(place, f"channels {stay[:10]} to keep", expected)
        going = set(range(group.size)) - set(stay)
        if going and group.fixed is not None:
            raise GraphError(place, f"{len(going)} channels to cut", f"none ({group.fixed})", _ADVICE)
        gone[group] = going
    return gone


def _staying(tracker: Tracker, gone: Mapping[ChannelGroup, set[int]]) -> Flags:
    """Whether each label stays."""
    channels, _ = tracker.channels()
    axes = tracker.initializer_axes()
    lost: set[int] = set()
    for group, going in gone.items():
        first = group.members[0]
        entries = channels[axes[first.tensor, first.axis]][first.positions[:, 0]]
        lost.update(entries[sorted(going)].tolist())
    return ~np.isin(channels, sorted(lost))


class _Cut:
    """Which entries of which axes stay.

    Args:
        tracker: labels of all values.
        stays: ``[labels]``.
    """

    def __init__(self, tracker: Tracker, stays: Flags) -> None:
        self.tracker = tracker
        self._stays = stays

    def flags(self, labels: Labels | None) -> Flags:
        """Which entries of an axis stay."""
        return np.ones(0, dtype=bool) if labels is None else self._stays[labels]

    def shorter(self) -> frozenset[str]:
        """Names of the values with fewer entries than before.

        Raises:
            GraphError: a value that has none left.
        """
        found = set()
        for name, axes in self.tracker.known().items():
            for labels in axes:
                if labels is None or self._stays[labels].all():
                    continue
                found.add(name)
                if not self._stays[labels].any():
                    where = f"{self.tracker.graph.where}: value {name!r}"
                    raise GraphError(where, "no channel left", "one or more", "Keep one of its channels.")
        return frozenset(found)

    def shorten(self, tensor: onnx.TensorProto) -> None:
        """Cut an initializer along every axis, in place."""
        array = self.tracker.graph.initializers[tensor.name]
        for axis, labels in enumerate(self.tracker.axes(tensor.name)):
            if labels is not None:
                array = array.compress(self.flags(labels), axis)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


Adjust = Callable[[_Cut, Node, onnx.GraphProto, onnx.NodeProto], None]


def _constant(graph: onnx.GraphProto, proto: onnx.NodeProto, place: int, values: Sequence[int]) -> None:
    """Give one input of a node new integers, which no other node sees."""
    taken = {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}
    name = base = f"{proto.output[0]}_input_{place}"
    number = 0
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    graph.initializer.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
    proto.input.extend([""] * (place + 1 - len(proto.input)))
    proto.input[place] = name


def _depthwise(cut: _Cut, node: Node, graph: onnx.GraphProto, proto: onnx.NodeProto) -> None:
    del graph
    labels, shape = cut.tracker.axes(node.inputs[0])[1], cut.tracker.shape(node.inputs[1])
    if labels is None or shape[1] != 1 or node.int("group", 1) != len(labels) or len(labels) == 1:
        return
    for attribute in proto.attribute:
        if attribute.name == "group":
            attribute.i = int(cut.flags(labels).sum())


def _reshape(cut: _Cut, node: Node, graph: onnx.GraphProto, proto: onnx.NodeProto) -> None:
    before = numbers(cut.tracker.constant(node.inputs[1]))
    axes = cut.tracker.axes(node.outputs[0])
    target = [
        size if labels is None or size < 1 else int(cut.flags(labels).sum())
        for size, labels in zip(before, axes, strict=True)
    ]
    _constant(graph, proto, 1, target)


def _pad(cut: _Cut, node: Node, graph: onnx.GraphProto, proto: onnx.NodeProto) -> None:
    axes = cut.tracker.axes(node.outputs[0])
    before, after = padding(cut.tracker, node, len(axes))
    for place, labels in enumerate(axes):
        if labels is not None and (before[place] or after[place]):
            stay = cut.flags(labels)
            before[place], after[place] = int(stay[: before[place]].sum()), int(stay[len(stay) - after[place] :].sum())
    _constant(graph, proto, 1, [*before, *after])
    if len(proto.input) > 3:
        del proto.input[3]


def _slice(cut: _Cut, node: Node, graph: onnx.GraphProto, proto: onnx.NodeProto) -> None:
    axes = cut.tracker.axes(node.inputs[0])
    cuts: list[tuple[int, int, int, int]] = []
    for place, start, stop, step in slices(cut.tracker, node, len(axes)):
        labels = axes[place]
        if labels is not None:
            stay = cut.flags(labels)
            first, last, _ = slice(start, stop).indices(len(stay))
            start = int(stay[:first].sum())
            stop = start + int(stay[first:last].sum())
        cuts.append((start, stop, place, step))
    for at, values in enumerate(zip(*cuts, strict=True), start=1):
        _constant(graph, proto, at, values)


def _split(cut: _Cut, node: Node, graph: onnx.GraphProto, proto: onnx.NodeProto) -> None:
    axis = node.int("axis", 0) % len(cut.tracker.axes(node.inputs[0]))
    parts = [cut.tracker.axes(name)[axis] for name in node.outputs]
    if any(labels is None for labels in parts):
        return
    sizes = [int(cut.flags(labels).sum()) for labels in parts]
    for attribute in [a for a in proto.attribute if a.name in ("split", "num_outputs")]:
        proto.attribute.remove(attribute)
    if node.opset < 13:
        proto.attribute.append(onnx.helper.make_attribute("split", sizes))
    else:
        _constant(graph, proto, 1, sizes)


_ADJUST: Mapping[str, Adjust] = MappingProxyType(
    {"Conv": _depthwise, "Reshape": _reshape, "Pad": _pad, "Slice": _slice, "Split": _split}
)
