"""What each operator does to channels: one short rule for each, in one table.

A rule reads the labels of its node's inputs and gives labels to its outputs. It may assume nothing that it has not
checked: what it does not know it refuses by raising :class:`~dfmeta.graph.channels_tracker.Untraceable`, and then all
channels that the node touches are fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np

from dfmeta.graph.channels_products import convolution, gemm, matmul, transposed_convolution
from dfmeta.graph.channels_shapes import reshaped
from dfmeta.graph.channels_tracker import Axes, Tracker, Untraceable, numbers
from dfmeta.graph.ops.registry import Node

Rule = Callable[[Tracker, Node], None]


def _one_output(tracker: Tracker, node: Node) -> str:
    """Name of the first output; refuses when another is used."""
    if any(tracker.read(name) for name in node.outputs[1:]):
        raise Untraceable("its second output is used")
    return node.outputs[0]


def _unary(tracker: Tracker, node: Node) -> None:
    """Each entry by itself; further inputs are single numbers."""
    for name in node.inputs[1:]:
        if name and tracker.constant(name).size != 1:
            raise Untraceable(f"{name!r} has several numbers")
    tracker.set(_one_output(tracker, node), list(tracker.axes(node.inputs[0])))


def _elementwise(tracker: Tracker, node: Node) -> None:
    """Entries of several operands that meet, with broadcasting, are one channel."""
    output = node.outputs[0]
    target = tracker.shape(output)
    operands = [(tracker.axes(name), tracker.shape(name)) for name in node.inputs if name]
    found: Axes = []
    for axis in range(-len(target), 0):
        meeting: Axes = []
        for axes, shape in operands:
            if len(shape) < -axis:
                continue
            if shape[axis] == 1 and target[axis] != 1:
                tracker.fix(axes[axis], f"{node.label} repeats it")
            else:
                meeting.append(axes[axis] if shape[axis] == target[axis] else None)
        for labels in meeting[1:]:
            tracker.tie(meeting[0], labels, node.label)
        found.append(next((labels for labels in meeting if labels is not None), None))
    tracker.set(output, found)


def _spatial(tracker: Tracker, node: Node) -> None:
    """Channels along axis 1 are kept apart; the axes after it are worked on."""
    axes = tracker.axes(node.inputs[0])
    for labels in axes[2:]:
        tracker.fix(labels, f"{node.label} works along it")
    tracker.set(_one_output(tracker, node), [axes[0], axes[1], *[None] * (len(axes) - 2)])


def _by_channel(tracker: Tracker, node: Node) -> None:
    """A number of each parameter for each channel of axis 1."""
    axes = tracker.axes(node.inputs[0])
    for name in node.inputs[1:]:
        tracker.constant(name)
        tracker.tie(tracker.axes(name)[0], axes[1], node.label)
    tracker.set(_one_output(tracker, node), list(axes))


def _concat(tracker: Tracker, node: Node) -> None:
    output = node.outputs[0]
    rank = len(tracker.shape(output))
    axis = node.int("axis", 0) % rank
    parts = [tracker.axes(name) for name in node.inputs]
    axes: Axes = []
    for place in range(rank):
        if place == axis:
            labels = [part[place] for part in parts]
            known = [one for one in labels if one is not None]
            if len(known) < len(labels):
                for one in known:
                    tracker.fix(one, f"{node.label} joins it to an axis that is not of channels")
            axes.append(np.concatenate(known) if len(known) == len(labels) else None)
            continue
        for part in parts[1:]:
            tracker.tie(parts[0][place], part[place], node.label)
        axes.append(parts[0][place])
    tracker.set(output, axes)


def _reshape(tracker: Tracker, node: Node) -> None:
    if node.op == "Reshape":
        target = numbers(tracker.constant(node.inputs[1]))
        if node.int("allowzero", 0) and 0 in target:
            raise Untraceable("it makes an axis of size 0")
    output = node.outputs[0]
    source, axes = tracker.shape(node.inputs[0]), tracker.axes(node.inputs[0])
    tracker.set(output, reshaped(tracker, axes, source, tracker.shape(output), node.label))


def _transpose(tracker: Tracker, node: Node) -> None:
    axes = tracker.axes(node.inputs[0])
    order = node.ints("perm", range(len(axes))[::-1])
    tracker.set(node.outputs[0], [axes[place] for place in order])


def _reduction(tracker: Tracker, node: Node) -> None:
    """Axes are summed over; channels may lie along the others only."""
    axes = tracker.axes(node.inputs[0])
    given = numbers(tracker.constant(node.inputs[1])) if len(node.inputs) > 1 and node.inputs[1] else []
    places = {place % len(axes) for place in given or node.ints("axes", [])}
    if not places:
        raise Untraceable("it reduces every axis")
    for place in places:
        tracker.fix(axes[place], f"{node.label} reduces over it")
    kept = bool(node.int("keepdims", 1))
    axes = [None if place in places else labels for place, labels in enumerate(axes) if kept or place not in places]
    tracker.set(node.outputs[0], axes)


def _pad(tracker: Tracker, node: Node) -> None:
    """Padding along channels puts new ones before and after; what is added to them decides whether they may go."""
    axes = tracker.axes(node.inputs[0])
    before, after = padding(tracker, node, len(axes))
    result: Axes = []
    for labels, low, high in zip(axes, before, after, strict=True):
        if labels is None or (low, high) == (0, 0):
            result.append(labels)
        elif min(low, high) < 0 or node.text("mode", "constant") != "constant":
            raise Untraceable("it pads channels with others, or cuts them")
        else:
            result.append(np.concatenate([tracker.fresh(low), labels, tracker.fresh(high)]))
    tracker.set(node.outputs[0], result)


def padding(tracker: Tracker, node: Node, rank: int) -> tuple[list[int], list[int]]:
    """How many entries a Pad puts before and after each axis."""
    pads = numbers(tracker.constant(node.inputs[1])) if len(node.inputs) > 1 else node.ints("pads", [])
    named = len(node.inputs) > 3 and node.inputs[3]
    places = [place % rank for place in numbers(tracker.constant(node.inputs[3]))] if named else list(range(rank))
    if len(pads) != 2 * len(places):
        raise Untraceable("its widths do not fit its axes")
    before, after = [0] * rank, [0] * rank
    for number, place in enumerate(places):
        before[place], after[place] = pads[number], pads[number + len(places)]
    return before, after


def _slice(tracker: Tracker, node: Node) -> None:
    axes = list(tracker.axes(node.inputs[0]))
    for place, start, stop, step in slices(tracker, node, len(axes)):
        labels = axes[place]
        if labels is None:
            continue
        if step != 1:
            raise Untraceable("it steps over channels")
        axes[place] = labels[start:stop]
    tracker.set(node.outputs[0], axes)


def slices(tracker: Tracker, node: Node, rank: int) -> list[tuple[int, int, int, int]]:
    """Axis, start, stop and step of each cut."""
    if len(node.inputs) < 3:
        raise Untraceable("its bounds are attributes")
    starts, stops = (numbers(tracker.constant(name)) for name in node.inputs[1:3])
    given = [numbers(tracker.constant(name)) if name else [] for name in node.inputs[3:]]
    places = given[0] if given and given[0] else list(range(len(starts)))
    steps = given[1] if len(given) > 1 and given[1] else [1] * len(starts)
    cuts = zip(places, starts, stops, steps, strict=True)
    return [(place % rank, start, stop, step) for place, start, stop, step in cuts]


def _split(tracker: Tracker, node: Node) -> None:
    axes = tracker.axes(node.inputs[0])
    axis = node.int("axis", 0) % len(axes)
    start = 0
    for name in node.outputs:
        size = tracker.shape(name)[axis]
        labels = axes[axis]
        if not isinstance(size, int):
            raise Untraceable("the sizes of its parts are not known")
        part = None if labels is None else labels[start : start + size]
        tracker.set(name, [part if place == axis else one for place, one in enumerate(axes)])
        start += size


def _resize(tracker: Tracker, node: Node) -> None:
    """Only with scales, and only along heights and widths."""
    scales = node.inputs[1 if node.op == "Upsample" else 2 : 3]
    if not scales or not scales[0] or any(node.inputs[3:]):
        raise Untraceable("it is given sizes, not scales")
    factors = np.asarray(tracker.constant(scales[0]), dtype=np.float64).reshape(-1)
    if len(factors) != len(tracker.axes(node.inputs[0])) or (factors[:2] != 1).any():
        raise Untraceable("it resizes channels")
    _spatial(tracker, node)


_TABLE: dict[Rule, str] = {
    _unary: "Abs Acos Asin Atan Cast Ceil Celu Clip Cos Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity "
    "LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Tanh "
    "ThresholdedRelu",
    _elementwise: "Add Sub Mul Div Pow Max Min Sum Mean Where PRelu",
    _spatial: "AveragePool MaxPool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool",
    _by_channel: "BatchNormalization InstanceNormalization",
    convolution: "Conv",
    transposed_convolution: "ConvTranspose",
    gemm: "Gemm",
    matmul: "MatMul",
    _concat: "Concat",
    _reshape: "Reshape Flatten Squeeze Unsqueeze",
    _transpose: "Transpose",
    _reduction: "ReduceMean ReduceSum ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare ReduceProd",
    _pad: "Pad",
    _slice: "Slice",
    _split: "Split",
    _resize: "Resize Upsample",
}
RULES = MappingProxyType({operator: rule for rule, operators in _TABLE.items() for operator in operators.split()})
