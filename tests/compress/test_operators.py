"""Weight operators as matrices: the same numbers as the operator, the records of what they read, other biases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper

from dfmeta.compress._operators import (
    bias_values,
    input_record,
    left_as_they_are,
    operators,
    with_bias,
    with_weights,
)
from dfmeta.graph import Graph, OrtGraph
from dfmeta.records import PublishedRecords

make = helper.make_node
Build = Callable[..., Graph]
Records = Callable[..., PublishedRecords]
GENERATOR = np.random.default_rng(7)


def f(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape).astype(np.float32)


def one(
    build_graph: Build, op: str, weight: np.ndarray, x: np.ndarray, output: Sequence[int], **settings: object
) -> Graph:
    """A graph of one operator."""
    left = settings.pop("left", False)
    extra = settings.pop("bias", None)
    names = ["w", "x"] if left else ["x", "w"]
    constants = {"w": weight} | ({} if extra is None else {"b": extra})
    node = make(op, [*names, *(["b"] if extra is not None else [])], ["y"], **settings)
    return build_graph([node], {"x": ["n", *x.shape[1:]]}, {"y": ["m", *output]}, constants)


# operator, weight, input, sizes of the output after the first, attributes
CASES: Mapping[str, tuple[str, np.ndarray, np.ndarray, Sequence[int], Mapping[str, object]]] = {
    "plain": ("Conv", f(5, 3, 3, 3), f(2, 3, 6, 6), (5, 6, 6), {"pads": [1, 1, 1, 1]}),
    "grouped": ("Conv", f(6, 2, 3, 2), f(2, 4, 7, 6), (6, 3, 5), {"group": 2, "strides": [2, 1]}),
    "depthwise": ("Conv", f(4, 1, 3, 3), f(2, 4, 7, 7), (4, 5, 5), {"group": 4, "dilations": [2, 2], "pads": [1] * 4}),
    "one axis": ("Conv", f(5, 3, 3), f(2, 3, 8), (5, 4), {"strides": [2], "pads": [1, 1]}),
    "gemm": ("Gemm", f(4, 5), f(6, 4), (5,), {}),
    "gemm transposed": ("Gemm", f(5, 4), f(6, 4), (5,), {"transB": 1, "alpha": 0.5}),
    "gemm on the left": ("Gemm", f(5, 4), f(3, 4), (3,), {"left": True, "transB": 1}),
    "gemm on the left, transposed": ("Gemm", f(4, 5), f(3, 4), (3,), {"left": True, "transA": 1, "transB": 1}),
    "product": ("MatMul", f(4, 5), f(2, 3, 4), (3, 5), {}),
    "product of rows": ("MatMul", f(4, 5), f(6, 4), (5,), {}),
    "product on the left": ("MatMul", f(5, 4), f(2, 4, 3), (5, 3), {"left": True}),
    "product with an axis more": ("MatMul", f(1, 4, 5), f(2, 3, 4), (3, 5), {}),
}


def features(case: str, x: np.ndarray) -> np.ndarray:
    """``[g, n, d]``: what one row of the matrix meets, sample by sample, written out."""
    op, weight, _, _, settings = CASES[case]
    if op != "Conv":
        along = x.swapaxes(1, 2) if op == "MatMul" and settings.get("left") else x
        return along.reshape(1, -1, weight.size // 5).astype(np.float64)
    kernel = weight.shape[2:]
    axes = len(kernel)
    given = {name: settings.get(name, [1] * axes) for name in ("strides", "dilations")}
    pads = settings.get("pads", [0] * 2 * axes)
    wide = torch.from_numpy(x.astype(np.float64))[..., None] if axes == 1 else torch.from_numpy(x.astype(np.float64))
    extra = [] if axes == 2 else [1]
    patches = F.unfold(
        wide,
        [*kernel, *extra],
        dilation=[*given["dilations"], *extra],
        padding=[*pads[:axes], *([0] if extra else [])],
        stride=[*given["strides"], *extra],
    )
    groups = settings.get("group", 1)
    return patches.reshape(len(x), groups, -1, patches.shape[-1]).permute(1, 0, 3, 2).flatten(1, 2).numpy()


@pytest.mark.parametrize("case", CASES)
def test_the_matrix_computes_what_the_operator_does(case: str, build_graph: Build) -> None:
    op, weight, x, output, settings = CASES[case]
    graph = one(build_graph, op, weight, x, output, **settings)
    [operator] = operators(graph)
    rows = features(case, x)
    found = np.einsum("gnd,god->gon", rows, operator.weight) * operator.alpha
    expected = OrtGraph(graph, threads=1).run({"x": x})["y"]
    if op == "Conv":
        expected = np.moveaxis(expected, 1, 0)
    elif operator.place == 1:
        expected = np.moveaxis(expected, -1, 0)
    elif op == "MatMul":
        expected = np.moveaxis(expected, -2, 0)
    np.testing.assert_allclose(found.reshape(operator.outputs, -1), expected.reshape(operator.outputs, -1), atol=1e-4)
    np.testing.assert_array_equal(operator.restored(operator.weight), weight)
    np.testing.assert_array_equal(operator.output_of.reshape(-1), np.arange(operator.outputs))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_has_rows_of_outputs_and_taps(groups: int, build_graph: Build) -> None:
    weight, x = f(4, 3, 2, 2), f(2, 4, 3, 3)
    graph = one(build_graph, "ConvTranspose", weight, x, (3 * groups, 6, 6), group=groups, strides=[2, 2])
    [operator] = operators(graph)
    rows = x.reshape(2, groups, -1, 9).transpose(1, 0, 3, 2).reshape(groups, 18, -1)
    made = np.einsum("gnd,god->gon", rows, operator.weight)
    # With a step as long as the kernel no two taps meet: [g, o, (2, 2), n, (3, 3)] is the picture itself.
    picture = made.reshape(groups, 3, 2, 2, 2, 3, 3).transpose(4, 0, 1, 5, 2, 6, 3).reshape(2, 3 * groups, 6, 6)
    np.testing.assert_allclose(OrtGraph(graph, threads=1).run({"x": x})["y"], picture, atol=1e-5)
    np.testing.assert_array_equal(operator.restored(operator.weight), weight)
    np.testing.assert_array_equal(operator.scale_of, np.tile(np.repeat(np.arange(3), 4), (groups, 1)))
    np.testing.assert_array_equal(operator.output_of.reshape(-1), np.repeat(np.arange(3 * groups), 4))


@pytest.mark.parametrize("case", [name for name in CASES if not name.startswith("gemm on the left")])
def test_the_record_is_that_of_the_rows(case: str, build_graph: Build, records_of_graph: Records) -> None:
    op, weight, x, output, settings = CASES[case]
    graph = one(build_graph, op, weight, x, output, **settings)
    [operator] = operators(graph)
    found = input_record(records_of_graph(graph, {"x": x}), operator)
    rows = features(case, x)
    assert (found.form, found.count) == ("full", rows.shape[1])
    np.testing.assert_allclose(found.moment, np.einsum("gnd,gne->gde", rows, rows) / rows.shape[1], atol=1e-5)
    np.testing.assert_allclose(found.mean, rows.mean(1), atol=1e-5)


def test_a_grouped_transposed_convolution_reads_blocks_of_its_record(
    build_graph: Build, records_of_graph: Records
) -> None:
    weight, x = f(4, 3, 2, 2), f(2, 4, 3, 3)
    graph = one(build_graph, "ConvTranspose", weight, x, (6, 6, 6), group=2, strides=[2, 2])
    [operator] = operators(graph)
    found = input_record(records_of_graph(graph, {"x": x}), operator)
    rows = x.astype(np.float64).reshape(2, 2, 2, 9).transpose(1, 0, 3, 2).reshape(2, 18, 2)
    np.testing.assert_allclose(found.moment, np.einsum("gnd,gne->gde", rows, rows) / 18, atol=1e-5)
    np.testing.assert_allclose(found.mean, rows.mean(1), atol=1e-5)


def test_a_stack_of_matrices_has_no_record(build_graph: Build) -> None:
    weight = f(2, 4, 5)
    graph = build_graph([make("MatMul", ["x", "w"], ["y"])], {"x": [2, 3, 4]}, {"y": [2, 3, 5]}, {"w": weight})
    [operator] = operators(graph)
    assert operator.weight.shape == (2, 5, 4)
    np.testing.assert_array_equal(operator.restored(operator.weight), weight)
    found = input_record(PublishedRecords(()), operator)
    assert (found.moment, found.mean, found.count, found.form) == (None, None, 0, "")


def test_a_weight_that_operators_share(build_graph: Build) -> None:
    nodes = [
        make("MatMul", ["x", "w"], ["a"], name="first"),
        make("MatMul", ["a", "w"], ["y"], name="second"),
    ]
    graph = build_graph(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, {"w": f(4, 4)})
    assert [(found.label, found.shares) for found in operators(graph)] == [
        ("first", ("second",)),
        ("second", ("first",)),
    ]
    assert left_as_they_are(graph) == ()


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (
            [make("Gather", ["w", "i"], ["e"]), make("MatMul", ["x", "w"], ["a"]), make("Add", ["a", "e"], ["y"])],
            "else",
        ),
        ([make("MatMul", ["x", "w"], ["a"]), make("MatMul", ["w", "a"], ["y"])], "several ways"),
        (
            [make("Transpose", ["w"], ["v"]), make("MatMul", ["x", "w"], ["a"]), make("MatMul", ["a", "v"], ["y"])],
            "a view of 'w'",
        ),
    ],
)
def test_a_weight_of_two_minds_is_left_as_it_is(
    nodes: Sequence[onnx.NodeProto], reason: str, build_graph: Build
) -> None:
    constants = {"w": f(4, 4), "i": np.zeros(1, np.int64)}
    graph = build_graph(nodes, {"x": [4, 4]}, {"y": [4, 4]}, constants)
    assert operators(graph) == ()
    assert any(reason in text for _, text in left_as_they_are(graph))


BIASED: Mapping[str, tuple[str, np.ndarray, np.ndarray, Sequence[int], Mapping[str, object]]] = {
    "conv": ("Conv", f(5, 3, 3), f(2, 3, 8), (5, 6), {"bias": f(5)}),
    "conv without": ("Conv", f(5, 3, 3), f(2, 3, 8), (5, 6), {}),
    "transposed": ("ConvTranspose", f(3, 5, 3), f(2, 3, 8), (5, 10), {"bias": f(5)}),
    "gemm": ("Gemm", f(4, 5), f(6, 4), (5,), {"bias": f(5), "beta": 0.5}),
    "gemm with one number": ("Gemm", f(4, 5), f(6, 4), (5,), {"bias": f(1), "beta": 0.5}),
    "gemm with a matrix": ("Gemm", f(4, 5), f(6, 4), (5,), {"bias": f(6, 5), "beta": 0.5}),
    "gemm without": ("Gemm", f(4, 5), f(6, 4), (5,), {}),
    "gemm on the left": ("Gemm", f(5, 4), f(4, 3), (3,), {"bias": f(5, 1), "left": True}),
    "product": ("MatMul", f(4, 5), f(2, 3, 4), (3, 5), {}),
    "product on the left": ("MatMul", f(5, 4), f(2, 4, 3), (5, 3), {"left": True}),
}


@pytest.mark.parametrize("case", BIASED)
def test_a_bias_that_is_raised_raises_the_output(case: str, build_graph: Build) -> None:
    op, weight, x, output, settings = BIASED[case]
    graph = one(build_graph, op, weight, x, output, **settings)
    [operator] = operators(graph)
    shift = np.arange(5) + 1.0
    changed = with_bias(graph, {operator.label: bias_values(graph, operator) + shift})
    before, after = (OrtGraph(g, threads=1).run({"x": x})["y"] for g in (graph, changed))
    axis = {"Conv": 1, "ConvTranspose": 1, "Gemm": operator.place}.get(op, before.ndim - 2 + operator.place)
    shape = [1] * before.ndim
    shape[axis] = -1
    np.testing.assert_allclose(after - before, np.broadcast_to(shift.reshape(shape), before.shape), atol=1e-4)


def test_the_bias_of_a_product_is_the_constant_behind_it(build_graph: Build) -> None:
    nodes = [make("MatMul", ["x", "w"], ["p"]), make("Add", ["b", "p"], ["y"])]
    graph = build_graph(nodes, {"x": ["n", 4]}, {"y": ["n", 5]}, {"w": f(4, 5), "b": f(5)})
    [operator] = operators(graph)
    assert (operator.bias, operator.bias_node) == ("b", 1)
    changed = with_bias(graph, {operator.label: np.ones(5)})
    assert [node.op_type for node in changed.model.graph.node] == ["MatMul", "Add"]
    np.testing.assert_array_equal(bias_values(changed, operators(changed)[0]), np.ones(5))


def test_a_bias_that_others_read_is_left_to_them(build_graph: Build) -> None:
    nodes = [make("Gemm", ["x", "w", "b"], ["a"], name="first"), make("Gemm", ["a", "w", "b"], ["y"], name="second")]
    graph = build_graph(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, {"w": f(4, 4), "b": f(4)})
    changed = with_bias(graph, {"first": np.zeros(4)})
    first, second = operators(changed)
    assert not bias_values(changed, first).any()
    np.testing.assert_allclose(bias_values(changed, second), graph.initializers["b"])


def test_other_weights(build_graph: Build) -> None:
    op, weight, x, output, settings = CASES["grouped"]
    graph = one(build_graph, op, weight, x, output, **settings)
    [operator] = operators(graph)
    changed = with_weights(graph, {"w": operator.restored(2 * operator.weight)})
    before, after = (OrtGraph(g, threads=1).run({"x": x})["y"] for g in (graph, changed))
    np.testing.assert_allclose(after, 2 * before, rtol=1e-5, atol=1e-5)


def test_a_matrix_of_another_shape_is_refused(build_graph: Build) -> None:
    op, weight, x, output, settings = CASES["gemm"]
    [operator] = operators(one(build_graph, op, weight, x, output, **settings))
    with pytest.raises(ValueError, match="a matrix of shape"):
        operator.restored(np.zeros((1, 4, 5)))
