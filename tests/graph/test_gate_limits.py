"""Damaged bytes and graphs that ask for too much: refused in our own words, and quickly."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dfmeta.errors import GraphError
from dfmeta.graph import Graph, OrtGraph, TorchGraph, costs, gate, weight_sites


def valid() -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    constant = numpy_helper.from_array(np.array([1, -1]), "target")
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w"], ["h"], name="layer"),
            helper.make_node("Constant", [], ["t"], value=constant),
            helper.make_node("Reshape", ["h", "t"], ["y"]),
        ],
        "g",
        [info("x", TensorProto.FLOAT, [1, 3])],
        [info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(np.ones((3, 2), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


RAW = valid().SerializeToString()


def load(model: onnx.ModelProto) -> Graph:
    return Graph.from_bytes(model.SerializeToString(), "m.onnx")


@given(st.integers(min_value=0, max_value=len(RAW) - 1))
@settings(max_examples=60, deadline=None)
def test_truncated_bytes(length: int) -> None:
    with pytest.raises(GraphError):
        Graph.from_bytes(RAW[:length], "m.onnx")


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_arbitrary_bytes(raw: bytes) -> None:
    with pytest.raises(GraphError):
        Graph.from_bytes(raw, "m.onnx")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_one_changed_byte_never_escapes_our_errors(data: st.DataObject) -> None:
    raw = bytearray(RAW)
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(GraphError):  # anything else fails the test
        graph = Graph.from_bytes(bytes(raw), "m.onnx")
        TorchGraph(graph)
        OrtGraph(graph)
        costs(graph)
        weight_sites(graph)


def test_too_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = valid()
    chain = [helper.make_node("Relu", ["h" if not i else f"r{i - 1}"], [f"r{i}"]) for i in range(60)]
    model.graph.node.extend(chain)
    monkeypatch.setattr(gate, "MAX_NODES", 50)
    with pytest.raises(GraphError, match="found 63 nodes, expected at most 50"):
        load(model)


def test_too_many_initializers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_INITIALIZERS", 0)
    with pytest.raises(GraphError, match="found 1 initializers, expected at most 0"):
        load(valid())


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_BYTES", 10)
    with pytest.raises(GraphError, match="bytes, expected at most 10"):
        load(valid())


def test_long_vectors_are_not_propagated() -> None:
    """Thirty doublings of a short vector, or one vector of 2^30 zeros, must cost nothing to load."""
    model = valid()
    doublings = [
        helper.make_node("Concat", [f"d{i}", f"d{i}"] if i else ["s", "s"], [f"d{i + 1}"], axis=0) for i in range(29)
    ]
    model.graph.node.extend([helper.make_node("Shape", ["x"], ["s"]), *doublings])
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**30]), "sizes"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["sizes"], ["zeros"]))
    model.graph.node.append(helper.make_node("Add", ["zeros", "zeros"], ["sum"]))
    start = time.perf_counter()
    assert load(model).value("zeros").shape == (2**30,)
    assert time.perf_counter() - start < 5


def test_a_file_without_an_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_BYTES", 1000)
    with pytest.raises(GraphError, match="found 1001 bytes, expected at most 1000") as caught:
        Graph.from_file("/dev/zero")
    assert caught.value.code == "graph-too-large"
