"""Which values of a graph become integers, and over what range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx

from dfmeta.compress import _ranges
from dfmeta.compress._operators import InputRecord, Operator, bias_values
from dfmeta.errors import StepError
from dfmeta.export.quantized import QuantizedValue
from dfmeta.graph import Graph
from dfmeta.records import PublishedRecords
from dfmeta.records.operator_moments import histogram_record


class Settings(Protocol):
    """What of a step's settings concerns ranges."""

    @property
    def ranges(self) -> str:
        """The policy."""

    @property
    def percentile(self) -> float:
        """Of that policy."""

    @property
    def values(self) -> str:
        """``uint8`` or ``int8``."""

    @property
    def fallback(self) -> str:
        """``nearest``, or empty."""


def of_operators(
    graph: Graph,
    records: PublishedRecords,
    found: Sequence[Operator],
    bits: Mapping[str, int | None],
    settings: Settings,
) -> tuple[QuantizedValue, ...]:
    """What weight operators read, as integers.

    Args:
        graph: the model.
        records: of it.
        found: its weight operators.
        bits: of what each of them reads, by label; None for floating point. Most bits win where several read a value.
        settings: policy and type.

    Raises:
        StepError: a value without a histogram (all of them are named), or with an empty one.
    """
    wanted: dict[str, int] = {}
    for operator in found:
        chosen = bits[operator.label]
        if chosen is not None:
            wanted[operator.entry.value] = max(chosen, wanted.get(operator.entry.value, 0))
    missing = [name for name in wanted if histogram_record(records, name) is None]
    if missing and settings.fallback != "nearest":
        labels = [operator.label for operator in found if operator.entry.value in missing]
        raise StepError(
            "histograms",
            f"none of what {', '.join(labels)} read",
            "one for each value that is to be quantized",
            "Record with the preset 'calibration', or quantize weights only, such as w8.",
        )
    ends = {value.name for value in graph.outputs}
    values = []
    for name, chosen in wanted.items():
        statistic = histogram_record(records, name)
        if statistic is not None:
            everywhere = chosen == 8 and name not in ends
            values.append(_quantized(name, _ranges.read(statistic), chosen, settings, everywhere=everywhere))
    return tuple(values)


def _quantized(
    name: str, histogram: _ranges.Histogram, bits: int, settings: Settings, *, everywhere: bool = True
) -> QuantizedValue:
    low, high = _ranges.bounds(histogram, settings.ranges, bits, settings.percentile)
    found = _ranges.affine(low, high, bits, symmetric=settings.values == "int8")
    return QuantizedValue(name, found.scale, found.zero, found.dtype, everywhere)


def of_outputs(
    graph: Graph,
    records: PublishedRecords,
    found: Sequence[Operator],
    values: Sequence[QuantizedValue],
    counts: Mapping[str, _ranges.Histogram],
    settings: Settings,
) -> dict[str, QuantizedValue]:
    """How integer operators would write their results, by name of the result, where that is known.

    As what the result becomes, where it is only rectified, pooled for its largest or laid out anew before it is read as
    integers; from its own histogram, where there is one; else from the mean and variance that the input's record gives
    each channel, as if it were normal.

    Means of planes and residual sums are among them, as what they become or, of a sum, from what is added.

    Args:
        graph: the model, in floating point.
        records: of it.
        found: its weight operators.
        values: what is quantized already.
        counts: operator to what its output is expected to count (:func:`expected`).
        settings: policy and type.
    """
    known = {value.value: value for value in values}
    results: dict[str, QuantizedValue] = {}
    for operator in found:
        if operator.entry.value not in known or operator.place != 1:
            continue
        name = graph.model.graph.node[operator.node].output[0]
        whole = _adds_its_bias(operator)
        becomes = known.get(name) or _becomes(graph, name, known)
        if whole and becomes is not None:
            results[name] = becomes
            continue
        statistic = histogram_record(records, name) if whole else None
        histogram = _ranges.read(statistic) if statistic is not None else counts.get(operator.label)
        if histogram is not None:
            results[name] = _quantized(name, histogram, 8, settings)
    for node in graph.model.graph.node:
        if node.op_type in ("Add", "GlobalAveragePool", "ReduceMean"):
            written = _becomes(graph, node.output[0], known)
            if written is None and node.op_type == "Add":
                written = _summed(graph, node, {**results, **known})
            results |= {node.output[0]: written} if written is not None else {}
    return results


def _summed(graph: Graph, node: onnx.NodeProto, known: Mapping[str, QuantizedValue]) -> QuantizedValue | None:
    """The range of a residual sum that nobody quantized: from the least that it can be to the most."""
    given = [known.get(name) for name in node.input]
    readers = [reader.op_type for reader in graph.model.graph.node if node.output[0] in reader.input]
    if any(one is None or one.dtype != "uint8" for one in given):
        return None
    low, high = (sum(one.scale * (end - one.zero) for one in given if one) for end in (0, 255))
    found = _ranges.affine(0.0 if readers == ["Relu"] else low, high, 8, symmetric=False)
    return QuantizedValue(node.output[0], found.scale, found.zero, found.dtype)


def _adds_its_bias(operator: Operator) -> bool:
    """Whether the result is written with its bias: a matrix product leaves that to an addition of its own."""
    return operator.entry.op in ("Conv", "Gemm")


# Rounding and cutting off keep the order of numbers, so these give the same integers before as after it.
_KEEPS_INTEGERS = frozenset({"Relu", "MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"})


def _becomes(graph: Graph, name: str, known: Mapping[str, QuantizedValue]) -> QuantizedValue | None:
    """The integers that a value ends up as, if nothing else reads it or what lies between.

    Only unsigned integers from 0 up cut off what a Relu does.
    """
    ends, rectified = {output.name for output in graph.outputs}, False
    while name not in known:
        readers = [node for node in graph.model.graph.node if name in node.input]
        if len(readers) != 1 or name in ends or readers[0].op_type not in _KEEPS_INTEGERS:
            return None
        if len(readers[0].output) > 1 or readers[0].input[0] != name:
            return None
        rectified = rectified or readers[0].op_type == "Relu"
        name = readers[0].output[0]
    value = known[name]
    return value if not rectified or (value.dtype.startswith("uint") and value.zero == 0) else None


def expected(
    graph: Graph, operator: Operator, record: InputRecord, *, biased: bool = False
) -> _ranges.Histogram | None:
    """What an operator's output counts, by the second moment of its input.

    Args:
        graph: the model.
        operator: of it.
        record: of its input.
        biased: with the bias of the Add behind a matrix product; an operator's own always counts.

    Returns:
        None where nothing is known of the input, for a transposed convolution, or where what is added is no bias of
        one number for each channel.
    """
    if record.moment is None or record.mean is None or operator.entry.op == "ConvTranspose":
        return None
    own = operator.entry.op == "Conv" or (operator.entry.op == "Gemm" and operator.bias_node == operator.node)
    biased = biased or own
    if biased and operator.bias is None and any(graph.model.graph.node[operator.node].input[2:]):
        return None
    mean = np.einsum("god,gd->go", operator.weight, record.mean) * operator.alpha
    square = np.einsum("god,god->go", operator.weight @ record.moment, operator.weight)
    variance = np.maximum(square * operator.alpha**2 - mean**2, 0.0)
    shift = bias_values(graph, operator) if biased else np.zeros(operator.outputs)
    return _ranges.from_gaussians(mean.reshape(-1) + shift[operator.output_of.reshape(-1)], variance.reshape(-1))
