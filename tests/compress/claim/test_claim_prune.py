"""Pruning from records gives the layers that the data itself gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import reference_pruning as pruning
from claim_case import SAME_INTEGERS, SAME_LAYERS, Case, apart, equal, matrices, shifted
from reference_quantization import corrected_bias

from dfmeta.compress import prune
from dfmeta.graph import Graph


@pytest.mark.parametrize(("channels", "ranking"), [(0.75, "surgeon"), (0.5, "surgeon"), (0.5, "energy")])
def test_pruned_layers_are_those_of_the_data(case: Case, channels: float, ranking: Any) -> None:
    config = prune.Config(channels=channels, ranking=ranking)
    result = prune.run(case.graph, case.records, config)
    assert [group.kept < group.size for group in result.groups].count(True) == len(case.layers) - 1
    compare(case, result, [left(case, number, channels, ranking) for number in range(len(case.layers))])


@pytest.mark.parametrize("fraction", [0.8, 0.5])
def test_widths_for_a_share_of_the_work_are_those_of_the_data(case: Case, fraction: float) -> None:
    macs = work(case.graph)
    following = [(layer.weight, layer.samples) for layer in case.layers[1:]]
    sizes = [len(layer.weight) for layer in case.layers[:-1]]
    readers = [(*reader, size) for reader, size in zip(following, sizes, strict=True)]
    kept: list[Any] = [*pruning.by_work(readers, macs, fraction), slice(None)]
    result = prune.run(case.graph, case.records, prune.Config(macs=fraction))
    assert [group.kept for group in result.groups[:-1]] == [len(rows) for rows in kept[:-1]]
    assert len({len(rows) / size for rows, size in zip(kept[:-1], sizes, strict=True)}) > 1
    compare(case, result, kept)


def work(graph: Graph) -> list[float]:
    """Multiply-accumulates of each Conv and Gemm for one image: positions times elements of the weight."""
    model = onnx.shape_inference.infer_shapes(graph.model)
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.value_info}
    nodes = (node for node in model.graph.node if node.op_type in ("Conv", "Gemm"))
    return [
        float(np.prod(shapes.get(node.output[0], [])[2:]) * graph.initializers[node.input[1]].size) for node in nodes
    ]


def compare(case: Case, result: prune.Result, kept_rows: list[Any]) -> None:
    """Weights and biases against least squares on the data, for these channels."""
    rows: np.ndarray | slice = slice(None)
    for number, (_, weight, bias) in enumerate(matrices(result.graph)):
        layer, expected, best = case.layers[number], case.layers[number].weight, case.layers[number].bias
        kept = np.arange(expected.shape[1])
        if number:
            size = len(case.layers[number - 1].weight)
            kept = pruning.features(rows, len(kept) // size)  # type: ignore[arg-type]
            expected = pruning.repaired(layer.weight, layer.samples, kept)
            best = layer.bias + layer.weight @ layer.mean - expected @ layer.mean[kept]
        rows = kept_rows[number]
        assert apart(weight, expected[rows]) < SAME_LAYERS
        np.testing.assert_allclose(bias, best[rows], atol=SAME_LAYERS * shifted(layer, best))


def left(case: Case, number: int, channels: float, ranking: str) -> Any:
    """The channels that the next layer's samples leave of one layer."""
    if number + 1 == len(case.layers):
        return slice(None)
    reader, size = case.layers[number + 1], len(case.layers[number].weight)
    count = size - int(np.ceil(channels * size))
    rule = pruning.by_energy if ranking == "energy" else pruning.by_surgeon
    return rule(reader.weight, reader.samples, size, count)


def test_the_surgeon_finds_what_trying_each_channel_finds(digits_case: Case) -> None:
    """By least squares with each channel left out in turn, on the data."""
    reader = digits_case.layers[1]
    tried = pruning.by_trying(reader.weight, reader.samples, 8, 4)
    result = prune.run(digits_case.graph, digits_case.records, prune.Config(channels=0.5))
    expected = digits_case.layers[0].weight[tried]
    assert apart(matrices(result.graph)[0][1], expected) < SAME_LAYERS


@pytest.mark.parametrize("pattern", ["0.5", "0.7", "2:4"])
def test_sparse_layers_are_those_of_the_data(case: Case, pattern: str) -> None:
    result = prune.run(case.graph, case.records, prune.Config(sparsity=pattern))
    for layer, (_, weight, bias) in zip(case.layers, matrices(result.graph), strict=True):
        taps = int(np.prod(layer.kernel))
        inputs = layer.weight.shape[1] // taps
        expected = layer.weight
        if pattern != "2:4":
            expected = pruning.sparse(layer.weight, layer.samples, float(pattern), taps)
        elif inputs % 4 == 0:
            expected = pruning.sparse(layer.weight, layer.samples, (2, 4), taps)
        assert equal([weight == 0], [expected == 0]) >= SAME_INTEGERS
        assert apart(weight, expected) < SAME_LAYERS
        best = corrected_bias(layer.bias, layer.weight, expected, layer.mean)
        np.testing.assert_allclose(bias, best, atol=SAME_LAYERS * shifted(layer, best))
