"""A graph that learns: batch statistics in training, and the way back to a file with what was learned."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

from dfmeta.errors import GraphError
from dfmeta.graph import Graph, OrtGraph, TorchGraph, export_module
from dfmeta.graph.learning import with_values


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
        layers += [nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 5)]
        made = nn.Sequential(*layers)
        for part in (made[1], made[4]):
            assert isinstance(part, nn.BatchNorm2d)
            assert part.running_mean is not None
            assert part.running_var is not None
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return made.eval()


def as_graph(module: nn.Module, *, dynamic_batch: bool = True) -> Graph:
    names: Any = {"input_names": ["x"], "output_names": ["y"]}
    return export_module(module, (torch.zeros(1, 2, 6, 6),), **names, dynamic_batch=dynamic_batch, keep_batchnorm=True)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return as_graph(network())


def batch(seed: int, count: int = 8) -> torch.Tensor:
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def test_training_is_that_of_torch(graph: Graph) -> None:
    """Three optimizer steps of the graph and of the torch module, in float64, end in the same numbers."""
    ours = TorchGraph(graph, trainable=True, batch_norm="train").double().train()
    theirs = network().double().train()
    for made in (ours, theirs):
        optimizer = torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9)
        for step in range(3):
            optimizer.zero_grad()
            made(batch(step).double()).square().mean().backward()
            optimizer.step()
    expected = theirs.state_dict()
    learned = {name: tensor for name, tensor in ours.named_initializers() if name in expected}
    assert {"1.running_mean", "1.running_var", "1.weight", "4.bias"} <= set(learned)
    for name, tensor in learned.items():
        torch.testing.assert_close(tensor.detach(), expected[name], rtol=1e-9, atol=1e-10, msg=name)
    torch.testing.assert_close(ours.eval()(batch(9).double()), theirs.eval()(batch(9).double()), rtol=1e-9, atol=1e-9)


def test_statistics_are_buffers_and_gains_are_parameters(graph: Graph) -> None:
    made = TorchGraph(graph, trainable=True, batch_norm="train").train()
    made(batch(0)).square().sum().backward()
    tensors = dict(made.named_initializers())
    for name in ("1.running_mean", "1.running_var"):
        assert not isinstance(tensors[name], nn.Parameter)
        assert not tensors[name].requires_grad
    for name in ("1.weight", "1.bias", "0.weight"):
        gradient = tensors[name].grad
        assert gradient is not None
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("trainable", [False, True])
def test_a_teacher_is_the_same_whatever_train_says(graph: Graph, trainable: bool) -> None:
    teacher = TorchGraph(graph, trainable=trainable)
    before = copy.deepcopy(teacher.state_dict())
    evaluated = teacher.eval()(batch(0))
    trained = teacher.train()(batch(0))
    torch.testing.assert_close(evaluated, trained, rtol=0, atol=0)
    for name, tensor in teacher.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_evaluation_leaves_the_statistics_alone(graph: Graph) -> None:
    made = TorchGraph(graph, trainable=True, batch_norm="train").eval()
    before = copy.deepcopy(made.state_dict())
    torch.testing.assert_close(made(batch(0)), TorchGraph(graph)(batch(0)), rtol=0, atol=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


def test_the_modes_may_alternate(graph: Graph) -> None:
    made = TorchGraph(graph, trainable=True, batch_norm="train")
    first = made.eval()(batch(0))
    moved = made.train()(batch(0))
    assert not torch.allclose(first, moved)
    assert not torch.allclose(first, made.eval()(batch(0)))


def test_to_graph_has_what_was_learned(graph: Graph) -> None:
    made = TorchGraph(graph, trainable=True, batch_norm="train").train()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        made(batch(step)).square().mean().backward()
        optimizer.step()
    written = made.eval().to_graph()
    again = Graph.from_bytes(written.raw, "again.onnx")
    found = OrtGraph(again).run({"x": batch(7).numpy()})["y"]
    np.testing.assert_allclose(found, made(batch(7)).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, TorchGraph(graph)(batch(7)).numpy(), atol=1e-2)
    assert again.initializer_names == graph.initializer_names
    assert [node.name for node in again.model.graph.node] == [node.name for node in graph.model.graph.node]


def test_to_graph_of_an_untouched_graph_changes_no_value(graph: Graph) -> None:
    written = TorchGraph(graph, trainable=True, batch_norm="train").to_graph()
    for name, array in graph.initializers.items():
        np.testing.assert_array_equal(written.initializers[name], array)
        assert written.initializers[name].dtype == array.dtype


def test_to_graph_of_a_module_in_double_is_of_the_files_type(graph: Graph) -> None:
    written = TorchGraph(graph, trainable=True).double().to_graph()
    assert {array.dtype.name for array in written.initializers.values()} <= {"float32", "int64"}


def test_to_graph_without_batch_norm_training_keeps_statistics(graph: Graph) -> None:
    made = TorchGraph(graph, trainable=True)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1)
    written = made.to_graph()
    np.testing.assert_array_equal(written.initializers["1.running_var"], graph.initializers["1.running_var"])
    np.testing.assert_array_equal(written.initializers["1.bias"], graph.initializers["1.bias"] + 1)


def test_half_precision_and_shared_statistics_come_back(build_graph: Callable[..., Graph]) -> None:
    x = np.zeros((1, 2, 3), np.float16)
    constants = {name: np.full(2, value, np.float16) for name, value in (("s", 1.5), ("b", 0.5), ("m", 0), ("v", 1))}
    nodes = [helper.make_node("BatchNormalization", [n, "s", "b", "m", "v"], [o]) for n, o in (("x", "h"), ("h", "y"))]
    small = build_graph(nodes, {"x": x}, ["y"], 18, constants)
    written = TorchGraph(small, trainable=True, batch_norm="train").to_graph()
    assert written.initializers["s"].dtype == np.float16
    np.testing.assert_array_equal(written.initializers["s"], constants["s"])


def test_a_fixed_batch_is_freed_for_training() -> None:
    fixed = as_graph(network(), dynamic_batch=False)
    made = TorchGraph(fixed, trainable=True, batch_norm="train").train()
    free = TorchGraph(as_graph(network()), trainable=True, batch_norm="train").train()
    torch.testing.assert_close(made(batch(0)), free(batch(0)))


def test_a_batch_that_cannot_be_freed_is_refused(build_graph: Callable[..., Graph]) -> None:
    """Items run one by one have no common statistics."""
    constants: dict[str, Any] = {name: np.ones(1, np.float32) for name in "sbmv"}
    constants["target"] = np.array([1, 1, 4])
    nodes = [
        helper.make_node("Reshape", ["x", "target"], ["h"]),
        helper.make_node("BatchNormalization", ["h", *"sbmv"], ["y"]),
    ]
    stuck = build_graph(nodes, {"x": np.zeros((1, 1, 4), np.float32)}, ["y"], 18, constants)
    made = TorchGraph(stuck, trainable=True, batch_norm="train")
    assert made.eval()(torch.zeros(3, 1, 4)).shape == (3, 1, 4)
    with pytest.raises(GraphError, match="a batch of 1 that is part of the graph"):
        made.train()(torch.zeros(3, 1, 4))


def test_one_value_for_each_channel_has_no_variance(build_graph: Callable[..., Graph]) -> None:
    constants = {name: np.ones(2, np.float32) for name in "sbmv"}
    node = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y"], name="norm")
    small = build_graph([node], {"x": np.zeros((1, 2), np.float32)}, ["y"], 18, constants)
    with pytest.raises(GraphError, match=r"norm.*more than 1 value per channel"):
        TorchGraph(small, trainable=True, batch_norm="train").train()(torch.zeros(1, 2))


def test_computed_statistics_are_refused(build_graph: Callable[..., Graph]) -> None:
    constants = {name: np.ones(2, np.float32) for name in "sbmv"}
    nodes = [
        helper.make_node("Exp", ["v"], ["variance"]),
        helper.make_node("BatchNormalization", ["x", "s", "b", "m", "variance"], ["y"], name="norm"),
    ]
    computed = build_graph(nodes, {"x": np.zeros((1, 2, 3), np.float32)}, ["y"], 18, constants)
    with pytest.raises(GraphError, match=r"norm.*running statistics 'variance' that the graph computes"):
        TorchGraph(computed, trainable=True, batch_norm="train")


@pytest.mark.parametrize(
    ("values", "text"),
    [({"nothing": np.zeros(2)}, "no tensor 'nothing'"), ({"1.bias": np.zeros(5)}, r"found shape \[5\], expected.*4")],
)
def test_values_that_do_not_fit_are_refused(graph: Graph, values: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(GraphError, match=text):
        with_values(graph, values)
