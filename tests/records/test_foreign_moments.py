"""Entries of other tools' files as the records of a graph: what fits, what is shared, what is left out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfmeta.errors import DataError
from dfmeta.graph import Graph
from dfmeta.graph.operator_inputs import operator_inputs
from dfmeta.records.foreign_moments import Assigned, ForeignFile, ForeignMoment, assign, require_moment
from dfmeta.records.foreign_names import by_map, by_rules

GENERATOR = np.random.default_rng(0)
SQUARES = GENERATOR.random(6) + 1


def attention() -> Graph:
    """Queries and keys of one value ``x [n, 3, 6]``, and a product of the keys; named as language models are."""
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj")
    weights = [
        numpy_helper.from_array(GENERATOR.normal(size=(6, 6)).astype(np.float32), f"model.layers.0.{name}.weight")
        for name in names
    ]
    nodes = [
        helper.make_node("MatMul", [value, weight.name], [made])
        for value, weight, made in zip(("x", "x", "k"), weights, ("q", "k", "o"), strict=True)
    ]
    nodes.append(helper.make_node("Add", ["q", "o"], ["y"]))
    return _graph(nodes, weights, [3, 6])


def grouped() -> Graph:
    """A convolution of two groups."""
    weight = numpy_helper.from_array(GENERATOR.normal(size=(4, 2, 3, 3)).astype(np.float32), "w")
    return _graph([helper.make_node("Conv", ["x", "w"], ["y"], group=2, pads=[1] * 4)], [weight], [4, 5, 5])


def _graph(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], shape: list[int]) -> Graph:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]) for name in ("x", "y")]
    proto = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Graph.from_bytes(model.SerializeToString(), "g.onnx")


def entry(name: str, squares: np.ndarray = SQUARES, count: int = 50) -> ForeignMoment:
    return ForeignMoment(name, f"file: {name!r}", count, squares, None)


def assigned(graph: Graph, *moments: ForeignMoment, units: int = 20) -> Assigned:
    file = ForeignFile("imatrix", moments, "chunk", units, (), ("llama.cpp imatrix", "gguf"))
    matched = by_rules([moment.name for moment in moments], operator_inputs(graph))
    return assign(graph, file, matched.reads, matched.unmatched, min_units=10, strict=False)


def test_weights_that_read_one_value_share_its_record() -> None:
    found = assigned(
        attention(), entry("blk.0.attn_q.weight"), entry("blk.0.attn_k.weight"), entry("blk.0.junk.weight")
    )
    (taken,) = found.recording.records
    assert (taken.plan.site.value, taken.plan.configuration["form"], taken.position_count) == ("x", "diagonal", 50)
    assert taken.plan.configuration["mean_observed"] is False
    np.testing.assert_allclose(taken.tensors["diagonal"], SQUARES, rtol=1e-6)
    assert list(found.used) == ["blk.0.attn_q.weight", "blk.0.attn_k.weight"]
    assert [one.name for one in found.left_out] == ["blk.0.junk.weight"]
    assert len(found.uncovered) == 1


def test_entries_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(DataError, match=r"other numbers than 'blk\.0\.attn_q\.weight' has, and both speak of 'x'"):
        assigned(attention(), entry("blk.0.attn_q.weight"), entry("blk.0.attn_k.weight", 2 * SQUARES))
    with pytest.raises(DataError, match="other numbers"):
        assigned(attention(), entry("blk.0.attn_q.weight"), entry("blk.0.attn_k.weight", count=49))
    near = SQUARES * (1 + 1e-4)
    assert assigned(attention(), entry("blk.0.attn_q.weight"), entry("blk.0.attn_k.weight", near)).used


def test_another_size_is_left_out_and_named() -> None:
    found = assigned(attention(), entry("blk.0.attn_q.weight"), entry("blk.0.attn_output.weight", np.ones(7)))
    assert [one.name for one in found.left_out] == ["blk.0.attn_output.weight"]
    assert "7 features, and" in found.left_out[0].reason
    assert "reads 6" in found.left_out[0].reason


def test_convolutions_of_groups_are_left_out() -> None:
    with pytest.raises(DataError, match="a convolution of 2 groups"):
        assigned(grouped(), entry("w", np.ones(18)))


def test_too_few_units() -> None:
    with pytest.raises(DataError, match=r"9 chunks, expected at least 10.*--min-units"):
        assigned(attention(), entry("blk.0.attn_q.weight"), units=9)


def test_with_a_map_a_misfit_is_an_error() -> None:
    graph = attention()
    file = ForeignFile("imatrix", (entry("a", np.ones(7)),), "chunk", 20, (), ("llama.cpp imatrix", "gguf"))
    matched = by_map(["a"], operator_inputs(graph), {"a": ("model.layers.0.self_attn.q_proj.weight",)})
    with pytest.raises(DataError, match=r"7 features.*Correct the map"):
        assign(graph, file, matched.reads, matched.unmatched, min_units=10, strict=True)


@pytest.mark.parametrize(
    ("mean", "diagonal", "said"),
    [
        (None, [np.nan], "NaN"),
        (None, [1e39], "beyond float32"),
        ([np.inf], [1.0], "NaN"),
        (None, [-1.0], "none below 0"),
        ([2.0], [1.0], "a mean whose square"),
    ],
)
def test_numbers_that_are_no_moments(mean: list[float] | None, diagonal: list[float], said: str) -> None:
    with pytest.raises(DataError, match=said):
        require_moment("file", 1, None if mean is None else np.array(mean), np.array(diagonal))
    require_moment("file", 1, np.array([1.0]), np.array([1.0]))
