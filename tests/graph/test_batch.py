"""Freeing a fixed batch: only where it is certain, and equal to running the items one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper

from dfmeta.errors import GraphError
from dfmeta.graph import Graph, OrtGraph, TorchGraph, free_batch

rng = np.random.default_rng(0)
make = helper.make_node
Build = Callable[..., Graph]


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def a(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def flattening(target: np.ndarray) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    nodes = [
        make("Conv", ["x", "w"], ["c"]),
        make("Reshape", ["c", "target"], ["flat"], name="flatten"),
        make("Gemm", ["flat", "v"], ["y"]),
    ]
    return nodes, {"w": f(4, 2, 3, 3), "v": f(16, 3), "target": target}


def sequence_first() -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    """What exporters make of attention: the batch moves to the middle and merges with the heads."""
    nodes = [
        make("Reshape", ["x", "tokens"], ["t"]),
        make("Transpose", ["t"], ["s"], perm=[1, 0, 2]),
        make("Reshape", ["s", "heads"], ["h"], name="heads"),
        make("Softmax", ["h"], ["p"], axis=0),
        make("Reshape", ["p", "back"], ["b"]),
        make("Transpose", ["b"], ["u"], perm=[1, 0, 2]),
        make("Reshape", ["u", "flat"], ["y"]),
    ]
    targets = {"tokens": a(1, 8, 4), "heads": a(8, 2, 2), "back": a(8, 1, 4), "flat": a(1, 32)}
    return nodes, targets


def one_by_one(graph: Graph, x: np.ndarray, value: str) -> np.ndarray:
    session = OrtGraph(graph, [value])
    return np.concatenate([session.run({"x": item[None]})[value] for item in x])


@pytest.mark.parametrize("target", [a(1, 16), a(1, -1), a(-1, 16), a(0, 16)], ids=str)
def test_flattening_is_freed(target: np.ndarray, build_graph: Build) -> None:
    nodes, constants = flattening(target)
    graph = build_graph(nodes, {"x": f(1, 2, 4, 4)}, ["y"], 18, constants)
    freed = free_batch(graph)
    assert freed.inputs[0].shape == ("batch", 2, 4, 4)
    assert freed.outputs[0].shape[0] == "batch"
    x = f(6, 2, 4, 4)
    expected = one_by_one(graph, x, "y")
    np.testing.assert_allclose(OrtGraph(freed).run({"x": x})["y"], expected, 1e-5, 1e-5)
    np.testing.assert_allclose(TorchGraph(graph)(torch.from_numpy(x)).numpy(), expected, 1e-5, 1e-5)


def test_uncertain_reshapes_are_refused_by_name(build_graph: Build) -> None:
    nodes, constants = sequence_first()
    graph = build_graph(nodes, {"x": f(1, 32)}, ["y"], 18, constants)
    with pytest.raises(GraphError, match=r"node 'heads' \(Reshape\): found a Reshape of \[8, 1, 4\] to \[8, 2, 2\]"):
        free_batch(graph)


def test_what_cannot_be_freed_runs_item_by_item(build_graph: Build) -> None:
    nodes, constants = sequence_first()
    graph = build_graph(nodes, {"x": f(1, 32)}, ["y"], 18, constants)
    x = f(5, 32)
    expected = one_by_one(graph, x, "y")
    inputs = torch.from_numpy(x).requires_grad_()
    found = TorchGraph(graph)(inputs)
    np.testing.assert_allclose(found.detach().numpy(), expected, 1e-5, 1e-6)
    np.testing.assert_allclose(OrtGraph(graph, dynamic_batch=True).run({"x": x})["y"], expected, 1e-5, 1e-6)
    (gradient,) = torch.autograd.grad(found[2].sum(), inputs)
    assert gradient[[0, 1, 3, 4]].abs().max() == 0  # items do not touch each other


def test_values_without_the_batch_first_cannot_be_joined(build_graph: Build) -> None:
    nodes, constants = sequence_first()
    graph = build_graph(nodes, {"x": f(1, 32)}, ["y"], 18, constants)
    text = r"value 's' of shape \[8, 1, 4\], expected the fixed batch 1 as its axis 0"
    with pytest.raises(GraphError, match=text):
        TorchGraph(graph).run({"x": torch.randn(3, 32)}, ["s"])
    with pytest.raises(GraphError, match=text):
        OrtGraph(graph, ["s"], dynamic_batch=True).run({"x": f(3, 32)})


def test_larger_fixed_batches_take_multiples(build_graph: Build) -> None:
    nodes, constants = flattening(a(3, 16))
    graph = build_graph(nodes, {"x": f(3, 2, 4, 4)}, ["y"], 18, constants)
    x = torch.from_numpy(f(6, 2, 4, 4))
    module = TorchGraph(graph)
    torch.testing.assert_close(module(x), torch.cat([module(x[:3]), module(x[3:])]))
    with pytest.raises(GraphError, match="found batches of 4, expected one multiple of the graph's fixed batch 3"):
        module(x[:4])


def test_an_expand_of_the_batch_axis_is_freed(build_graph: Build) -> None:
    nodes = [make("Expand", ["x", "target"], ["e"]), make("ReduceSum", ["e", "axes"], ["y"], keepdims=0)]
    constants = {"target": a(1, 5, 3), "axes": a(1)}
    graph = build_graph(nodes, {"x": f(1, 1, 3)}, ["y"], 18, constants)
    x = torch.from_numpy(f(4, 1, 3))
    torch.testing.assert_close(TorchGraph(graph)(x), 5 * x[:, 0])
    np.testing.assert_allclose(OrtGraph(free_batch(graph)).run({"x": x.numpy()})["y"], 5 * x[:, 0], 1e-5)


def test_a_learned_token_is_joined_to_every_item(build_graph: Build) -> None:
    nodes = [make("Concat", ["token", "x"], ["y"], axis=1)]
    graph = build_graph(nodes, {"x": f(1, 4, 3)}, ["y"], 18, {"token": f(1, 1, 3)})
    x = f(5, 4, 3)
    expected = one_by_one(graph, x, "y")
    np.testing.assert_array_equal(TorchGraph(graph)(torch.from_numpy(x)).numpy(), expected)
    np.testing.assert_array_equal(OrtGraph(graph, dynamic_batch=True).run({"x": x})["y"], expected)


def test_a_sum_over_the_batch_is_refused(build_graph: Build) -> None:
    graph = build_graph([make("ReduceSum", ["x", "axes"], ["y"])], {"x": f(1, 3)}, ["y"], 18, {"axes": a(0)})
    with pytest.raises(GraphError, match="output 'y' without the batch first"):
        free_batch(graph)


def test_a_free_batch_is_left_alone(build_graph: Build) -> None:
    nodes, constants = flattening(a(1, 16))
    freed = free_batch(build_graph(nodes, {"x": f(1, 2, 4, 4)}, ["y"], 18, constants))
    assert free_batch(freed) is freed


def test_inputs_of_different_batches_are_refused(build_graph: Build) -> None:
    graph = build_graph([make("MatMul", ["x", "z"], ["y"])], {"x": f(1, 3), "z": f(3, 2)}, ["y"], 18)
    with pytest.raises(GraphError, match="found inputs without one fixed batch size"):
        free_batch(graph)


@given(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3), st.integers(2, 4), st.randoms())
@settings(max_examples=40, deadline=None)
def test_a_freed_reshape_is_never_wrong(sizes: list[int], count: int, random: object) -> None:
    """Law: whatever route is taken, a batch gives what its items give, for any reshape there and back."""
    shuffle = getattr(random, "shuffle")  # noqa: B009
    elements = int(np.prod(sizes))
    middle = [1, *sizes]
    shuffle(middle)
    from_shape, order = [1, *sizes], list(range(len(middle)))
    shuffle(order)
    nodes = [
        make("Reshape", ["x", "middle"], ["m"]),
        make("Transpose", ["m"], ["t"], perm=order),
        make("Reshape", ["t", "flat"], ["y"]),
    ]
    graph_proto = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, from_shape)],
        [helper.make_tensor_value_info("y", 1, [1, elements])],
        [helper.make_tensor(n, 7, [len(v)], v) for n, v in (("middle", middle), ("flat", [1, elements]))],
    )
    model = helper.make_model(graph_proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    graph = Graph.from_bytes(model.SerializeToString(), "law.onnx")
    x = f(count, *sizes)
    np.testing.assert_array_equal(TorchGraph(graph)(torch.from_numpy(x)).numpy(), one_by_one(graph, x, "y"))
    np.testing.assert_array_equal(OrtGraph(graph, dynamic_batch=True).run({"x": x})["y"], one_by_one(graph, x, "y"))
