"""What operators with weights do to channels: the rules of convolutions and matrix products."""

from __future__ import annotations

import numpy as np

from dfmeta.graph.channels_tracker import Labels, Tracker, Untraceable
from dfmeta.graph.ops.registry import Node


def convolution(tracker: Tracker, node: Node) -> None:
    """Filters make channels and sum over channels; depthwise ones let them pass."""
    data, weight = node.inputs[:2]
    shape, groups = tracker.constant(weight).shape, node.int("group", 1)
    labels, outgoing = tracker.axes(data)[1], tracker.axes(weight)[0]
    _fix_positions(tracker, node)
    if groups == 1:
        tracker.tie(labels, tracker.axes(weight)[1], node.label)
        tracker.role(weight, 0, "producer")
        tracker.role(weight, 1, "consumer")
    elif shape[1] == 1 and labels is not None and len(labels) == groups:
        tracker.tie(np.repeat(labels, shape[0] // groups), outgoing, node.label)
    else:
        _grouped(tracker, node, labels, weight, groups)
    _bias(tracker, node, outgoing)
    tracker.set(node.outputs[0], [None, outgoing, *[None] * (len(tracker.shape(node.outputs[0])) - 2)])


def _grouped(tracker: Tracker, node: Node, labels: Labels | None, weight: str, groups: int) -> None:
    """Channels at the same place in their groups go together, so that every group stays as wide as the others."""
    outgoing, incoming = tracker.axes(weight)[:2]
    if labels is None or outgoing is None or incoming is None:
        raise Untraceable("its channels are not known")
    for part in labels.reshape(groups, -1):
        tracker.tie(part, incoming, node.label)
    for part in outgoing.reshape(groups, -1)[1:]:
        tracker.tie(outgoing.reshape(groups, -1)[0], part, node.label)
    tracker.role(weight, 0, "producer")
    tracker.role(weight, 1, "consumer")


def transposed_convolution(tracker: Tracker, node: Node) -> None:
    """As a convolution, its weight the other way round."""
    if node.int("group", 1) != 1:
        raise Untraceable("it is a transposed convolution in groups")
    data, weight = node.inputs[:2]
    tracker.constant(weight)
    _fix_positions(tracker, node)
    incoming, outgoing = tracker.axes(weight)[:2]
    tracker.tie(tracker.axes(data)[1], incoming, node.label)
    tracker.role(weight, 1, "producer")
    tracker.role(weight, 0, "consumer")
    _bias(tracker, node, outgoing)
    tracker.set(node.outputs[0], [None, outgoing, *[None] * (len(tracker.shape(node.outputs[0])) - 2)])


def _fix_positions(tracker: Tracker, node: Node) -> None:
    """Heights and widths that carry labels are not channels to a convolution."""
    data, weight = node.inputs[:2]
    for labels in (*tracker.axes(data)[2:], *tracker.axes(weight)[2:]):
        tracker.fix(labels, f"{node.label} slides along it")


def _bias(tracker: Tracker, node: Node, outgoing: Labels | None) -> None:
    if len(node.inputs) > 2 and node.inputs[2]:
        tracker.constant(node.inputs[2])
        tracker.tie(tracker.axes(node.inputs[2])[0], outgoing, node.label)


def gemm(tracker: Tracker, node: Node) -> None:
    """Rows make channels, columns sum over them, or the other way round."""
    if node.int("transA", 0):
        raise Untraceable("it transposes its data")
    data, weight = node.inputs[:2]
    tracker.constant(weight)
    out = 0 if node.int("transB", 0) else 1
    tracker.tie(tracker.axes(data)[1], tracker.axes(weight)[1 - out], node.label)
    tracker.role(weight, out, "producer")
    tracker.role(weight, 1 - out, "consumer")
    outgoing = tracker.axes(weight)[out]
    if len(node.inputs) > 2 and node.inputs[2]:
        sizes = tracker.constant(node.inputs[2]).shape
        if sizes and (sizes[-1] != 1 or (outgoing is not None and len(outgoing) == 1)):
            tracker.tie(tracker.axes(node.inputs[2])[-1], outgoing, node.label)
    tracker.set(node.outputs[0], [tracker.axes(data)[0], outgoing])


def matmul(tracker: Tracker, node: Node) -> None:
    """A constant matrix on the right."""
    data, weight = node.inputs
    if tracker.constant(weight).ndim != 2:
        raise Untraceable("its weight is not one matrix")
    axes = tracker.axes(data)
    tracker.tie(axes[-1], tracker.axes(weight)[0], node.label)
    tracker.role(weight, 1, "producer")
    tracker.role(weight, 0, "consumer")
    tracker.set(node.outputs[0], [*axes[:-1], tracker.axes(weight)[1]])
