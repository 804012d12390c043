"""The same compression with the data at hand: the slow references of the tests, on what each layer reads.

Inner products are summed over all images in float64, in one pass and without any record, and the plain methods of
`tests/compress/claim/reference_*.py` run on a root of them. As in the records, no layer sees what became of an earlier
one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dfmeta.compress import factorize, prune, quantize
from dfmeta.compress._cutting import reason_to_keep
from dfmeta.compress._ends import first_and_last
from dfmeta.compress._operators import Operator, bias_values, operators, with_bias, with_weights
from dfmeta.compress._sources import Sources
from dfmeta.graph import Graph, OrtGraph
from dfmeta.graph.channels import channel_groups
from dfmeta.graph.folding import without_batch_norm
from dfmeta.graph.narrow import narrowed
from dfmeta.graph.widths import width
from dfmeta.records import PublishedRecords

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "compress" / "claim"))

import reference_factors  # type: ignore[import-not-found]
import reference_pruning  # type: ignore[import-not-found]
import reference_quantization  # type: ignore[import-not-found]
from reference_data import Layer  # type: ignore[import-not-found]

sys.path.pop(0)

if TYPE_CHECKING:
    from closed_form_networks import Network

Array = NDArray[np.float64]
IMAGES = 5000
BATCH = 50


def layers(network: Network) -> dict[str, Layer]:
    """What each operator of the graph without normalisation reads; kept in a file, for it takes minutes."""
    graph, file = without_batch_norm(network.graph), network.folder / f"real-{IMAGES}.npz"
    found = operators(graph)
    if not file.exists():
        np.savez(file, allow_pickle=False, **_summed(network, graph, found))
    with np.load(file) as sums:
        return {one.label: _layer(graph, one, sums) for one in found}


def _layer(graph: Graph, operator: Operator, sums: Mapping[str, Array]) -> Layer:
    window = operator.entry.window
    kernel = tuple(window.kernel) if window is not None else ()
    total = sums[operator.label]
    mean = total[0, 1:] / total[0, 0]
    values, vectors = np.linalg.eigh(total[1:, 1:] / total[0, 0] - np.outer(mean, mean))
    samples = np.sqrt(values.clip(min=0))[:, None] * vectors.T
    return Layer(operator.weight[0], bias_values(graph, operator), mean, samples, kernel)


def _summed(network: Network, graph: Graph, found: tuple[Operator, ...]) -> dict[str, Array]:
    """``[1 + d, 1 + d]`` sums of the products of 1 and the features, by operator."""
    images = network.images("train", IMAGES)[0]
    tapped = tuple({one.entry.value for one in found} - {graph.inputs[0].name})
    session = OrtGraph(graph, tapped, threads=1, dynamic_batch=True)
    sums = {one.label: np.zeros((1 + one.weight.shape[2],) * 2) for one in found}
    for start in range(0, len(images), BATCH):
        given = {graph.inputs[0].name: images[start : start + BATCH]}
        values = session.run(given) | given
        for one in found:
            rows = torch.from_numpy(np.asarray(values[one.entry.value]))
            if one.entry.window is not None:
                rows = _patches(one, rows)
            elif one.entry.feature_axis is not None:
                rows = rows.movedim(one.entry.feature_axis, -1)
            rows = rows.reshape(-1, rows.shape[-1]).double()
            whole = torch.cat([torch.ones(len(rows), 1, dtype=torch.float64), rows], 1)
            sums[one.label] += (whole.T @ whole).numpy()
    return sums


def _patches(operator: Operator, value: torch.Tensor) -> torch.Tensor:
    window = operator.entry.window
    assert window is not None  # noqa: S101 - asked by the caller
    (top, left), (bottom, right) = window.before, window.after
    padded = F.pad(value, (left, right, top, bottom))
    sizes = (tuple(each) for each in (window.kernel, window.dilations, (0, 0), window.strides))
    found = F.unfold(padded, *sizes)
    return found.transpose(1, 2)


def quantized(network: Network, config: quantize.Config) -> Graph:
    """Weights by GPTQ on the data, biases by its means."""
    graph, bits = without_batch_norm(network.graph), quantize.widths(config)[0]
    ends, new = first_and_last(graph, operators(graph)), {}
    for label, layer in layers(network).items():
        used = max(bits, config.first_last_bits) if label in ends else bits
        limits = reference_quantization.limits_of(used)
        if used > 6:
            scales = reference_quantization.best_for_nearest(layer.weight, layer.samples, limits)
            codes = reference_quantization.gptq(layer.weight, layer.samples, scales, limits)
        else:
            scales, codes = reference_quantization.best_for_gptq(layer.weight, layer.samples, limits)
        new[label] = scales[:, None] * codes
    return _replaced(network, graph, new)


def factorized(network: Network, config: factorize.Config) -> Graph:
    """Layers of the forms and ranks that the recorded budget chose, fitted to the data, multiplied out."""
    chosen = factorize.run(network.graph, network.records("full"), config).operators
    known, new = layers(network), {}
    for report in chosen:
        layer = known[report.label]
        new[report.label] = layer.weight if report.form == "whole" else in_form(layer, report.form, report.ranks)
    return _replaced(network, without_batch_norm(network.graph), new)


def in_form(layer: Layer, form: str, ranks: tuple[int, ...]) -> Array:
    """``[o, d]`` that a form's stages multiply out to."""
    if form == "svd":
        return np.asarray(reference_factors.low_rank(layer.weight, layer.samples, ranks[0]))
    order = np.arange(layer.weight.shape[1])
    if form == "columns":
        order = order.reshape(-1, *layer.kernel).swapaxes(1, 2).reshape(-1)
    seen = {"tucker": int(np.prod(layer.kernel)), "rows": layer.kernel[-1], "columns": layer.kernel[0]}[form]
    kernel = layer.weight[:, order].reshape(len(layer.weight), -1, seen)
    found: Array = np.empty_like(layer.weight)
    stages = reference_factors.staged(kernel, layer.samples[:, order], ranks[0], ranks[1])
    found[:, order] = stages.reshape(found.shape)
    return found


def pruned(network: Network, config: prune.Config) -> Graph:
    """Inner channels by the surgeon on the data, and the layers that read them by least squares on it."""
    graph, known = without_batch_norm(network.graph), layers(network)
    sources = Sources(graph, PublishedRecords(()), config.damping, affine=True)
    by_weight = {one.entry.weight: one.label for one in operators(graph)}
    kept, new = {}, {}
    for group in channel_groups(graph):
        if reason_to_keep(group, sources, config.groups):
            continue
        [reader] = group.of("consumer")
        label = by_weight[reader.tensor]
        layer, gone = known[label], group.size - width(group.size, config.channels or 1.0)
        kept[group.id] = reference_pruning.by_surgeon(layer.weight, layer.samples, group.size, gone)
        columns = sources.blocks(reader)[kept[group.id]].reshape(-1)
        new[label] = np.zeros_like(layer.weight)
        new[label][:, columns] = reference_pruning.repaired(layer.weight, layer.samples, columns)
    return narrowed(_replaced(network, graph, new), kept)


def _replaced(network: Network, graph: Graph, new: Mapping[str, Array]) -> Graph:
    """A graph with other weights, and biases that keep the mean of every output."""
    known, weights, biases = layers(network), {}, {}
    for one in operators(graph):
        if one.label in new:
            layer = known[one.label]
            weights[one.entry.weight] = one.restored(new[one.label][None])
            biases[one.label] = layer.bias + one.alpha * (layer.weight - new[one.label]) @ layer.mean
    return with_bias(with_weights(graph, weights), biases)
