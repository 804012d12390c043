"""Ranges of values that nobody recorded, from those of their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from dfmeta.compress.value_ranges import Range, value_ranges
from dfmeta.errors import StepError, UnknownName
from dfmeta.graph import Graph, OrtGraph
from dfmeta.kinds.histogram.spec import BINS_BY_VALUE, bin_edges
from dfmeta.records import PublishedRecords, Statistic

Records = Callable[..., PublishedRecords]


def graph(*nodes: onnx.NodeProto, ends: tuple[str, ...] = ("y",)) -> Graph:
    """Nodes between ``x [n, 2, 4, 4]`` and ``y``, with a 1x1 convolution's weight ``w`` and a constant ``c``."""
    proto = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ends],
        [
            numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "w"),
            numpy_helper.from_array(np.array([-3, 5], np.float32).reshape(2, 1, 1), "c"),
        ],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model)
    return Graph.from_bytes(inferred.SerializeToString(), "g.onnx")


def histogram(value: str, numbers: list[float]) -> Statistic:
    lower, upper = bin_edges(BINS_BY_VALUE)
    lower, upper = (np.where(BINS_BY_VALUE == 0, 0.0, edges) for edges in (lower, upper))
    ranks = [int(np.flatnonzero((lower <= n) & ((n < upper) | ((n == 0) & (upper == 0))))[0]) for n in numbers]
    found, counts = np.unique(ranks, return_counts=True)
    tensors = {"bins": torch.from_numpy(BINS_BY_VALUE[found]), "counts": torch.from_numpy(counts)[None]}
    return Statistic("r", "s", value, "histogram", False, "flattened", None, tensors)


def ends(found: Range) -> tuple[float, float]:
    return found.low, found.high


def known(graph_: Graph, numbers: Mapping[str, list[float]]) -> dict[str, Range]:
    records = PublishedRecords(tuple(histogram(name, each) for name, each in numbers.items()))
    found = value_ranges(graph_, records, "minmax")
    assert {one.value for one in found.known}.isdisjoint(found.unknown)
    return {one.value: one for one in found.known}


X = {"x": [-2.0, 1.0]}


def near(found: Range, low: float, high: float) -> None:
    assert low * (1 + 1 / 16) - 1e-9 <= found.low <= low
    assert high <= found.high <= high * (1 + 1 / 16) + 1e-9


@pytest.mark.parametrize(
    ("node", "low", "high"),
    [
        (("Relu", ["x"]), 0, 1),
        (("Identity", ["x"]), -2, 1),
        (("Flatten", ["x"]), -2, 1),
        (("GlobalAveragePool", ["x"]), -2, 1),
        (("Sigmoid", ["x"]), 0, 1),
        (("Tanh", ["x"]), -1, 1),
        (("Add", ["x", "c"]), -5, 6),
        (("Add", ["x", "x"]), -4, 2),
        (("Sum", ["x", "x", "x"]), -6, 3),
    ],
    ids=str,
)
def test_what_follows_from_a_recorded_value(node: tuple[str, list[str]], low: float, high: float) -> None:
    found = known(graph(helper.make_node(*node, ["y"])), X)
    near(found["y"], low, high)
    assert (found["x"].origin, found["y"].origin) == ("recorded", "derived")


def test_before_a_rectifier_it_is_what_it_becomes() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["p"], kernel_shape=[2, 2]),
        helper.make_node("Conv", ["p", "w"], ["y"]),
    ]
    found = known(graph(*nodes), X | {"p": [0.0, 3.0]})
    assert ends(found["a"]) == ends(found["b"]) == ends(found["p"])
    assert (found["a"].origin, found["p"].origin, "y" in found) == ("derived", "recorded", False)
    several = known(graph(*nodes, helper.make_node("Neg", ["a"], ["z"]), ends=("y", "z")), X | {"p": [0.0, 3.0]})
    assert "a" not in several


def test_joined_values_have_the_wider_range() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Concat", ["a", "x"], ["y"], axis=1)]
    near(known(graph(*nodes), X)["y"], -2, 1)


@pytest.mark.parametrize("kind", ["gemm", "matmul", "matmul and add"])
def test_a_product_of_known_inputs_is_known_with_its_bias(kind: str, records_of_graph: Records) -> None:
    generator = np.random.default_rng(0)
    nodes = {
        "gemm": [helper.make_node("Gemm", ["x", "w", "b"], ["a"], alpha=0.5, beta=2.0)],
        "matmul": [helper.make_node("MatMul", ["x", "w"], ["a"])],
        "matmul and add": [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["a"])],
    }[kind]
    arrays = {"w": generator.standard_normal((6, 5)), "b": generator.standard_normal(5) + 8}
    proto = helper.make_graph(
        [*nodes, helper.make_node("Neg", ["a"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found = Graph.from_bytes(onnx.shape_inference.infer_shapes(model).SerializeToString(), "g.onnx")
    x = (generator.standard_normal((2000, 6)) + 1).astype(np.float32)
    taken = PublishedRecords(tuple(one for one in records_of_graph(found, {"x": x}) if one.value == "x"))
    ranges = {one.value: one for one in value_ranges(found, taken, "minmax").known}
    for name, array in OrtGraph(found, [node.output[0] for node in nodes], threads=1).run({"x": x}).items():
        if name in ranges:
            least, most = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
            assert ranges[name].origin == "moments"
            assert ranges[name].low == pytest.approx(least, abs=0.25 * (most - least))
            assert ranges[name].high == pytest.approx(most, abs=0.25 * (most - least))
    assert {node.output[0] for node in nodes} <= ranges.keys()


def test_what_is_added_that_is_no_bias_leaves_a_product_unknown(records_of_graph: Records) -> None:
    proto = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found = Graph.from_bytes(onnx.shape_inference.infer_shapes(model).SerializeToString(), "g.onnx")
    taken = records_of_graph(found, {"x": np.ones((20, 3), np.float32)})
    only = PublishedRecords(tuple(one for one in taken if one.value == "x"))
    assert value_ranges(found, only, "minmax").unknown == ("a", "y")


def test_what_nothing_is_known_of_is_named() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    found = value_ranges(graph(*nodes), PublishedRecords((histogram("x", [1.0]),)), "minmax")
    assert found.unknown == ("a", "y")


def test_a_policy_that_is_none() -> None:
    with pytest.raises(UnknownName, match="minmax"):
        value_ranges(graph(helper.make_node("Relu", ["x"], ["y"])), PublishedRecords(()), "max")


def test_an_empty_histogram() -> None:
    empty = histogram("x", [1.0])
    empty.tensors["counts"][:] = 0
    with pytest.raises(StepError, match="no counts"):
        value_ranges(graph(helper.make_node("Relu", ["x"], ["y"])), PublishedRecords((empty,)), "minmax")
