"""BatchNormalization as part of the operator before it: the same function, the same names of what is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import helper

from dfmeta.graph import Graph, OrtGraph
from dfmeta.graph.folding import free_name, without_batch_norm
from dfmeta.graph.operator_inputs import operator_inputs

make = helper.make_node
Build = Callable[..., Graph]
GENERATOR = np.random.default_rng(5)


def f(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape).astype(np.float32)


def statistics(channels: int, name: str = "n") -> dict[str, np.ndarray]:
    positive = np.abs(f(channels)) + np.float32(0.1)
    return {f"{name}g": f(channels), f"{name}s": f(channels), f"{name}m": f(channels), f"{name}v": positive}


def norm(value: str, result: str, name: str = "n", **attributes: object) -> onnx.NodeProto:
    return make("BatchNormalization", [value, *(f"{name}{part}" for part in "gsmv")], [result], **attributes)


def operators_of(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.model.graph.node]


def check(graph: Graph, x: np.ndarray, expected: Sequence[str]) -> Graph:
    """The folded graph has these operators and computes the same."""
    folded = without_batch_norm(graph)
    assert operators_of(folded) == list(expected)
    assert [value.name for value in (*folded.inputs, *folded.outputs)] == [
        value.name for value in (*graph.inputs, *graph.outputs)
    ]
    before, after = (OrtGraph(one, threads=1).run({"x": x}) for one in (graph, folded))
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=2e-4, atol=2e-4 * float(np.abs(array).max()))
    return folded


CONVOLUTIONS: Sequence[tuple[str, Mapping[str, object], tuple[int, ...], tuple[int, ...], int]] = [
    ("Conv", {"pads": [1, 1, 1, 1]}, (2, 4, 6, 6), (6, 4, 3, 3), 6),
    ("Conv", {"group": 2, "strides": [2, 1]}, (2, 4, 7, 7), (6, 2, 3, 3), 6),
    ("Conv", {"group": 4, "dilations": [2]}, (2, 4, 9), (8, 1, 3), 8),
    ("Conv", {"auto_pad": "SAME_UPPER"}, (2, 4, 5, 5), (3, 4, 2, 2), 3),
    ("ConvTranspose", {"strides": [2, 2]}, (2, 4, 4, 4), (4, 3, 3, 3), 3),
    ("ConvTranspose", {"group": 2, "output_padding": [1, 1], "strides": [2, 2]}, (2, 4, 4, 4), (4, 3, 2, 2), 6),
]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("op", "attributes", "size", "shape", "channels"), CONVOLUTIONS)
def test_convolutions(
    op: str,
    attributes: Mapping[str, object],
    size: tuple[int, ...],
    shape: tuple[int, ...],
    channels: int,
    biased: bool,
    build_graph: Build,
) -> None:
    names = ["x", "w", "b"] if biased else ["x", "w"]
    constants = {"w": f(*shape), **statistics(channels)} | ({"b": f(channels)} if biased else {})
    nodes = [make(op, names, ["c"], **attributes), norm("c", "y", epsilon=1e-3)]
    x = f(*size)
    check(build_graph(nodes, {"x": x}, ["y"], 18, constants), x, [op])


@pytest.mark.parametrize("bias", [None, (5,), (1, 5), (1,), ()])
@pytest.mark.parametrize("attributes", [{"transB": 1}, {"alpha": 0.5, "beta": 3.0}, {"transA": 1, "beta": 0.0}])
def test_gemm(attributes: Mapping[str, float], bias: tuple[int, ...] | None, build_graph: Build) -> None:
    shape = (5, 4) if "transB" in attributes else (4, 5)
    x = f(4, 3) if "transA" in attributes else f(3, 4)
    constants = {"w": f(*shape), **statistics(5)} | ({} if bias is None else {"b": f(*bias)})
    nodes = [make("Gemm", ["x", "w", *(["b"] if bias is not None else [])], ["c"], **attributes), norm("c", "y")]
    check(build_graph(nodes, {"x": x}, ["y"], 18, constants), x, ["Gemm"])


def test_matmul_with_the_weight_on_the_right_gets_an_addition(build_graph: Build) -> None:
    nodes = [make("MatMul", ["x", "w"], ["c"]), norm("c", "y")]
    x = f(3, 4)
    check(build_graph(nodes, {"x": x}, ["y"], 18, {"w": f(4, 5), **statistics(5)}), x, ["MatMul", "Add"])


@pytest.mark.parametrize("added", [(5, 1), (1, 5, 1), (1,), (5, 6)])
def test_matmul_with_the_weight_on_the_left(added: tuple[int, ...], build_graph: Build) -> None:
    """Its rows are the channels along axis 1."""
    nodes = [make("MatMul", ["w", "x"], ["c"]), make("Add", ["b", "c"], ["a"]), norm("a", "y")]
    x = f(2, 4, 6)
    constants = {"w": f(5, 4), "b": f(*added), **statistics(5)}
    check(build_graph(nodes, {"x": x}, ["y"], 18, constants), x, ["MatMul", "Add"])


def test_what_operators_read_keeps_its_name(build_graph: Build) -> None:
    nodes = [
        make("Conv", ["x", "w"], ["c"]),
        norm("c", "b1"),
        make("Conv", ["b1", "u"], ["d"], name="second"),
        norm("d", "b2", "o"),
        make("Relu", ["b2"], ["y"]),
    ]
    x = f(1, 2, 5, 5)
    constants = {"w": f(3, 2, 1, 1), "u": f(4, 3, 1, 1), **statistics(3), **statistics(4, "o")}
    graph = build_graph(nodes, {"x": x}, ["y"], 18, constants)
    folded = check(graph, x, ["Conv", "Conv", "Relu"])
    assert operator_inputs(folded) == operator_inputs(graph)


STAYS: Mapping[str, tuple[Sequence[onnx.NodeProto], Sequence[str]]] = {
    "the product is an output": ([make("Conv", ["x", "w"], ["c"]), norm("c", "y")], ["c", "y"]),
    "the product is read twice": (
        [make("Conv", ["x", "w"], ["c"]), norm("c", "d"), make("Add", ["c", "d"], ["y"])],
        ["y"],
    ),
    "the weight is read twice": (
        [make("Conv", ["x", "w"], ["c"]), norm("c", "d"), make("Conv", ["d", "w"], ["y"])],
        ["y"],
    ),
    "nothing linear before it": ([make("Relu", ["x"], ["c"]), norm("c", "y")], ["y"]),
    "another axis": ([make("MatMul", ["x", "v"], ["c"]), norm("c", "y")], ["y"]),
}


@pytest.mark.parametrize("case", STAYS)
def test_what_cannot_be_folded_stays(case: str, build_graph: Build) -> None:
    nodes, outputs = STAYS[case]
    x = f(2, 3, 3, 3)
    constants = {"w": f(3, 3, 1, 1), "v": f(3, 3), **statistics(3)}
    graph = build_graph(nodes, {"x": x}, list(outputs), 18, constants)
    check(graph, x, [node.op_type for node in nodes])


def test_batch_norm_that_learns_stays(build_graph: Build) -> None:
    nodes = [
        make("Conv", ["x", "w"], ["c"]),
        make("BatchNormalization", ["c", "ng", "ns", "nm", "nv"], ["y", "rm", "rv"], training_mode=1),
    ]
    graph = build_graph(nodes, {"x": f(2, 3, 3, 3)}, ["y", "rm", "rv"], 18, {"w": f(3, 3, 1, 1), **statistics(3)})
    assert operators_of(without_batch_norm(graph)) == ["Conv", "BatchNormalization"]


def test_a_bias_that_another_reads_is_left_to_it(build_graph: Build) -> None:
    nodes = [
        make("Conv", ["x", "w", "b"], ["c"]),
        norm("c", "d"),
        make("Conv", ["d", "u", "b"], ["y"]),
    ]
    x = f(1, 3, 4, 4)
    constants = {"w": f(3, 3, 1, 1), "u": f(3, 3, 1, 1), "b": f(3), **statistics(3)}
    graph = build_graph(nodes, {"x": x}, ["y"], 18, constants)
    folded = check(graph, x, ["Conv", "Conv"])
    np.testing.assert_array_equal(folded.initializers["b"], constants["b"])


def test_a_free_name_is_new() -> None:
    assert free_name("a", {"b"}) == "a"
    assert free_name("a", {"a", "a_1"}) == "a_2"
