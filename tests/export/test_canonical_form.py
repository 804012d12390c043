"""The canonical form before quantizing: the same function, in what old toolchains read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_graphs import graph_of, node
from torch import nn

from dfmeta import students
from dfmeta.errors import ExportError
from dfmeta.export import targets
from dfmeta.export.canonical import canonicalize
from dfmeta.graph import Graph, OrtGraph, costs, export_module

SHARED = Path(os.environ.get("DFMETA_SHARED", Path(__file__).resolve().parents[3] / "shared"))
RESNET20 = SHARED / "models" / "resnet20-cifar10.onnx"
SHAPES = {
    "ds-cnn": (1, 49, 10),
    "mobilenet-v1-025": (3, 32, 32),
    "hinton-800": (1, 28, 28),
    "alexnet-half": (3, 32, 32),
}
SHAPES |= {"lenet5": (1, 32, 32), "tiny8": (1, 8, 8)}
ZOO = ("ds-cnn", "resnet8", "mobilenet-v1-025", "lenet5", "tiny8", "wrn-16-1", "hinton-800")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def same(graph: Graph, canonical: Graph, inputs: int = 3) -> None:
    """Both compute the same of random items, item by item, to rounding."""
    before, after = OrtGraph(graph, threads=1, dynamic_batch=True), OrtGraph(canonical, threads=1)
    for seed in range(inputs):
        given = {v.name: numbers(1, *map(int, v.shape[1:]), seed=seed) for v in canonical.inputs}
        expected, found = before.run(given), after.run(given)
        assert list(found) == list(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(array).max())))


def is_canonical(graph: Graph) -> None:
    """What the module's docstring promises."""
    assert (graph.opset, graph.ir_version) == (18, 8)
    assert [(one.domain, one.version) for one in graph.model.opset_import] == [("", 18)]
    assert not graph.model.metadata_props
    assert [v.name for v in graph.inputs] == [v.name for v in graph.model.graph.input]
    for name in graph.values:
        assert all(isinstance(size, int) for size in graph.value(name).shape), name
    assert all(v.shape[0] == 1 for v in (*graph.inputs, *graph.outputs))
    for proto in graph.model.graph.node:
        schema = onnx.defs.get_schema(proto.op_type, 18, "")
        for attribute in proto.attribute:
            default = schema.attributes[attribute.name].default_value
            same_as_default = default.type and helper.get_attribute_value(default) == helper.get_attribute_value(
                attribute
            )
            assert attribute.name == "axis" or not same_as_default, (proto.op_type, attribute.name)
    operators = {proto.op_type for proto in graph.model.graph.node}
    assert not operators & {"BatchNormalization", "Constant", "Identity", "CastLike", "Dropout"}
    assert targets.check(graph, "float-any").violations == ()


def noisy(name: str, seed: int) -> nn.Module:
    """A student with statistics and biases as after training."""
    module = students.build(name, SHAPES.get(name, (3, 32, 32)), 10, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = 0.1 * torch.randn(part.num_features, generator=generator)
            part.running_var = 0.5 + torch.rand(part.num_features, generator=generator)
        bias = getattr(part, "bias", None)
        if isinstance(bias, nn.Parameter):
            bias.data = 0.1 * torch.randn(bias.shape, generator=generator)
    return module


@settings(deadline=None, max_examples=5)
@given(name=st.sampled_from(ZOO), seed=st.integers(0, 1000), opset=st.sampled_from([18, 20]), keep=st.booleans())
def test_students_compute_the_same(name: str, seed: int, opset: int, keep: bool) -> None:
    example = torch.zeros(1, *SHAPES.get(name, (3, 32, 32)))
    ends = {"input_names": ["image"], "output_names": ["logits"]}
    graph = export_module(noisy(name, seed), (example,), **ends, opset=opset, keep_batchnorm=keep, dynamic_batch=keep)
    canonical = canonicalize(graph)
    is_canonical(canonical)
    same(graph, canonical, inputs=2)
    again = canonicalize(canonical)
    assert again.raw == canonical.raw
    assert costs(canonical).macs == costs(graph).macs


@pytest.mark.skipif(not RESNET20.is_file(), reason="needs the ResNet-20 of the shared models")
def test_a_real_network_computes_the_same() -> None:
    graph = Graph.from_file(RESNET20)
    canonical = canonicalize(graph)
    is_canonical(canonical)
    same(graph, canonical)
    assert {v.name for v in canonical.inputs} == {v.name for v in graph.inputs}
    # What exporters leave behind, old toolchains have no operator for.
    assert "operators" in {one.rule for one in targets.check(graph, "cortex-m").violations}
    assert {one.rule for one in targets.check(canonical, "cortex-m").violations} == {"form"}


def test_names_of_values_stay_so_that_records_find_them() -> None:
    graph = graph_of([node("Relu", "x", "a/b"), node("Neg", "a/b", "y")], [1, 3])
    assert "a/b" in canonicalize(graph, keep_names=True).values
    assert "a_b" in canonicalize(graph).values


REWRITES = {
    "average-of-the-plane": (
        [node("AveragePool", "x", "p", kernel_shape=[6, 5], strides=[2, 2]), node("Flatten", "p", "y")],
        {},
        ["GlobalAveragePool", "Flatten"],
    ),
    "average-of-a-part": ([node("AveragePool", "x", "y", kernel_shape=[6, 4])], {}, ["AveragePool"]),
    "mean": (
        [node("ReduceMean", "x axes", "y", keepdims=0)],
        {"axes": np.array([-1, -2], np.int64)},
        ["GlobalAveragePool", "Flatten"],
    ),
    "convolution-and-addition": (
        [node("Conv", "x w", "c"), node("Add", "b c", "y")],
        {"w": numbers(4, 3, 3, 3), "b": numbers(1, 4, 1, 1)},
        ["Conv"],
    ),
    "convolution-with-a-bias-and-addition": (
        [node("Conv", "x w v", "c"), node("Add", "c b", "y")],
        {"w": numbers(4, 3, 3, 3), "v": numbers(4), "b": numbers(4, 1, 1)},
        ["Conv"],
    ),
    "addition-along-another-axis": (
        [node("Conv", "x w", "c"), node("Add", "c b", "y")],
        {"w": numbers(4, 3, 3, 3), "b": numbers(4, 1)},
        ["Conv", "Add"],
    ),
    "product-and-addition": (
        [node("Flatten", "x", "f"), node("MatMul", "f w", "m"), node("Add", "m b", "y")],
        {"w": numbers(90, 4), "b": numbers(4)},
        ["Flatten", "Gemm"],
    ),
    "product-that-is-read-twice": (
        [node("Flatten", "x", "f"), node("MatMul", "f w", "m"), node("Add", "m b", "a"), node("Mul", "a m", "y")],
        {"w": numbers(90, 4), "b": numbers(4)},
        ["Flatten", "MatMul", "Add", "Mul"],
    ),
    "same-padding": (
        [node("Conv", "x w", "c", auto_pad="SAME_LOWER", strides=[2, 3], kernel_shape=[3, 2]), node("Relu", "c", "y")],
        {"w": numbers(4, 3, 3, 2)},
        ["Conv", "Relu"],
    ),
    "padding-of-a-pool": (
        [node("MaxPool", "x", "y", auto_pad="SAME_UPPER", kernel_shape=[3, 3], strides=[2, 2], storage_order=0)],
        {},
        ["MaxPool"],
    ),
    "valid-padding": (
        [node("Conv", "x w", "y", auto_pad="VALID", dilations=[1, 2])],
        {"w": numbers(4, 3, 2, 2)},
        ["Conv"],
    ),
}


@pytest.mark.parametrize("name", REWRITES)
@pytest.mark.parametrize("size", [1, "n"])
def test_each_rewrite(name: str, size: int | str) -> None:
    nodes, constants, expected = REWRITES[name]
    graph = graph_of(nodes, [size, 3, 6, 5], ir_version=10, **constants)
    canonical = canonicalize(graph)
    is_canonical(canonical)
    assert [proto.op_type for proto in canonical.model.graph.node] == expected
    assert all(one.name != "auto_pad" for proto in canonical.model.graph.node for one in proto.attribute)
    same(graph, canonical)


def test_a_fixed_batch_becomes_one() -> None:
    target = np.array([4, 6], np.int64)
    graph = graph_of([node("Relu", "x", "a"), node("Reshape", "a s", "y")], [4, 2, 3], s=target)
    canonical = canonicalize(graph)
    is_canonical(canonical)
    x = numbers(4, 2, 3)
    whole = OrtGraph(graph, threads=1).run({"x": x})["y"]
    parts = [OrtGraph(canonical, threads=1).run({"x": x[at : at + 1]})["y"] for at in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


REFUSED = {
    "operator of a later set": (lambda: graph_of([node("Gelu", "x", "y")], [1, 3], opset=20, ir_version=10), "Gelu"),
    "free sizes": (lambda: graph_of([node("Relu", "x", "y")], ["n", 3, "h", "w"]), "fixed sizes"),
    "a size that depends on numbers": (
        lambda: graph_of([node("NonZero", "x", "a"), node("Cast", "a", "y", to=TensorProto.FLOAT)], [1, 3]),
        "fixed sizes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_be(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(ExportError, match=said) as caught:
        canonicalize(make())
    assert caught.value.fix
