"""``equalize``: channels that a rectifier leaves alone, scaled so that the weights before and after them are alike.

Where only positively homogeneous operators (``f(s x) = s f(x)`` for s above 0) lie between two weights, channel i may
be divided by s_i in front and multiplied by it behind: the function stays. With ``s_i = sqrt(r1_i / r2_i)`` for the
largest weights r1_i that make the channel and r2_i that read it, both become ``sqrt(r1_i r2_i)`` (Nagel et al.,
"Data-free quantization through weight equalization and bias correction", 2019, section 4.1).

What is recorded of a scaled value is scaled with it, exactly but for histograms (:mod:`~._scaled_records`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta import _settings
from dfmeta._settings import Range, within
from dfmeta.compress._operators import Operator, bias_values, operators, with_bias, with_weights
from dfmeta.compress._scaled_records import scaled_records
from dfmeta.errors import StepError
from dfmeta.graph import Graph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.records import PublishedRecords

Array = NDArray[np.float64]
REQUIRES: tuple[str, ...] = ()
Watch = Callable[[str, int, int], None]

_HOMOGENEOUS = frozenset(
    {
        "Relu",
        "LeakyRelu",
        "PRelu",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "Dropout",
    }
)


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the step.

    Attributes:
        rounds: over all pairs, one after the other: a weight between two others is in two pairs.
        limit: largest scale, and one over the smallest: a channel that is nearly dead is not blown up.
    """

    rounds: int = 10
    limit: float = within(1e3, Range(above=1))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two operators that were made alike.

    Attributes:
        before: label of the one that makes the channels.
        after: label of the one that reads them.
        channels: how many.
        spread: geometric mean over channels of the larger over the smaller of both weights' ranges, as it was.
        smallest: least scale by which a channel was divided.
        largest: largest one.
    """

    before: str
    after: str
    channels: int
    spread: float
    smallest: float
    largest: float


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What the step made.

    Attributes:
        graph: with BatchNormalization folded and other weights; the same function.
        records: of that graph.
        scales: value to ``[c]``, what each channel of it was divided by.
        pairs: the operators that were made alike.
        dropped: ids of the records that hold no longer and cannot be transformed: histograms of scaled values, and
            records of values that folding took away.
    """

    graph: Graph
    records: PublishedRecords
    scales: Mapping[str, Array]
    pairs: tuple[Pair, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Link:
    """A pair, and the values in between.

    Attributes:
        before, after: the operators.
        values: that are scaled, from the first one's output to the second one's input.
        repeated: features of the second one's input for each channel, beside its taps (behind a Flatten).
    """

    before: Operator
    after: Operator
    values: tuple[str, ...]
    repeated: int


def check(config: Config) -> None:
    """Refuse settings that say nothing, with the errors of :func:`run`."""
    _settings.check(config, "equalize")


def run(graph: Graph, records: PublishedRecords, config: Config | None = None, watch: Watch | None = None) -> Result:
    """Equalize a graph.

    Args:
        graph: the model that was recorded.
        records: of it; they are transformed, and not read.
        config: settings.
        watch: called with ``equalize``, rounds done, and rounds in all.

    Raises:
        DataError: settings out of range.
        StepError: no pair of operators with nothing but homogeneous ones between them.
    """
    config = config or Config()
    check(config)
    plain = without_batch_norm(graph)
    links = _links(plain)
    if not links:
        raise StepError(graph.where, "no pair of layers with a rectifier between them", "at least one", "Leave it out.")
    weights = {operator.label: operator.weight.copy() for link in links for operator in (link.before, link.after)}
    total = {link.before.label: np.ones(link.before.outputs) for link in links}
    first = {link.before.label: _ranges(link, weights) for link in links}
    for number in range(config.rounds):
        for link in links:
            _equalize(link, weights, total[link.before.label], config.limit)
        if watch is not None:
            watch("equalize", number + 1, config.rounds)
    return _result(plain, records, links, weights, total, first)


def _equalize(link: _Link, weights: dict[str, Array], total: Array, limit: float) -> None:
    made, read = _ranges(link, weights)
    usable = (made > 0) & (read > 0)
    scale = np.sqrt(np.divide(made, read, out=np.ones_like(made), where=usable))
    scale = np.clip(total * scale, 1 / limit, limit) / total
    weights[link.before.label] /= scale[link.before.output_of][:, :, None]
    weights[link.after.label] *= _columns(link, scale)[:, None, :]
    total *= scale


def _columns(link: _Link, scale: Array) -> Array:
    """``[g, d]`` of the second operator's features."""
    groups, _, features = link.after.weight.shape
    return np.repeat(scale, groups * features // len(scale)).reshape(groups, features)


def _ranges(link: _Link, weights: Mapping[str, Array]) -> tuple[Array, Array]:
    """Largest weight that makes each channel, and largest that reads it: ``[c]`` each."""
    made = np.zeros(link.before.outputs)
    np.maximum.at(made, link.before.output_of, np.abs(weights[link.before.label]).max(2))
    read = np.abs(weights[link.after.label]).max(1).reshape(link.before.outputs, -1).max(1)
    return made, read


def _links(graph: Graph) -> list[_Link]:
    found = operators(graph)
    reading = {operator.node: operator for operator in found}
    readers: dict[str, list[int]] = {}
    for place, node in enumerate(graph.model.graph.node):
        for name in node.input:
            readers.setdefault(name, []).append(place)
    ends = {output.name for output in graph.outputs}
    links = []
    for operator in found:
        link = _link(graph, operator, reading, readers, ends)
        if link is not None and not operator.shares and not link.after.shares:
            links.append(link)
    return links


def _link(
    graph: Graph, operator: Operator, reading: Mapping[int, Operator], readers: Mapping[str, list[int]], ends: set[str]
) -> _Link | None:
    """Follow an operator's output to the next operator; None where anything else reads it, or tells channels apart."""
    nodes = graph.model.graph.node
    axis = 1 if "Conv" in operator.entry.op else len(graph.value(nodes[operator.node].output[0]).shape) - 1
    if operator.place != 1 or _other_bias(graph, operator):
        return None
    name = nodes[operator.bias_node].output[0]
    values = list(dict.fromkeys([nodes[operator.node].output[0], name]))
    repeated = 1
    while name not in ends and len(readers.get(name, [])) == 1:
        place = readers[name][0]
        node = nodes[place]
        after = reading.get(place)
        if after is not None:
            fits = after.entry.value == name and after.entry.feature_axis == axis
            fits = fits and after.weight.size and _features(after) == operator.outputs * repeated
            return _Link(operator, after, tuple(values), repeated) if fits else None
        if node.op_type == "Flatten" and axis == 1 and all(a.i == 1 for a in node.attribute):
            sizes = [size for size in graph.value(name).shape[2:] if isinstance(size, int)]
            repeated *= int(np.prod(sizes, dtype=np.int64))
        elif node.op_type not in _HOMOGENEOUS or node.input[0] != name or len([o for o in node.output if o]) != 1:
            return None
        name = node.output[0]
        values.append(name)
    return None


def _other_bias(graph: Graph, operator: Operator) -> bool:
    """Whether something is added that is not a bias of one number for each channel."""
    node = graph.model.graph.node[operator.node]
    return operator.bias is None and len(node.input) > 2 and bool(node.input[2])


def _features(operator: Operator) -> int:
    """Channels of what an operator reads."""
    groups, _, features = operator.weight.shape
    taps = int(np.prod(operator.shape[2:])) if operator.entry.op == "Conv" else 1
    found: int = groups * features // taps
    return found


def _result(
    graph: Graph,
    records: PublishedRecords,
    links: list[_Link],
    weights: Mapping[str, Array],
    total: Mapping[str, Array],
    first: Mapping[str, tuple[Array, Array]],
) -> Result:
    changed = {operator.label: operator for link in links for operator in (link.before, link.after)}
    biases = {
        link.before.label: bias_values(graph, link.before) / total[link.before.label]
        for link in links
        if link.before.bias is not None
    }
    values = {operator.entry.weight: operator.restored(weights[label]) for label, operator in changed.items()}
    scales = {value: total[link.before.label] for link in links for value in link.values}
    repeated = {link.values[-1]: link.repeated for link in links}
    whole = {value: np.repeat(scale, repeated.get(value, 1)) for value, scale in scales.items()}
    made = with_weights(with_bias(graph, biases), values) if biases else with_weights(graph, values)
    kept, dropped = scaled_records(made, records, whole)
    pairs = []
    for link in links:
        before, after = (np.maximum(array, np.finfo(float).tiny) for array in first[link.before.label])
        scale = total[link.before.label]
        spread = float(np.exp(np.abs(np.log(before) - np.log(after)).mean()))
        pairs.append(
            Pair(link.before.label, link.after.label, len(scale), spread, float(scale.min()), float(scale.max()))
        )
    return Result(made, kept, whole, tuple(pairs), dropped)
