"""The arena: against a byte-by-byte simulation, against the best plan there is, and against published figures."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from small_graphs import graph_of, node
from torch import nn

from dfmeta import students
from dfmeta.errors import GraphError
from dfmeta.export import export_student
from dfmeta.export.arena import Interval, arena_size, assign, live_bound, plan
from dfmeta.export.device_costs import device_costs
from dfmeta.graph import Graph
from dfmeta.schema import v1

# MLPerf Tiny's reference models: input, classes, parameters, multiply-accumulates, arena in 8 bits. The first four are
# counted on the reference files (Banbury et al., arXiv:2106.07597); an arena cannot be less than what is alive at once.
PUBLISHED = {
    "ds-cnn": ((1, 49, 10), 12, 22_604, 2_656_768, 16_000),
    "resnet8": ((3, 32, 32), 10, 77_706, 12_501_632, 49_152),
    "mobilenet-v1-025": ((3, 96, 96), 2, 210_850, 7_489_664, 55_296),
}


def exported(name: str, shape: tuple[int, ...], classes: int) -> Graph:
    """A student as it leaves training: with biases that are not 0."""
    module = students.build(name, shape, classes, seed=0)
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features, generator=generator)
        if isinstance(getattr(part, "bias", None), nn.Parameter):
            nn.init.constant_(part.bias, 0.1)
    image = v1.Input(name="image", dtype="float32", shape=["n", *shape])
    return Graph.from_bytes(export_student(module, image, "logits", provenance={}), f"{name}.onnx")


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_those_of_the_reference_models(name: str) -> None:
    shape, classes, parameters, macs, arena = PUBLISHED[name]
    graph = exported(name, shape, classes)
    found = device_costs(graph)
    assert (found.parameters, found.macs) == (parameters, macs)
    assert (found.constant_bytes, found.code_bytes, found.flash_bytes) == (4 * parameters, None, 4 * parameters)
    assert (found.arena_bytes, found.live_bytes) == (4 * arena, 4 * arena)
    assert plan(graph, element_bytes=1).peak_bytes == arena
    int8 = device_costs(graph, as_int8=True)
    assert (int8.parameters, int8.arena_bytes) == (parameters, arena)
    assert parameters < int8.flash_bytes < 1.15 * parameters + 4 * 1000


def intervals(most: int) -> st.SearchStrategy[list[Interval]]:
    one = st.tuples(st.integers(0, 9), st.integers(0, 8), st.integers(0, 4))
    return st.lists(one.map(lambda drawn: Interval(drawn[0], drawn[1], drawn[1] + drawn[2])), max_size=most)


def best_size(items: list[Interval]) -> int:
    """The least arena there is: some order of placing each as low as it goes gives it.

    (Take a best plan and place by rising offset: nothing then comes to lie higher than it did.)
    """
    sizes = []
    for order in permutations(items):
        placed: list[tuple[int, Interval]] = []
        for one in order:
            above = [(low, other) for low, other in placed if other.meets(one)]
            ends = sorted({0, *(low + other.bytes for low, other in above)})
            at = next(
                at for at in ends if all(at >= low + other.bytes or at + one.bytes <= low for low, other in above)
            )
            placed.append((at, one))
        sizes.append(max((at + one.bytes for at, one in placed), default=0))
    return min(sizes)


@settings(deadline=None, max_examples=60)
@given(intervals(5))
def test_no_plan_is_smaller_than_the_bound_nor_larger_than_all(items: list[Interval]) -> None:
    size, best = arena_size(items, assign(items)), best_size(items)
    assert live_bound(items) <= best <= size <= sum(one.bytes for one in items)


@settings(deadline=None, max_examples=200)
@given(intervals(12))
def test_no_byte_has_two_owners(items: list[Interval]) -> None:
    offsets = assign(items)
    for step in range(14):
        taken = np.zeros(arena_size(items, offsets), int)
        for one, at in zip(items, offsets, strict=True):
            if one.first <= step <= one.last:
                taken[at : at + one.bytes] += 1
        assert (taken <= 1).all()
    assert live_bound(items) == max(
        (sum(one.bytes for one in items if one.first <= step <= one.last) for step in range(14)), default=0
    )


def owners(graph: Graph) -> list[tuple[str, ...]]:
    return [one.values for one in plan(graph).buffers]


def test_elementwise_results_take_the_place_of_what_nobody_reads_again() -> None:
    chain = [node("Exp", "x", "a"), node("Relu", "a", "b"), node("Tanh", "b", "c"), node("Add", "c a", "y")]
    # The input belongs to the caller; "a" is read once more, so that "b" needs a place, which "c" and "y" take over.
    assert owners(graph_of(chain, [1, 10])) == [("x",), ("a",), ("b", "c", "y")]
    found = plan(graph_of(chain, [1, 10]))
    assert (found.peak_bytes, found.live_bytes, found.temporaries_bytes) == (80, 80, 120)


def test_views_are_no_bytes() -> None:
    shape = np.array([2, 5], np.int64)
    nodes = [node("Exp", "x", "a"), node("Reshape", "a s", "b"), node("Neg", "a", "c"), node("Flatten", "b", "d")]
    graph = graph_of([*nodes, node("Concat", "c d", "y", axis=0)], [2, 5], s=shape)
    assert owners(graph) == [("x",), ("a", "b", "d"), ("c",), ("y",)]


def test_a_free_batch_counts_as_one() -> None:
    fixed, free = (graph_of([node("Exp", "x", "y")], [size, 7]) for size in (1, "n"))
    assert plan(fixed).peak_bytes == plan(free).peak_bytes == 56


def test_constants_are_no_temporaries_of_an_arena_but_generated_code_makes_them() -> None:
    nodes = [node("DequantizeLinear", "w s", "v"), node("MatMul", "x v", "y")]
    graph = graph_of(nodes, [1, 3], w=np.ones((3, 2), np.int8), s=np.float32(0.5))
    found = plan(graph)
    assert (found.peak_bytes, found.temporaries_bytes) == (12 + 8, 24)
    assert device_costs(graph).flash_bytes == 6 + 4
    assert device_costs(graph).parameters == 6


def test_integers_behind_a_quantizer_are_computed_as_integers() -> None:
    step = {"s": np.float32(0.1), "z": np.uint8(0)}
    first = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d")]
    inner = [node("Conv", "d w", "c"), node("Relu", "c", "r"), node("MaxPool", "r", "p", kernel_shape=[2, 2])]
    last = [node("QuantizeLinear", "p s z", "o"), node("DequantizeLinear", "o s z", "e"), node("Exp", "e", "y")]
    graph = graph_of([*first, *inner, *last], [1, 2, 8, 8], w=np.ones((4, 2, 1, 1), np.float32), **step)
    sizes = {one.values: one.bytes for one in plan(graph).buffers}
    assert sizes == {("x",): 512, ("q", "d"): 128, ("c", "r"): 256, ("p", "o", "e"): 196, ("y",): 784}


def test_a_second_quantizer_has_its_own_bytes() -> None:
    steps = {"s": np.float32(0.1), "t": np.float32(0.2), "z": np.uint8(0)}
    nodes = [node("Exp", "x", "a"), node("QuantizeLinear", "a s z", "q"), node("QuantizeLinear", "a t z", "r")]
    nodes += [node("DequantizeLinear", "q s z", "d"), node("DequantizeLinear", "r t z", "e"), node("Add", "d e", "y")]
    sizes = {one.values: one.bytes for one in plan(graph_of(nodes, [1, 10], **steps)).buffers}
    assert sizes == {("x",): 40, ("a",): 40, ("q", "d"): 10, ("r", "e"): 10, ("y",): 40}


def test_unknown_sizes_are_refused() -> None:
    graph = graph_of([node("NonZero", "x", "a"), node("Cast", "a", "y", to=TensorProto.FLOAT)], [1, 3])
    with pytest.raises(GraphError, match=r"value 'a': found shape .* expected known sizes"):
        plan(graph)
