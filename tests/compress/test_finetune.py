"""Fine-tuning: what may move moves towards the teacher; grids, zeros and statistics stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from dfmeta.compress import finetune, prune, quantize
from dfmeta.compress._held_weights import Grid, Learning, OnGrid, grids
from dfmeta.errors import DataError, Diverged, StepError, UnknownName
from dfmeta.graph import Graph, OrtGraph, TorchGraph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.numerics.gptq import code_range
from dfmeta.records import PublishedRecords

FEW = finetune.Config(steps=60, batch=64, lr=5e-3)


@pytest.fixture(scope="module")
def records(digits_teacher: Graph, digits: Any, records_of_graph: Callable[..., PublishedRecords]) -> PublishedRecords:
    return records_of_graph(digits_teacher, {"image": digits[0].numpy()})


@pytest.fixture(scope="module")
def two_bits(digits_teacher: Graph, records: PublishedRecords) -> Graph:
    return quantize.run(digits_teacher, records, quantize.Config("w2", first_last_bits=0)).graph


@pytest.fixture(scope="module")
def tuned(two_bits: Graph, digits_teacher: Graph, digits: Any) -> finetune.Result:
    return finetune.run(two_bits, digits_teacher, digits[0], finetune.Config(steps=150, batch=64, lr=2e-3))


def test_a_pruned_graph_comes_closer_to_its_teacher(
    digits_teacher: Graph, records: PublishedRecords, digits: Any
) -> None:
    cut = prune.run(digits_teacher, records, prune.Config(channels=0.5)).graph
    told: list[tuple[str, int, int]] = []
    found = finetune.run(
        cut, digits_teacher, digits[0], FEW, lambda stage, done, total, _: told.append((stage, done, total))
    )
    assert found.after < 0.7 * found.before
    assert told[-1] == ("finetune", 60, 60)
    assert {value.name for value in found.graph.outputs} == {value.name for value in digits_teacher.outputs}
    assert [node.op_type for node in found.graph.model.graph.node] == [node.op_type for node in cut.model.graph.node]


def test_the_same_seed_gives_the_same_bytes(tuned: finetune.Result, two_bits: Graph, digits_teacher: Graph) -> None:
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    short = finetune.Config(steps=3, batch=16)
    one, two, other = (finetune.run(two_bits, digits_teacher, x, short, seed=seed).graph.raw for seed in (1, 1, 2))
    assert one == two != other


def test_quantized_weights_stay_on_their_grid(tuned: finetune.Result, two_bits: Graph) -> None:
    assert tuned.after < tuned.before
    was, now = two_bits.initializers, tuned.graph.initializers
    low, high = code_range(2)
    moved = 0
    for grid in grids(two_bits):
        codes, scale = now[grid.codes].astype(np.int64), grid.codes.replace("_codes", "_scale")
        assert now[grid.codes].dtype == was[grid.codes].dtype
        assert low <= codes.min() <= codes.max() <= high
        np.testing.assert_array_equal(was[scale], now[scale])
        moved += int((codes != was[grid.codes].astype(np.int64)).sum())
    assert moved > 0
    assert [grid.bits for grid in grids(two_bits)] == [2, 2, 2]


def test_the_codes_are_those_of_a_forward_pass(two_bits: Graph, digits: Any) -> None:
    """Numbers behind the codes are moved about; what the module computes is what the file computes, bit for bit."""
    learning = Learning(two_bits)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in learning.module.parameters():
            parameter += 0.1 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
        x = digits[0][:50]
        wanted = learning.module(x)
    made = learning.graph()
    assert torch.equal(TorchGraph(made)(x), wanted)
    np.testing.assert_allclose(OrtGraph(made).run({"image": x.numpy()})["logits"], wanted.numpy(), atol=1e-4)
    assert made.raw != two_bits.raw


def test_what_does_not_learn_comes_back_as_it_was(two_bits: Graph) -> None:
    was, now = two_bits.initializers, Learning(two_bits).graph().initializers
    assert was.keys() == now.keys()
    assert all(was[name].tobytes() == now[name].tobytes() for name in was)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_and_its_gradient(bits: int) -> None:
    """Against rounding written out, and the gradient that is 1 inside the range and 0 outside of it."""
    steps = np.array([[0.1], [0.5]], np.float32)
    low, high = code_range(bits)
    numbers = torch.linspace(-1.5 * high, 1.5 * high, 41).repeat(2, 1) * torch.from_numpy(steps)
    module = OnGrid(Grid("w", "c", steps, bits))
    behind = module.right_inverse(numbers).requires_grad_(True)
    made = module(behind)
    made.sum().backward()
    exact = numbers.numpy().astype(np.float64) / steps
    near = np.abs(exact - np.floor(exact) - 0.5) < 1e-3
    expected = np.clip(np.rint(exact), low, high) * steps
    np.testing.assert_allclose(made.detach().numpy()[~near], expected[~near], rtol=1e-6)
    assert behind.grad is not None
    # In units of the numbers themselves.
    gradient = behind.grad.numpy() * (module.right_inverse(torch.ones(2, 1)).numpy())
    inside, outside = (exact > low) & (exact < high), (exact < low - 1e-3) | (exact > high + 1e-3)
    np.testing.assert_allclose(gradient[inside], 1.0, rtol=1e-6)
    assert outside.any()
    assert not gradient[outside].any()
    assert float(module.right_inverse(torch.tensor(steps) * low).abs().max()) <= 0.2 * (1 + 1e-6)


def test_zeros_stay_zero(digits_teacher: Graph, records: PublishedRecords, digits: Any) -> None:
    sparse = prune.run(digits_teacher, records, prune.Config(sparsity="0.5")).graph
    found = finetune.run(sparse, digits_teacher, digits[0], FEW)
    for name, was in sparse.initializers.items():
        if was.ndim > 1 and was.dtype.kind == "f":
            now = found.graph.initializers[name]
            assert not now[was == 0].any()
            assert (now != was).any()
    assert found.after < found.before


def test_statistics_of_batch_normalization_stay(digits_teacher: Graph, digits: Any) -> None:
    found = finetune.run(digits_teacher, digits_teacher, digits[0] * 0.5, FEW).graph
    norms = [node for node in found.model.graph.node if node.op_type == "BatchNormalization"]
    assert norms
    for name in (name for node in norms for name in node.input[3:5]):
        np.testing.assert_array_equal(found.initializers[name], digits_teacher.initializers[name])


def test_values_of_one_shape_are_matched(digits_teacher: Graph, records: PublishedRecords) -> None:
    whole = without_batch_norm(digits_teacher)
    assert len(finetune.matched_values(whole, digits_teacher)) == 2
    cut = prune.run(digits_teacher, records, prune.Config(channels=0.5)).graph
    assert finetune.matched_values(cut, digits_teacher) == ()


def test_without_features_only_logits_count(two_bits: Graph, digits_teacher: Graph, digits: Any) -> None:
    config = finetune.Config(steps=2, batch=8, features=0.0)
    assert finetune.run(two_bits, digits_teacher, digits[0], config).matched == ()


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        (finetune.Config(steps=0), DataError, "steps: found 0, expected 1 or more"),
        (finetune.Config(batch=0), DataError, "batch"),
        (finetune.Config(lr=0.0), DataError, "lr"),
        (finetune.Config(shift=1.0), DataError, "shift"),
        (finetune.Config(features=float("nan")), DataError, "features"),
        (finetune.Config(schedule="cosin"), UnknownName, "Did you mean 'cosine'"),
    ],
    ids=str,
)
def test_settings_out_of_range(config: finetune.Config, error: type[Exception], said: str, two_bits: Graph) -> None:
    with pytest.raises(error, match=said):
        finetune.run(two_bits, two_bits, torch.zeros(1, 1, 8, 8), config)


def test_no_inputs_and_bad_inputs(two_bits: Graph, digits_teacher: Graph) -> None:
    with pytest.raises(StepError, match="no inputs"):
        finetune.run(two_bits, digits_teacher, torch.zeros(0, 1, 8, 8), FEW)
    with pytest.raises(Diverged, match="step 1"):
        finetune.run(two_bits, digits_teacher, torch.full((4, 1, 8, 8), torch.nan), FEW)


def test_a_graph_without_weights_is_refused(build_graph: Callable[..., Graph]) -> None:
    graph = build_graph([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 4]}, {})
    with pytest.raises(StepError, match="no weights"):
        finetune.run(graph, graph, torch.zeros(2, 4), FEW)


def test_codes_around_another_zero_are_refused(two_bits: Graph, digits_teacher: Graph) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(two_bits.model)
    node = next(node for node in model.graph.node if node.op_type == "DequantizeLinear")
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[2])
    array = onnx.numpy_helper.to_array(zero)
    zero.CopyFrom(onnx.numpy_helper.from_array(np.ones_like(array), zero.name))
    graph = Graph.from_bytes(model.SerializeToString(), "around.onnx")
    with pytest.raises(StepError, match="zero point"):
        finetune.run(graph, digits_teacher, torch.zeros(2, 1, 8, 8), FEW)
