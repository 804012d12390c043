"""Which values of a graph become integers, and over what range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

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

    As what the result becomes, where it is only rectified and then read as integers; from its own histogram, where
    there is one; else from the mean and variance that the input's record gives each channel, as if it were normal.

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
        results_from = known.get(name) or _rectified(graph, name, known)
        if operator.entry.op == "Conv" and results_from is not None:
            results[name] = results_from
            continue
        statistic = histogram_record(records, name) if operator.entry.op == "Conv" else None
        histogram = _ranges.read(statistic) if statistic is not None else counts.get(operator.label)
        if histogram is not None:
            results[name] = _quantized(name, histogram, 8, settings)
    return results


def _rectified(graph: Graph, name: str, known: Mapping[str, QuantizedValue]) -> QuantizedValue | None:
    """What a value becomes whose only reader is a Relu; only unsigned integers from 0 up cut off what it does."""
    readers = [node for node in graph.model.graph.node if name in node.input]
    if len(readers) != 1 or readers[0].op_type != "Relu" or name in {output.name for output in graph.outputs}:
        return None
    value = known.get(readers[0].output[0])
    return value if value is not None and value.dtype.startswith("uint") and value.zero == 0 else None


def expected(
    graph: Graph, operator: Operator, record: InputRecord, *, biased: bool = False
) -> _ranges.Histogram | None:
    """What an operator's output counts, by the second moment of its input.

    Args:
        graph: the model.
        operator: of it.
        record: of its input.
        biased: with the bias of a matrix product, be it in the Add behind it; a convolution's always counts.

    Returns:
        None where nothing is known of the input, for a transposed convolution, or where what is added is no bias of
        one number for each channel.
    """
    if record.moment is None or record.mean is None or operator.entry.op == "ConvTranspose":
        return None
    biased = biased or operator.entry.op == "Conv"
    if biased and operator.bias is None and any(graph.model.graph.node[operator.node].input[2:]):
        return None
    mean = np.einsum("god,gd->go", operator.weight, record.mean) * operator.alpha
    square = np.einsum("god,god->go", operator.weight @ record.moment, operator.weight)
    variance = np.maximum(square * operator.alpha**2 - mean**2, 0.0)
    shift = bias_values(graph, operator) if biased else np.zeros(operator.outputs)
    return _ranges.from_gaussians(mean.reshape(-1) + shift[operator.output_of.reshape(-1)], variance.reshape(-1))
