"""``quantize``: weights and values as integers, from the records alone.

Weights are rounded with error feedback from the second moment of what they read (:mod:`dfmeta.numerics.gptq`), ranges
of values come from histograms (:mod:`dfmeta.compress._ranges`), and a bias takes up the mean error of its rounded
weight. With that last, what a weight's error costs is told by the covariance and no longer by the moment about 0:
``E|W x + b - V x - b'|^2`` is least for ``b' = b + (W - V) E[x]``, and then ``tr((W - V) Cov[x] (W - V)^T)``.

The records are those of the float graph: no layer sees what the rounding of an earlier one did to its input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dfmeta.compress import _ranges
from dfmeta.compress._bit_budget import spend
from dfmeta.compress._ends import first_and_last
from dfmeta.compress._operators import (
    InputRecord,
    Operator,
    bias_values,
    input_record,
    left_as_they_are,
    operators,
    with_bias,
    with_weights,
)
from dfmeta.compress._quantize_report import Layer, notes
from dfmeta.compress._quantize_settings import CHOICES, Config, check, configured, settled, widths
from dfmeta.compress._rounding import Metric, Rounded, metric, round_weight
from dfmeta.compress._values import expected, of_operators, of_outputs
from dfmeta.errors import StepError
from dfmeta.export.quantized import QuantizedModel, QuantizedWeight, quantized_graph, require_float32
from dfmeta.graph import Graph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.records import PublishedRecords
from dfmeta.records.operator_moments import observed

__all__ = ["CHOICES", "Config", "Layer", "Result", "check", "configured", "notes", "run", "settled", "widths"]

REQUIRES = ("second-moment", "histogram")
PRESET = "calibration"
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What the step made.

    Attributes:
        graph: with QuantizeLinear and DequantizeLinear, as any runtime reads it.
        model: the same as codes and ranges, to be written in other forms (:mod:`dfmeta.export`).
        layers: one for each weight operator, in the graph's order.
    """

    graph: Graph
    model: QuantizedModel
    layers: tuple[Layer, ...]


def run(graph: Graph, records: PublishedRecords, config: Config | None = None, watch: Watch | None = None) -> Result:
    """Quantize a graph from its own records.

    Args:
        graph: the model that was recorded, in floating point.
        records: of it.
        config: settings.
        watch: called with ``quantize``, weights done, and weights in all.

    Raises:
        DataError: bits or other settings out of range.
        StepError: records that are missing (the text names every layer), empty histograms, a budget that is too small,
            or nothing to quantize.
        ExportError: weights that are not float32, or operators that the operator set of the result does not have.
    """
    config = config or Config()
    check(config)
    plain = without_batch_norm(graph)
    found = operators(plain)
    if not found:
        raise StepError(graph.where, "no operator with a weight of its own", "at least one", "There is nothing to do.")
    require_float32(plain, [operator.entry.weight for operator in found])
    weight_bits, value_bits = _bits(plain, found, config)
    _require_moments(records, found, config)
    values = of_operators(plain, records, found, value_bits, config)
    seen = _Seen({}, {}, {})
    done = _rounded(plain, records, found, weight_bits, config, seen, watch)
    corrected = _corrected(plain, found, done, seen, config)
    weights = tuple(_weight(found, name, one) for name, one in done.items())
    results = of_outputs(plain, records, found, values, seen.outputs, config)
    # A product that a corrected bias is added to has another name from then on.
    names = dict(zip(_outputs(plain, found), _outputs(corrected, operators(corrected)), strict=True))
    outputs = {names.get(name, name): value for name, value in results.items()}
    model = QuantizedModel(corrected, weights, values, outputs)
    layers = _layers(plain, found, done, seen, model, config)
    return Result(quantized_graph(model, int4=config.int4), model, layers)


def _outputs(graph: Graph, found: Sequence[Operator]) -> list[str]:
    return [graph.model.graph.node[operator.node].output[0] for operator in found]


def _bits(
    graph: Graph, found: tuple[Operator, ...], config: Config
) -> tuple[Mapping[str, int], Mapping[str, int | None]]:
    """Bits of each weight, by initializer, and of what each operator reads, by its label."""
    weight, value = widths(config)
    ends = first_and_last(graph, found)
    weights = {operator.entry.weight: weight for operator in found}
    for operator in found:
        if operator.label in ends:
            weights[operator.entry.weight] = max(weight, config.first_last_bits)
    raised = 8 if config.first_last_bits > 4 else 4
    values = {one.label: value and (max(value, raised) if one.label in ends else value) for one in found}
    return weights, values


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What stays of the records when a weight is done; the moments themselves would not all fit into memory.

    Attributes:
        means: operator to ``[g, d]`` mean of what it reads.
        outputs: operator to what its output is expected to count.
        metrics: weight to how its errors counted, without the moments.
    """

    means: dict[str, np.ndarray]
    outputs: dict[str, _ranges.Histogram]
    metrics: dict[str, Metric]


def _require_moments(records: PublishedRecords, found: tuple[Operator, ...], config: Config) -> None:
    if config.rounding != "gptq" or config.fallback == "nearest":
        return
    missing = [operator.label for operator in found if not observed(records, operator.entry)]
    if missing:
        raise StepError(
            "second moments",
            f"none for {', '.join(missing)}",
            "one for each layer",
            f"Record with the preset {PRESET!r}, or ask for fallback 'nearest': those layers are then rounded to "
            "nearest.",
        )


def _metric(graph: Graph, records: PublishedRecords, several: list[Operator], config: Config, seen: _Seen) -> Metric:
    """How errors in a weight count: for one that several operators read, in all of them."""
    read = {operator.label: input_record(records, operator) for operator in several}
    for operator in several:
        record = read[operator.label]
        if record.mean is not None:
            seen.means[operator.label] = record.mean
        histogram = expected(graph, operator, record) if widths(config) == (8, 8) else None
        if histogram is not None:
            seen.outputs[operator.label] = histogram
    record = _pooled(list(read.values()))
    centred = config.bias_correction and len(several) == 1 and several[0].entry.op != "ConvTranspose"
    centred = centred and (config.centre == "always" or (config.centre == "auto" and record.exact))
    known = metric(several[0], record, centred=centred, damping=config.damping, ordered=config.activation_order)
    return known if config.rounding == "gptq" else known.without_feedback()


def _pooled(records: list[InputRecord]) -> InputRecord:
    """What several operators read, as one: errors in a shared weight add up over all samples of all of them."""
    known = [(one.moment, one.mean, one.count) for one in records if one.moment is not None and one.mean is not None]
    if len(records) == 1 or len(known) < len(records):
        return records[0] if len(records) == 1 else InputRecord()
    total = sum(count for _, _, count in known)
    moment = np.sum([count / total * array for array, _, count in known], axis=0)
    mean = np.sum([count / total * array for _, array, count in known], axis=0)
    form = records[0].form if len({one.form for one in records}) == 1 else "full"
    return InputRecord(moment, mean, total, form, all(one.exact for one in records))


def _rounded(
    graph: Graph,
    records: PublishedRecords,
    found: tuple[Operator, ...],
    bits: Mapping[str, int],
    config: Config,
    seen: _Seen,
    watch: Watch | None,
) -> dict[str, Rounded]:
    """Every weight, by initializer."""
    several: dict[str, list[Operator]] = {}
    for operator in found:
        several.setdefault(operator.entry.weight, []).append(operator)
    choices: dict[str, dict[int, Rounded]] = {}
    for number, (name, readers) in enumerate(several.items()):
        known = _metric(graph, records, readers, config, seen)
        wanted = {bits[name]}
        if config.budget_bytes is not None:
            wanted |= {one for one in CHOICES[config.budget_of] if one > bits[name]}
        choices[name] = {one: round_weight(readers[0], known, one, config.scales) for one in sorted(wanted)}
        seen.metrics[name] = known.without_moments()
        if watch is not None:
            watch("quantize", number + 1, len(several))
    if config.budget_bytes is None:
        return {name: rounded[bits[name]] for name, rounded in choices.items()}
    costs = {
        name: {
            one: (_bytes(_weight(found, name, each), config), each.error / max(seen.metrics[name].energy, 1e-30))
            for one, each in rounded.items()
        }
        for name, rounded in choices.items()
    }
    chosen = spend(costs, config.budget_bytes)
    return {name: rounded[chosen[name]] for name, rounded in choices.items()}


def _bytes(weight: QuantizedWeight, config: Config) -> int:
    return weight.nominal_bytes if config.budget_of == "nominal" else weight.stored_bytes(int4=config.int4)


def _weight(found: tuple[Operator, ...], name: str, rounded: Rounded) -> QuantizedWeight:
    operator = next(one for one in found if one.entry.weight == name)
    codes = operator.laid_out(rounded.codes).astype(np.int8)
    return QuantizedWeight(name, codes, rounded.scales.astype(np.float32), operator.axis, rounded.bits)


def _corrected(
    graph: Graph, found: tuple[Operator, ...], done: Mapping[str, Rounded], seen: _Seen, config: Config
) -> Graph:
    """The graph with the values that the codes stand for, and with biases that take up their mean error."""
    biases = {}
    for operator in found:
        mean = seen.means.get(operator.label)
        if mean is None or not _takes_up(operator, config):
            continue
        difference = operator.weight - done[operator.entry.weight].values(operator)
        shift = np.zeros(operator.outputs)
        np.add.at(shift, operator.output_of, operator.alpha * np.einsum("god,gd->go", difference, mean))
        biases[operator.label] = bias_values(graph, operator) + shift
    first = {operator.entry.weight: operator for operator in found}
    values = {name: first[name].restored(rounded.values(first[name])) for name, rounded in done.items()}
    return with_weights(with_bias(graph, biases) if biases else graph, values)


def _takes_up(operator: Operator, config: Config) -> bool:
    """Whether a bias makes up for the mean error; that of a transposed convolution differs from place to place."""
    return config.bias_correction and operator.entry.op != "ConvTranspose"


def _layers(
    graph: Graph,
    found: tuple[Operator, ...],
    done: Mapping[str, Rounded],
    seen: _Seen,
    model: QuantizedModel,
    config: Config,
) -> tuple[Layer, ...]:
    values = {value.value: int(value.dtype[-1]) for value in model.values}
    weights = {weight.tensor: weight for weight in model.weights}
    counted: set[str] = set()
    layers = {}
    for operator in found:
        name = operator.entry.weight
        stored = None if name in counted else weights[name]
        counted.add(name)
        value_bits = values.get(operator.entry.value, 32)
        layers[operator.label] = _layer(operator, done[name], seen, value_bits, stored, config)
    for label, reason in left_as_they_are(graph):
        layers[label] = Layer(label, "", "", 32, 32, "", "", 0, 0.0, 0.0, False, 0, 0, 0, reason)
    return tuple(layers.values())


def _layer(
    operator: Operator, rounded: Rounded, seen: _Seen, value_bits: int, stored: QuantizedWeight | None, config: Config
) -> Layer:
    """One operator's facts; ``stored`` is None where another one's weight has been counted already."""
    known = seen.metrics[operator.entry.weight]
    return Layer(
        operator.label,
        operator.entry.op,
        operator.entry.weight,
        rounded.bits,
        value_bits,
        "gptq" if known.feedback else "nearest",
        known.form,
        known.count,
        known.damping,
        rounded.error / max(known.energy, 1e-30),
        operator.label in seen.means and _takes_up(operator, config),
        stored.codes.size if stored is not None else 0,
        stored.stored_bytes(int4=config.int4) if stored is not None else 0,
        stored.nominal_bytes if stored is not None else 0,
        f"shares its weight with {', '.join(operator.shares)}" if operator.shares else "",
    )
