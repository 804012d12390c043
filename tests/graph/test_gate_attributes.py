"""Attributes that onnx's shape inference would loop on or make room for: refused, each in no time."""

from __future__ import annotations

import time

import onnx
import pytest
from onnx import TensorProto, helper

from dfmeta.errors import GraphError
from dfmeta.graph import Graph


def load(op: str, inputs: int = 1, outputs: int = 1, **attributes: object) -> Graph:
    names = [f"y{number}" for number in range(outputs)]
    node = helper.make_node(op, ["x", "i"][:inputs], names, **attributes)
    body = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "n"]) for name in names],
        [helper.make_tensor("i", TensorProto.INT64, [1, 1], [0])],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)])
    return Graph.from_bytes(model.SerializeToString(), "model.onnx")


@pytest.mark.parametrize("equation", ["ij->ij", "ij", " i j -> j i ", "...j->...j", "i...->i...", "Ab->bA"])
def test_equations_that_are_some(equation):
    assert load("Einsum", equation=equation).outputs[0].shape[0] is not None


@pytest.mark.parametrize(
    "equation",
    ["ij-", "a\0b", "a.b", "....->i", "i...j...->ij", "ij->ij->ij", "i1", "é", "ij->j,i", "ij>ij", "a" * 10_000 + "-"],
)
def test_equations_that_are_none(equation):
    begun = time.perf_counter()
    with pytest.raises(GraphError, match=r"node 0 \(Einsum\): found equation .*, expected letters") as caught:
        load("Einsum", equation=equation)
    assert caught.value.code == "graph-attribute"
    assert time.perf_counter() - begun < 2


def test_a_split_of_another_number_of_outputs():
    assert [value.name for value in load("Split", outputs=2, axis=1, num_outputs=2).outputs] == ["y0", "y1"]
    for count in (1, 3, 0, -1, 2**31, 2**62):
        with pytest.raises(GraphError, match=rf"found num_outputs {count}, expected 2, as many as it has") as caught:
            load("Split", outputs=2, axis=1, num_outputs=count)
        assert caught.value.code == "graph-attribute"


def test_batch_dims_below_0():
    assert load("GatherND", inputs=2, batch_dims=0).outputs
    for count in (-1, -(2**31), 9, 2**62):
        with pytest.raises(GraphError, match=rf"found batch_dims {count}, expected 0 to 8") as caught:
            load("GatherND", inputs=2, batch_dims=count)
        assert caught.value.code == "graph-attribute"
