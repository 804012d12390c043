"""The range of every value of a graph that records speak of: of their own, or of what the value is made from.

Records are taken before and behind weight operators. A quantiser also asks for what lies between: behind a folded
BatchNormalization, a residual addition, a pooling. Such a range is told by what the value is made from or turns into,
and is marked so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx

from dfmeta.compress import _ranges
from dfmeta.compress._operators import input_record, operators
from dfmeta.compress._values import expected
from dfmeta.errors import UnknownName
from dfmeta.graph import Graph
from dfmeta.graph.dtypes import FLOATS
from dfmeta.records import PublishedRecords
from dfmeta.records.operator_moments import histogram_record

Ends = tuple[float, float]
Origin = Literal["recorded", "derived", "moments"]

# A result is no larger than what it is made from, and no smaller.
_SAME = frozenset(
    {
        "Identity",
        "Flatten",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Gather",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Dropout",
        "DepthToSpace",
        "SpaceToDepth",
        "Expand",
        "Tile",
        "Split",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
    }
)
_MONOTONE = frozenset({"Relu", "MaxPool", "GlobalMaxPool", "Identity", "Flatten", "Reshape", "Transpose", "Squeeze"})
_FIXED: Mapping[str, Ends] = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0), "HardSigmoid": (0, 1)}


@dataclass(frozen=True, slots=True)
class Range:
    """The range of one value.

    Attributes:
        value: its name in the graph.
        low: at most 0.
        high: at least 0.
        origin: ``recorded``, from its own histogram; ``derived``, from those of what it is made from or becomes;
            ``moments``, from the mean and variance that the second moment before an operator gives each channel behind
            it, as if that were normal.
    """

    value: str
    low: float
    high: float
    origin: Origin


@dataclass(frozen=True, slots=True)
class ValueRanges:
    """What is known of a graph's values.

    Attributes:
        known: one for each value, in the graph's order.
        unknown: floating-point values of which nothing is known.
    """

    known: tuple[Range, ...]
    unknown: tuple[str, ...]


def value_ranges(
    graph: Graph, records: PublishedRecords, policy: str, bits: int = 8, percentile: float = _ranges.PERCENTILE
) -> ValueRanges:
    """Ranges of a graph's values.

    Args:
        graph: the model; BatchNormalization may have been folded.
        records: of the model before.
        policy: ``minmax``, ``percentile``, ``mse`` or ``entropy``, for histograms and expected values alike.
        bits: of the integers, for ``mse`` and ``entropy``.
        percentile: of that policy.

    Raises:
        UnknownName: another policy.
        DataError: a percentile out of range.
        StepError: an empty histogram.
    """
    if policy not in _ranges.POLICIES:
        raise UnknownName("range policy", policy, _ranges.POLICIES)
    names = _values(graph)
    found: dict[str, Range] = {}

    def keep(name: str, histogram: _ranges.Histogram, origin: Origin) -> None:
        found[name] = Range(name, *_ranges.bounds(histogram, policy, bits, percentile), origin)

    for name in names:
        statistic = histogram_record(records, name)
        if statistic is not None:
            keep(name, _ranges.read(statistic), "recorded")
    _derive(graph, names, found)
    for operator in operators(graph):
        record, nodes = input_record(records, operator), graph.model.graph.node
        # A matrix product's result is known without its bias, which may be a node of its own, and with it.
        for place, biased in ((operator.bias_node, True), (operator.node, operator.bias_node == operator.node)):
            made = nodes[place].output[0]
            histogram = expected(graph, operator, record, biased=biased) if made not in found else None
            if histogram is not None:
                keep(made, histogram, "moments")
    _derive(graph, names, found)
    return ValueRanges(
        tuple(found[name] for name in names if name in found), tuple(name for name in names if name not in found)
    )


def _values(graph: Graph) -> list[str]:
    """Floating-point values that depend on the inputs, in the graph's order."""
    fixed = set(graph.initializers)
    names = [value.name for value in graph.inputs]
    for node in graph.model.graph.node:
        if any(name and name not in fixed for name in node.input):
            names += [name for name in node.output if name]
        else:
            fixed.update(node.output)
    return [name for name in names if graph.value(name).dtype in FLOATS]


def _derive(graph: Graph, names: Sequence[str], found: dict[str, Range]) -> None:
    """Follow the graph down and up until nothing more is learnt."""
    wanted = set(names)
    nodes = list(graph.model.graph.node)
    forerunners = _forerunners(graph)
    before = -1
    while len(found) > before:
        before = len(found)
        for node in nodes:
            ends = _behind(graph, node, found)
            for name in node.output if ends is not None else ():
                if name in wanted and name not in found and ends is not None:
                    found[name] = Range(name, *ends, "derived")
        for source, made in forerunners.items():
            if source in wanted and source not in found and made in found:
                # To cut off and to round keeps the order: before such a node it is the same as behind it.
                found[source] = Range(source, found[made].low, found[made].high, "derived")


def _forerunners(graph: Graph) -> dict[str, str]:
    """Values that a single node reads which changes no order and adds no number, and what it makes of them."""
    ends = {output.name for output in graph.outputs}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return {
        name: several[0].output[0]
        for name, several in readers.items()
        if len(several) == 1 and several[0].op_type in _MONOTONE and name not in ends
    }


def _behind(graph: Graph, node: onnx.NodeProto, found: Mapping[str, Range]) -> Ends | None:
    """The range of a node's results from those of its inputs; None where that is not told."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _FIXED:
        return _FIXED[node.op_type]
    rule = _RULES.get(node.op_type) or (_same if node.op_type in _SAME else None)
    if rule is None:
        return None
    given = [_ends(graph, name, found) for name in node.input if name]
    needed = given[:1] if rule in (_same, _relu, _padded) else given
    return rule([ends for ends in needed if ends is not None]) if None not in needed and needed else None


def _ends(graph: Graph, name: str, found: Mapping[str, Range]) -> Ends | None:
    if name in found:
        return found[name].low, found[name].high
    array = graph.initializers.get(name)
    if array is None or array.dtype.kind != "f" or not array.size:
        return None
    return min(float(array.min()), 0.0), max(float(array.max()), 0.0)


def _same(given: Sequence[Ends]) -> Ends:
    return given[0]


def _relu(given: Sequence[Ends]) -> Ends:
    return max(given[0][0], 0.0), max(given[0][1], 0.0)


def _padded(given: Sequence[Ends]) -> Ends:
    return min(given[0][0], 0.0), max(given[0][1], 0.0)


def _joined(given: Sequence[Ends]) -> Ends:
    return min(low for low, _ in given), max(high for _, high in given)


def _summed(given: Sequence[Ends]) -> Ends:
    """A bound: both at their ends at once."""
    return sum(low for low, _ in given), sum(high for _, high in given)


_RULES: Mapping[str, Callable[[Sequence[Ends]], Ends]] = {
    "Relu": _relu,
    "Pad": _padded,
    "Concat": _joined,
    "Max": _joined,
    "Min": _joined,
    "Add": _summed,
    "Sum": _summed,
}
