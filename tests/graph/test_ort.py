"""onnxruntime sessions: extra outputs, and errors in our own words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper

from dfmeta.errors import GraphError
from dfmeta.graph import Graph, OrtGraph

rng = np.random.default_rng(0)
make = helper.make_node


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.fixture
def graph(build_graph: Callable[..., Graph]) -> Graph:
    nodes = [
        make("Conv", ["x", "w"], ["c"]),
        make("BatchNormalization", ["c", "s", "s", "s", "v"], ["n"]),
        make("Shape", ["n"], ["sizes"]),
        make("Relu", ["n"], ["y"]),
    ]
    constants = {"w": f(2, 3, 1, 1), "s": f(2), "v": f(2) ** 2 + 1}
    return build_graph(nodes, {"x": f(1, 3, 2, 2)}, ["y"], 18, constants)


def test_outputs_first_then_chosen_values(graph: Graph) -> None:
    x = f(1, 3, 2, 2)
    found = OrtGraph(graph, ["c", "n", "sizes", "c", "y", "x", "w"], threads=1).run({"x": x})
    assert list(found) == ["y", "c", "n", "sizes", "x", "w"]
    np.testing.assert_allclose(found["c"], np.einsum("mcij,nchw->nmhw", graph.initializers["w"], x), 1e-5, 1e-6)
    np.testing.assert_array_equal(found["y"], np.maximum(found["n"], 0))
    assert found["sizes"].tolist() == [1, 2, 2, 2]
    assert found["x"] is x


def test_without_values_only_the_outputs(graph: Graph) -> None:
    assert list(OrtGraph(graph).run({"x": f(1, 3, 2, 2)})) == ["y"]


def test_any_batch_on_request(graph: Graph) -> None:
    assert OrtGraph(graph, ["c"], dynamic_batch=True).run({"x": f(5, 3, 2, 2)})["c"].shape == (5, 2, 2, 2)


def test_unknown_values(graph: Graph) -> None:
    with pytest.raises(GraphError, match="found no value 'k'"):
        OrtGraph(graph, ["k"])


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"z": f(1, 3, 2, 2)},
        {"x": f(1, 4, 2, 2)},
        {"x": f(1, 3, 2, 2).astype(np.float64)},
        {"x": f(4, 3, 2, 2)},
    ],
    ids=["missing", "unknown", "shape", "type", "batch"],
)
def test_inputs_that_do_not_fit(inputs: dict[str, np.ndarray], graph: Graph) -> None:
    with pytest.raises(GraphError, match="found inputs that onnxruntime cannot run"):
        OrtGraph(graph).run(inputs)


def test_graphs_that_onnxruntime_lacks_a_kernel_for(build_node: Callable[..., tuple[Graph, object]]) -> None:
    graph, _ = build_node("GlobalLpPool", 22, [f(1, 2, 3, 3)], {}, 1)
    with pytest.raises(GraphError, match="found a graph that onnxruntime refuses"):
        OrtGraph(graph)
