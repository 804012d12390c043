"""Which values weight operators read, along which axis, and through which window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper

from dfmeta.graph import Graph
from dfmeta.graph.operator_inputs import OperatorInput, operator_inputs
from dfmeta.graph.ops.windows import Window

make = helper.make_node
Build = Callable[..., Graph]


def f(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_every_operator_has_an_entry_in_graph_order(build_graph: Build) -> None:
    nodes = [
        make("Conv", ["x", "w"], ["c"], name="stem", strides=[2, 1], dilations=[1, 2], pads=[1, 0, 2, 3], group=2),
        make("ConvTranspose", ["c", "u"], ["t"]),
        make("GlobalAveragePool", ["t"], ["g"]),
        make("Flatten", ["g"], ["flat"]),
        make("Gemm", ["flat", "v"], ["y"], transB=1),
    ]
    constants = {"w": f(4, 1, 3, 3), "u": f(4, 3, 2, 2), "v": f(5, 3)}
    graph = build_graph(nodes, {"x": f(1, 2, 9, 9)}, ["y"], 18, constants)
    window = Window((3, 3), (2, 1), (1, 2), (1, 0), (2, 3))
    assert operator_inputs(graph) == (
        OperatorInput("stem", "Conv", "w", "x", 1, window, 2),
        OperatorInput("ConvTranspose_0", "ConvTranspose", "u", "c", 1),
        OperatorInput("Gemm_0", "Gemm", "v", "flat", 1),
    )


@pytest.mark.parametrize(("mode", "before", "after"), [("SAME_UPPER", 0, 1), ("SAME_LOWER", 1, 0), ("VALID", 0, 0)])
def test_automatic_padding_is_resolved(mode: str, before: int, after: int, build_graph: Build) -> None:
    node = make("Conv", ["x", "w"], ["y"], auto_pad=mode, strides=[2])
    graph = build_graph([node], {"x": f(1, 2, 8)}, ["y"], 18, {"w": f(4, 2, 3)})
    [found] = operator_inputs(graph)
    assert found.window == Window((3,), (2,), (1,), (before,), (after,))
    assert found.taps == 3


def test_attention_reads_one_value_several_times(build_graph: Build) -> None:
    nodes = [make("MatMul", ["x", name], [f"{name}_out"]) for name in ("q", "k", "v")]
    nodes += [make("MatMul", ["q_out", "k_out"], ["y"]), make("Identity", ["v_out"], ["z"])]
    graph = build_graph(nodes, {"x": f(2, 4, 4)}, ["y", "z"], 18, {name: f(4, 4) for name in "qkv"})
    assert [(entry.value, entry.weight, entry.feature_axis) for entry in operator_inputs(graph)] == [
        ("x", "q", 2),
        ("x", "k", 2),
        ("x", "v", 2),
    ]


@pytest.mark.parametrize(
    ("node", "shape", "weight", "axis"),
    [
        (make("MatMul", ["w", "x"], ["y"]), (2, 3, 5), (4, 3), 1),
        (make("MatMul", ["w", "x"], ["y"]), (3, 5), (4, 3), None),
        (make("MatMul", ["x", "w"], ["y"]), (2, 3, 5), (1, 5, 4), 2),
        (make("MatMul", ["x", "w"], ["y"]), (2, 3, 5), (2, 5, 4), None),
        (make("Gemm", ["x", "w"], ["y"], transA=1), (3, 5), (3, 4), None),
        (make("Gemm", ["w", "x"], ["y"]), (3, 5), (4, 3), None),
        (make("Gemm", ["w", "x"], ["y"], transB=1), (3, 5), (4, 5), 1),
        (make("MatMul", ["x", "w"], ["y"]), (5,), (5, 4), None),
    ],
)
def test_the_axis_is_that_of_the_sum_or_none_with_a_reason(
    node: object, shape: tuple[int, ...], weight: tuple[int, ...], axis: int | None, build_graph: Build
) -> None:
    graph = build_graph([node], {"x": f(*shape)}, ["y"], 18, {"w": f(*weight)})
    [found] = operator_inputs(graph)
    assert found.feature_axis == axis
    assert bool(found.left_out) == (axis is None)
    assert (found.value, found.weight) == ("x", "w")
    if axis is not None:
        # The sum over that axis is what the operator computes from the input.
        assert graph.value("x").shape[axis] in graph.value("w").shape


def test_weights_are_found_through_views_and_products_of_two_activations_are_none(build_graph: Build) -> None:
    nodes = [make("Transpose", ["w"], ["wt"]), make("MatMul", ["x", "wt"], ["m"]), make("MatMul", ["m", "x"], ["y"])]
    graph = build_graph(nodes, {"x": f(3, 3)}, ["y"], 18, {"w": f(3, 3)})
    assert operator_inputs(graph) == (OperatorInput("MatMul_0", "MatMul", "w", "x", 1),)
