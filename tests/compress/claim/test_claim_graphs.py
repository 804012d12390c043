"""Branches, groups and products of matrices: what records give there is what the data itself gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import reference_pruning as pruning
import reference_quantization as rounding
from claim_case import SAME_INTEGERS, SAME_LAYERS, SAME_SCALES, apart, codes_of, equal
from onnx import helper
from reference_data import Layer
from reference_graph import layers_of

from dfmeta.bundle import Bundle
from dfmeta.compress import prune, quantize
from dfmeta.data import from_flags
from dfmeta.graph import Graph, OrtGraph
from dfmeta.pipeline import Gathering
from dfmeta.pipeline.recording import record_with
from dfmeta.pipeline.release import Publishing
from dfmeta.records import PublishedRecords

make = helper.make_node
PADDED = {"pads": [1] * 4}
NODES = [
    make("Conv", ["x", "w0"], ["c0"], "stem", **PADDED),
    make("BatchNormalization", ["c0", "gain", "shift", "mean", "var"], ["n0"]),
    make("Relu", ["n0"], ["r0"]),
    make("Conv", ["r0", "w1", "b1"], ["c1"], "inner", **PADDED),
    make("Relu", ["c1"], ["r1"]),
    make("Conv", ["r1", "w2"], ["c2"], "outer", **PADDED),
    make("Add", ["c2", "r0"], ["sum"]),
    make("Relu", ["sum"], ["r2"]),
    make("Conv", ["r2", "w3", "b3"], ["c3"], "grouped", group=2, strides=[2, 2], **PADDED),
    make("Relu", ["c3"], ["r3"]),
    make("GlobalAveragePool", ["r3"], ["pool"]),
    make("Flatten", ["pool"], ["flat"]),
    make("MatMul", ["flat", "w4"], ["p4"], "hidden"),
    make("Add", ["p4", "b4"], ["h"]),
    make("Relu", ["h"], ["r4"]),
    make("MatMul", ["r4", "w5"], ["y"], "head"),
]
KERNELS = {"w0": (8, 1, 3, 3), "w1": (6, 8, 3, 3), "w2": (8, 6, 3, 3), "w3": (12, 4, 3, 3)}
VECTORS = {"b1": (6,), "b3": (12,), "b4": (16,), "gain": (8,), "shift": (8,), "mean": (8,), "var": (8,)}
SHAPES: dict[str, tuple[int, ...]] = KERNELS | {"w4": (12, 16), "w5": (16, 10)} | VECTORS
NAMES = ("stem", "inner", "outer", "grouped", "hidden", "head")


@dataclass(frozen=True)
class Branched:
    """A residual network with a grouped convolution and two products, its records, and its layers from the data."""

    graph: Graph
    records: PublishedRecords
    layers: dict[str, list[Layer]]


@pytest.fixture(scope="module")
def branched(build_graph, digits, tmp_path_factory: pytest.TempPathFactory) -> Branched:  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(0)
    arrays = {}
    for name, shape in SHAPES.items():
        fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
        drawn = generator.standard_normal(shape) * (1.4 / np.sqrt(fan_in) if len(shape) > 1 else 0.3)
        arrays[name] = (np.abs(drawn) + 0.5 if name in ("gain", "var") else drawn).astype(np.float32)
    graph = build_graph(NODES, {"x": ["n", 1, 8, 8]}, {"y": ["n", 10]}, arrays)
    how = Gathering(presets=("calibration",), preprocessing=from_flags(1 / 255), form="full", by_class=False)
    out = tmp_path_factory.mktemp("branched") / "bundle"
    path = record_with(graph, "digits:train", out, how, Publishing()).path
    layers = layers_of(graph.model, digits[0].numpy())
    assert tuple(layers) == NAMES
    return Branched(graph, PublishedRecords.read(Bundle.open(path)), layers)


def rounded(layers: list[Layer], bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scales of all groups of an operator."""
    limits, found = rounding.limits_of(bits), []
    for layer in layers:
        if bits > 6:
            scales = rounding.best_for_nearest(layer.weight, layer.samples, limits)
            found.append((rounding.gptq(layer.weight, layer.samples, scales, limits), scales))
        else:
            scales, codes = rounding.best_for_gptq(layer.weight, layer.samples, limits)
            found.append((codes, scales))
    return np.concatenate([codes for codes, _ in found]), np.concatenate([scales for _, scales in found])


@pytest.mark.parametrize("bits", ["w8", "w4", "w3"])
def test_gptq_gives_the_integers_of_the_data(branched: Branched, bits: str) -> None:
    result = quantize.run(branched.graph, branched.records, quantize.Config(bits))
    assert [layer.bits for layer in result.layers] == [8, *[int(bits[1])] * 4, 8]
    expected = [rounded(branched.layers[layer.label], layer.bits) for layer in result.layers]
    found = codes_of(result)
    assert equal([codes for codes, _ in found], [codes for codes, _ in expected]) >= SAME_INTEGERS
    for (ours, scales), (codes, wanted) in zip(found, expected, strict=True):
        rows = (ours == codes).all(1)
        # Scales that are fitted follow moments in float32, which of few features are worse conditioned than of many.
        np.testing.assert_allclose(scales[rows], wanted[rows], rtol=5 * SAME_SCALES)


def test_biases_give_every_layer_its_mean_back(branched: Branched) -> None:
    """What each layer makes of the data's means, in its own place of the graph or in an Add behind it."""
    result = quantize.run(branched.graph, branched.records, quantize.Config("w3", first_last_bits=0))
    biases = {
        node.name: result.model.graph.initializers[node.input[2]]
        for node in result.model.graph.model.graph.node
        if node.op_type == "Conv"
    }
    adds = [node.input[1] for node in result.model.graph.model.graph.node if node.op_type == "Add"]
    behind = [name for name in adds if name in result.model.graph.initializers]
    biases |= {name: result.model.graph.initializers[bias] for name, bias in zip(NAMES[4:], behind, strict=True)}
    for name, (codes, scales) in zip(NAMES, codes_of(result), strict=True):
        replaced = np.split(scales[:, None] * codes, len(branched.layers[name]))
        parts = zip(branched.layers[name], replaced, strict=True)
        best = np.concatenate([rounding.corrected_bias(one.bias, one.weight, new, one.mean) for one, new in parts])
        np.testing.assert_allclose(biases[name].reshape(-1), best, atol=1e-5 * np.abs(best).max(), err_msg=name)


@pytest.mark.parametrize("share", [0.6, 0.75, 0.9])
def test_a_budget_of_bits_is_spent_as_the_data_would_spend_it(branched: Branched, share: float) -> None:
    """That weight goes from 8 to 4 bits next whose outputs then change least for the bytes that it saves."""
    errors: dict[str, dict[int, float]] = {}
    sizes: dict[str, dict[int, int]] = {}
    for name, layers in branched.layers.items():
        whole = sum(
            np.square(one.weight @ one.samples.T).sum() + np.square(one.weight @ one.mean).sum() for one in layers
        )
        errors[name], sizes[name] = {}, {}
        for bits in (8, 4):
            codes, scales = rounded(layers, bits)
            parts = zip(layers, np.split(scales[:, None] * codes, len(layers)), strict=True)
            lost = sum(np.square((one.weight - new) @ one.samples.T).sum() for one, new in parts)
            errors[name][bits], sizes[name][bits] = lost / whole, codes.size * bits // 8 + 4 * len(scales)
    worth = {n: (errors[n][4] - errors[n][8]) / (sizes[n][8] - sizes[n][4]) for n in NAMES}
    total, chosen = sum(each[8] for each in sizes.values()), dict.fromkeys(NAMES, 8)
    budget = int(share * total)
    for name in sorted(NAMES, key=worth.__getitem__):
        if total > budget:
            chosen[name], total = 4, total - sizes[name][8] + sizes[name][4]
    config = quantize.Config(budget_bytes=budget, first_last_bits=0)
    result = quantize.run(branched.graph, branched.records, config)
    assert {layer.label: layer.bits for layer in result.layers} == chosen
    assert sum(layer.bytes for layer in result.layers) == total <= budget
    for layer in result.layers:
        assert layer.error == pytest.approx(errors[layer.label][layer.bits], rel=2e-3)


def test_channels_inside_a_residual_branch_are_those_of_the_data(branched: Branched) -> None:
    result = prune.run(branched.graph, branched.records, prune.Config(channels=0.5))
    kept = {group.id: group.kept for group in result.groups}
    # The two groups of a convolution behind the sum tie its eight channels to four pairs, which stay.
    assert (kept["w0"], kept["w1"]) == (4, 3)
    (reader,), (maker,) = branched.layers["outer"], branched.layers["inner"]
    rows = pruning.by_surgeon(reader.weight, reader.samples, 6, 3)
    found = result.graph.initializers
    np.testing.assert_allclose(found["w1"].reshape(3, -1), maker.weight[rows], rtol=1e-6)
    columns = pruning.features(rows, 9)
    expected = pruning.repaired(reader.weight, reader.samples, columns)
    assert apart(found["w2"].reshape(8, -1), expected) < SAME_LAYERS
    node = next(node for node in result.graph.model.graph.node if node.name == "outer")
    best = reader.bias + reader.weight @ reader.mean - expected @ reader.mean[columns]
    np.testing.assert_allclose(found[node.input[2]], best, atol=1e-4 * np.abs(best).max())


def test_zeros_in_every_operator_are_those_of_the_data(branched: Branched) -> None:
    result = prune.run(branched.graph, branched.records, prune.Config(sparsity="0.5"))
    for name, weight in zip(NAMES, ("w0", "w1", "w2", "w3", "w4", "w5"), strict=True):
        array = result.graph.initializers[weight].astype(np.float64)
        rows = array.T if array.ndim == 2 else array.reshape(len(array), -1)
        taps = 1 if array.ndim == 2 else 9
        expected = [pruning.sparse(one.weight, one.samples, 0.5, taps) for one in branched.layers[name]]
        whole = np.concatenate(expected)
        assert equal([rows == 0], [whole == 0]) >= SAME_INTEGERS, name
        assert apart(rows, whole) < SAME_LAYERS, name


def test_the_reference_runs_the_graph(branched: Branched, digits) -> None:  # type: ignore[no-untyped-def]
    """Its last layer makes the logits that onnxruntime makes, in the mean."""
    logits = OrtGraph(branched.graph, threads=1).run({"x": digits[0].numpy()})["y"]
    (head,) = branched.layers["head"]
    np.testing.assert_allclose(head.weight @ head.mean, logits.mean(0), rtol=1e-4, atol=1e-5)
