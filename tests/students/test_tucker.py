"""The teacher with its convolutions decomposed: the same function at full ranks, smaller below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from dfmeta import students
from dfmeta.errors import StepError
from dfmeta.export import export_student
from dfmeta.graph import Graph, TorchGraph, costs
from dfmeta.records import PublishedRecords
from dfmeta.schema import v1
from dfmeta.students import Origin
from dfmeta.students.tucker import decomposed

# KegNet's three options on LeNet-5, whose third convolution is a dense layer in our teacher, and its ratios.
OPTIONS = {"fc1=7x11": 3.62, "conv2=3x4,fc1=7x11": 4.10, "conv2=3x4,fc1=5x8": 4.49}


@pytest.fixture(scope="module")
def lenet(repository: Path) -> Graph:
    return Graph.from_file(repository / "examples" / "lenet5-mnist.onnx")


def constant(name: str, array: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array, dtype=np.float32), name)


def made(nodes: list[Any], constants: list[TensorProto], shape: list[Any]) -> Graph:
    """A graph from ``x`` to ``y``, which is a matrix after a dense layer."""
    axes = 2 if nodes[-1].op_type == "Gemm" else len(shape)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * axes)]
    graph = helper.make_graph(nodes, "made", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Graph.from_bytes(model.SerializeToString(), "made")


def outputs(graph: Graph, seed: int = 0, batch: int = 3) -> np.ndarray:
    shape = [size if isinstance(size, int) else batch for size in graph.inputs[0].shape]
    inputs = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return TorchGraph(graph)(inputs).numpy()  # type: ignore[no-any-return]


def low_rank(seed: int, rank_in: int, rank_out: int, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel that has these ranks exactly."""
    generator = np.random.default_rng(seed)
    core = generator.normal(size=(rank_out, rank_in, *shape[2:]))
    outer, inner = generator.normal(size=(shape[0], rank_out)), generator.normal(size=(shape[1], rank_in))
    return np.einsum("op,pq...,iq->oi...", outer, core, inner) / 10


def operators(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.model.graph.node]


@pytest.mark.parametrize("variant", ["conv2=6x16", "fc1=16x120", "conv1=1x6,conv2=6x16,fc1=16x120", "fc2=84,out=10"])
def test_full_ranks_compute_what_the_teacher_computes(lenet: Graph, variant: str) -> None:
    np.testing.assert_allclose(outputs(decomposed(lenet, variant)), outputs(lenet), atol=2e-4)


@pytest.mark.parametrize("group", [1, 2])
def test_ranks_that_a_kernel_has_lose_nothing(group: int) -> None:
    """Strides, pads, dilations and the bias are those of the layer; a grouped one is not touched."""
    kernel = low_rank(0, 2, 3, (8, 6, 3, 2))
    attributes = {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2], "kernel_shape": [3, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], "first", **attributes),
        helper.make_node("Conv", ["h", "g"], ["y"], "second", group=group),
    ]
    grouped = np.random.default_rng(1).normal(size=(8, 8 // group, 3, 3))
    graph = made(nodes, [constant("w", kernel), constant("b", np.arange(8)), constant("g", grouped)], ["n", 6, 9, 9])
    found = decomposed(graph, "first=2x3")
    assert [list(found.initializers[name].shape) for name in ("w.in", "w.core", "w.out")] == [
        [2, 6, 1, 1],
        [3, 2, 3, 2],
        [8, 3, 1, 1],
    ]
    assert "w" not in found.initializers
    np.testing.assert_allclose(outputs(found), outputs(graph), rtol=1e-4, atol=1e-4)
    if group == 2:
        with pytest.raises(StepError, match=r"no layer 'second' that can be decomposed, expected one of first\."):
            decomposed(graph, "second=1x1")


@pytest.mark.parametrize("flat", ["Flatten", "Reshape"])
@pytest.mark.parametrize("trans", [0, 1])
def test_a_dense_layer_on_a_flattened_map_is_the_convolution_of_the_whole_map(flat: str, trans: int) -> None:
    kernel = low_rank(2, 2, 3, (7, 5, 4, 3))
    weight = kernel.reshape(7, -1)
    shape = [numpy_helper.from_array(np.array([-1, 60]), "shape")] if flat == "Reshape" else []
    nodes = [
        helper.make_node(flat, ["x", *(entry.name for entry in shape)], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=trans),
    ]
    constants = [constant("w", weight if trans else weight.T), constant("b", np.arange(7)), *shape]
    graph = made(nodes, constants, ["n", 5, 4, 3])
    found = decomposed(graph, "w=2x3")
    assert operators(found) == ["Conv", "Conv", "Conv", "Flatten"]
    np.testing.assert_allclose(outputs(found), outputs(graph), rtol=1e-4, atol=1e-4)


def test_a_dense_layer_that_scales_its_product_is_no_convolution() -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1, alpha=0.5, beta=2.0),
    ]
    weight = low_rank(3, 3, 3, (7, 12))
    graph = made(nodes, [constant("w", weight), constant("b", np.arange(7))], ["n", 3, 2, 2])
    np.testing.assert_allclose(outputs(decomposed(graph, "w=3")), outputs(graph), rtol=1e-4, atol=1e-4)
    with pytest.raises(StepError, match=r"'2x3', expected one rank, for it is a dense layer that sees no map"):
        decomposed(graph, "w=2x3")


@pytest.mark.parametrize("shape", [["n", 5, 9], ["n", 5, 4, 4, 4]])
def test_convolutions_of_any_number_of_axes(shape: list[Any]) -> None:
    kernel = low_rank(4, 2, 3, (7, 5, *[2] * (len(shape) - 2)))
    graph = made([helper.make_node("Conv", ["x", "w"], ["y"])], [constant("w", kernel)], shape)
    found = decomposed(graph, "y=2x3")
    assert operators(found) == ["Conv"] * 3
    np.testing.assert_allclose(outputs(found), outputs(graph), rtol=1e-4, atol=1e-4)


def test_layers_that_share_a_weight_and_names_that_are_taken() -> None:
    kernel = low_rank(5, 2, 3, (6, 6, 3, 3))
    nodes = [helper.make_node("Conv", ["x", "w"], ["w.in"]), helper.make_node("Conv", ["w.in", "w"], ["y"])]
    graph = made(nodes, [constant("w", kernel)], ["n", 6, 8, 8])
    found = decomposed(graph, "w.in=2x3,y=2x3")
    np.testing.assert_allclose(outputs(found), outputs(graph), rtol=1e-3, atol=1e-3)
    assert "w.in" in found.values


@pytest.mark.parametrize("variant", OPTIONS)
def test_the_options_of_kegnet_have_its_ratios(lenet: Graph, variant: str) -> None:
    assert round(costs(lenet).parameters / costs(decomposed(lenet, variant)).parameters, 2) == OPTIONS[variant]


def test_automatic_ranks(lenet: Graph) -> None:
    """They rise above the noise in the second convolution and in the dense layer that is the third."""
    found = decomposed(lenet, "auto")
    assert found.raw == decomposed(lenet, "conv2=auto,fc1=auto").raw
    assert costs(found).parameters < costs(lenet).parameters / 2
    assert found.outputs == lenet.outputs
    assert {"conv2d", "conv2d_1", "linear"} <= set(found.values)


@pytest.mark.parametrize("name", ["conv2", "conv2.weight", "conv2d_1"])
def test_a_layer_is_known_by_node_weight_and_output(lenet: Graph, name: str) -> None:
    assert decomposed(lenet, f"{name}=3x4").raw == decomposed(lenet, "conv2=3x4").raw


def test_the_student_is_trainable_exports_and_draws_nothing(lenet: Graph) -> None:
    origin = Origin(lenet, PublishedRecords(()))
    state = torch.random.get_rng_state()
    student = students.build("tucker:fc1=7x11", (1, 32, 32), 10, seed=0, origin=origin)
    other = students.build("tucker:fc1=7x11", (1, 32, 32), 10, seed=1, origin=origin)
    assert torch.equal(state, torch.random.get_rng_state())
    assert sum(parameter.numel() for parameter in student.parameters()) == 17_063
    assert all(torch.equal(one, two) for one, two in zip(student.parameters(), other.parameters(), strict=True))
    student(torch.ones(2, 1, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    image = v1.Input(name="input", dtype="float32", shape=["n", 1, 32, 32])
    exported = Graph.from_bytes(export_student(student.eval(), image, "logits", provenance={}), "student")
    assert costs(exported).parameters == 17_063


def test_batch_norm_trains(digits_teacher: Graph) -> None:
    student = students.build("tucker:conv2d_1=3x6", (1, 8, 8), 10, seed=0, origin=Origin(digits_teacher, None))  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in student.named_buffers()}
    student.train()(torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in student.named_buffers())


@pytest.mark.parametrize(
    ("variant", "text"),
    [
        ("", "found '', expected auto, or layer=ranks"),
        ("half", "found 'half', expected auto, or layer=ranks"),
        ("conv2", "found 'conv2', expected auto, or layer=ranks"),
        ("conv2=3x4,", "found '', expected auto, or layer=ranks"),
        ("conv9=3x4", "no layer 'conv9' that can be decomposed, expected one of conv1, conv2, fc1, fc2, out."),
        ("conv2=3x4,conv2d_1=auto", "layer 'conv2d_1' a second time"),
        ("conv2=3", "layer 'conv2': found ranks '3', expected <in>x<out>"),
        ("conv2=0x4", "layer 'conv2': found ranks '0x4', expected 1 to 6x16"),
        ("conv2=7x4", "layer 'conv2': found ranks '7x4', expected 1 to 6x16"),
        ("conv2=3x4x5", "found ranks '3x4x5', expected auto, <in>x<out>, or one rank"),
        ("conv2=-1x4", "found ranks '-1x4', expected auto, <in>x<out>, or one rank"),
        ("fc2=85", "layer 'fc2': found ranks '85', expected 1 to 84"),
        ("fc2=3x4", "expected one rank, for it is a dense layer that sees no map"),
        ("out=auto", "found automatic ranks 0, which leave nothing above the noise"),
        ("conv1=auto", "found automatic ranks 1x0, which leave nothing above the noise"),
    ],
)
def test_a_wrong_variant_says_what_fits(lenet: Graph, variant: str, text: str) -> None:
    with pytest.raises(StepError) as caught:
        students.build(f"tucker:{variant}", (1, 32, 32), 10, seed=0, origin=Origin(lenet, PublishedRecords(())))
    assert str(caught.value).startswith(f"student 'tucker:{variant}'")
    assert text in str(caught.value)


def test_a_graph_without_a_convolution_to_decompose_is_refused(digits_teacher: Graph) -> None:
    """The digits' network is small: nothing in it rises far enough above the noise to save weights."""
    with pytest.raises(StepError, match="no convolution whose automatic ranks make it smaller"):
        decomposed(digits_teacher, "auto")
