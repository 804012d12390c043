"""Sites, weights, costs and the graph as data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper

from dfmeta.errors import GraphError
from dfmeta.graph import Graph, SiteValue, Value, costs, weight_sites

rng = np.random.default_rng(0)
make = helper.make_node
Build = Callable[..., Graph]


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def a(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


@pytest.fixture
def small(build_graph: Build) -> Graph:
    nodes = [
        make("Conv", ["x", "w", "b"], ["c"], name="conv"),
        make("Relu", ["c"], ["r"]),
        make("ConvTranspose", ["r", "u"], ["t"]),
        make("GlobalAveragePool", ["t"], ["g"]),
        make("Flatten", ["g"], ["flat"]),
        make("Gemm", ["flat", "v", "o"], ["y"], transB=1),
    ]
    constants = {"w": f(4, 2, 3, 3), "b": f(4), "u": f(4, 3, 2, 2), "v": f(5, 3), "o": f(5)}
    return build_graph(nodes, {"x": f(1, 2, 6, 6)}, ["y"], 18, constants)


def test_sites_are_pre_activations_in_graph_order(small: Graph) -> None:
    assert weight_sites(small) == (
        SiteValue("c", "conv", "Conv", 1, "w"),
        SiteValue("t", "ConvTranspose_0", "ConvTranspose", 1, "u"),
        SiteValue("y", "Gemm_0", "Gemm", 1, "v"),
    )


def test_costs(small: Graph) -> None:
    conv, transposed, dense = 4 * 4 * 4 * 2 * 9, 4 * 4 * 4 * 3 * 4, 15
    found = costs(small)
    assert found.macs == conv + transposed + dense
    assert found.parameters == small.parameter_count == 72 + 4 + 48 + 15 + 5
    assert found.bytes == len(small.raw)


def test_costs_are_for_one_item(build_graph: Build) -> None:
    graph = build_graph([make("MatMul", ["x", "w"], ["y"])], {"x": f(8, 3)}, ["y"], 18, {"w": f(3, 2)})
    assert costs(graph).macs == 6


def test_a_bias_belongs_to_its_layer(build_graph: Build) -> None:
    nodes = [make("MatMul", ["x", "w"], ["m"]), make("Add", ["b", "m"], ["y"])]
    graph = build_graph(nodes, {"x": f(2, 5, 3)}, ["y"], 18, {"w": f(3, 4), "b": f(4)})
    assert weight_sites(graph) == (SiteValue("y", "MatMul_0", "MatMul", 2, "w"),)


@pytest.mark.parametrize(
    "rest",
    [
        [make("Add", ["m", "b"], ["y"]), make("Relu", ["m"], ["z"])],
        [make("Add", ["m", "x"], ["y"]), make("Identity", ["b"], ["z"])],
        [make("Add", ["m", "m"], ["y"]), make("Identity", ["b"], ["z"])],
    ],
    ids=["read twice", "residual", "doubled"],
)
def test_other_additions_do_not(rest: list[object], build_graph: Build) -> None:
    nodes = [make("MatMul", ["x", "w"], ["m"]), *rest]
    graph = build_graph(nodes, {"x": f(2, 3)}, ["y", "z"], 18, {"w": f(3, 3), "b": f(3)})
    assert [site.value for site in weight_sites(graph)] == ["m"]


def test_weights_are_found_through_views_and_quantizers(build_graph: Build) -> None:
    nodes = [
        make("Transpose", ["w"], ["wt"]),
        make("MatMul", ["x", "wt"], ["m"]),
        make("DequantizeLinear", ["q", "s"], ["v"]),
        make("Gemm", ["m", "v"], ["y"]),
        make("MatMul", ["y", "y"], ["z"]),
    ]
    constants = {"w": f(4, 3), "q": np.ones((4, 4), np.int8), "s": np.array(0.5, np.float32)}
    graph = build_graph(nodes, {"x": f(4, 3)}, ["z"], 18, constants)
    assert [(site.value, site.weight) for site in weight_sites(graph)] == [("m", "w"), ("y", "q")]
    assert graph.weights == {"w"}


def test_statistics_scalars_and_shapes_are_not_weights(build_graph: Build) -> None:
    nodes = [
        make("BatchNormalization", ["x", "scale", "shift", "mean", "var"], ["n"]),
        make("Mul", ["n", "factor"], ["p"]),
        make("Add", ["p", "bias"], ["q"]),
        make("Div", ["q", "root"], ["d"]),
        make("Reshape", ["d", "target"], ["y"]),
    ]
    constants = {n: f(2) ** 2 for n in ("scale", "shift", "mean", "var")}
    constants |= {"factor": f(1), "bias": f(2, 1), "root": f(2, 1), "target": a(0, -1)}
    graph = build_graph(nodes, {"x": f(1, 2, 3)}, ["y"], 18, constants)
    assert graph.weights == {"scale", "shift", "bias"}
    assert graph.parameter_count == 6


def test_the_graph_as_data(small: Graph, tmp_path: object) -> None:
    assert small.sha256 == hashlib.sha256(small.raw).hexdigest()
    assert small.inputs == (Value("x", "float32", (1, 2, 6, 6)),)
    assert small.outputs == (Value("y", "float32", (1, 5)),)
    assert small.value("c") == Value("c", "float32", (1, 4, 4, 4))
    assert small.value("w") == Value("w", "float32", (4, 2, 3, 3))
    assert set(small.values) == {"x", "c", "r", "t", "g", "flat", "y", *small.initializer_names}
    assert small.initializers["v"].shape == (5, 3)
    assert Graph.from_bytes(small.raw, "again") == Graph.from_bytes(small.raw, "again")


def test_free_axes_keep_their_names() -> None:
    info = helper.make_tensor_value_info
    proto = helper.make_graph(
        [make("Relu", ["x"], ["y"])], "g", [info("x", 1, ["batch", 3])], [info("y", 1, ["batch", 3])]
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    graph = Graph.from_bytes(model.SerializeToString(), "m.onnx")
    assert graph.value("y").shape == ("batch", 3)


def test_unknown_values_offer_a_near_match(small: Graph) -> None:
    with pytest.raises(GraphError, match=r"test.onnx: found no value 'falt'.*Did you mean 'flat'\?"):
        small.value("falt")
    with pytest.raises(GraphError, match="list them with `values`"):
        small.value("zzzzzz")
