"""BatchNormalization by the batch itself, held against torch in training mode and a plain reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

from dfmeta.errors import GraphError
from dfmeta.graph import TorchGraph
from dfmeta.graph.batch_statistics import BatchStatisticsGraph
from dfmeta.graph.export_torch import export_module

# Sums in float32 over some hundred terms.
RTOL, ATOL = 1e-4, 1e-5
NAMES = {"input_names": ["x"], "output_names": ["y"]}


@pytest.fixture(scope="module")
def network():
    """Two normalisations in a row of layers, the second of them of vectors, none with its fresh statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.BatchNorm2d(4, eps=1e-2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 6),
            nn.BatchNorm1d(6),
            nn.Linear(6, 3),
        )
        with torch.no_grad():
            for module in made:
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    for tensor in (module.weight, module.bias, module.running_mean):
                        tensor.normal_()
                    module.running_var.uniform_(0.5, 2)
    return made.eval()


@pytest.fixture(scope="module")
def inputs():
    return 5 + 3 * torch.randn(16, 2, 5, 5, generator=torch.Generator().manual_seed(1))


def exported(network, inputs):
    return export_module(network, (inputs[:1],), **NAMES, dynamic_batch=True, keep_batchnorm=True)


@pytest.fixture(scope="module")
def graph(network, inputs):
    """The network with a free batch."""
    return exported(network, inputs)


def test_it_is_what_torch_computes_in_training_mode(network, graph, inputs):
    found = BatchStatisticsGraph(graph)(inputs)
    assert float((found - TorchGraph(graph)(inputs)).abs().max()) > 0.1
    with torch.no_grad():
        expected = torch.func.functional_call(
            network.train(), {name: buffer.clone() for name, buffer in network.named_buffers()}, (inputs,)
        )
    network.eval()
    torch.testing.assert_close(found, expected, rtol=RTOL, atol=ATOL)


def test_it_is_the_plain_formula(build_graph):
    """By channel of ``[n, c, h]``, in float64, with the population's variance."""
    generator = np.random.default_rng(0)
    x = generator.normal(3, 2, (5, 2, 4)).astype(np.float32)
    scale, bias, mean, var = (generator.uniform(0.5, 2, 2).astype(np.float32) for _ in range(4))
    node = helper.make_node("BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["y"], epsilon=0.1)
    constants = {"scale": scale, "bias": bias, "mean": mean, "var": var}
    graph = build_graph([node], {"x": x}, ["y"], 15, constants)
    found = BatchStatisticsGraph(graph)(torch.from_numpy(x))
    for channel in range(2):
        values = [float(v) for row in x[:, channel] for v in row]
        centre = sum(values) / len(values)
        spread = sum((v - centre) ** 2 for v in values) / len(values)
        wanted = (x[:, channel].astype(np.float64) - centre) / np.sqrt(spread + 0.1)
        wanted = wanted * float(scale[channel]) + float(bias[channel])
        np.testing.assert_allclose(found[:, channel].numpy(), wanted, RTOL, ATOL)


def test_the_stored_statistics_stay(graph, inputs):
    running = BatchStatisticsGraph(graph)
    before = {name: tensor.clone() for name, tensor in running.state_dict().items()}
    running(inputs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in running.state_dict().items())


def test_gradients_pass_through_the_statistics(inputs):
    """A batch that is shifted as a whole changes nothing: so says the gradient."""
    graph = BatchStatisticsGraph(exported(nn.Sequential(nn.BatchNorm2d(2), nn.Flatten()).eval(), inputs))
    given = inputs.clone().requires_grad_()
    (graph(given) * torch.arange(50.0)).sum().backward()
    assert float(given.grad.sum((0, 2, 3)).abs().max()) < 1e-3
    assert float(given.grad.abs().max()) > 0.1


def test_a_graph_without_it_is_the_same_graph(inputs):
    graph = exported(nn.Sequential(nn.Flatten(), nn.Linear(50, 3)).eval(), inputs)
    assert torch.equal(BatchStatisticsGraph(graph)(inputs), TorchGraph(graph)(inputs))


@pytest.mark.parametrize("size", [1, 4])
def test_a_fixed_batch_that_can_be_freed_is_one_batch(network, graph, inputs, size):
    fixed = export_module(network, (inputs[:size],), **NAMES, keep_batchnorm=True)
    expected = BatchStatisticsGraph(graph)(inputs)
    torch.testing.assert_close(BatchStatisticsGraph(fixed)(inputs), expected, rtol=RTOL, atol=ATOL)


def test_items_that_never_meet_are_refused(build_graph):
    """A Reshape of the batch into a place that is not certain: such a graph runs item by item."""
    x = np.ones((1, 1, 4), np.float32)
    constant = {name: np.ones(1, np.float32) for name in ("scale", "bias", "mean", "var")}
    constant["target"] = np.array([1, 1, 1, 4])
    nodes = [
        helper.make_node("BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["n"]),
        helper.make_node("Reshape", ["n", "target"], ["y"]),
    ]
    graph = build_graph(nodes, {"x": x}, ["y"], 15, constant)
    several = torch.ones(3, 1, 4)
    assert len(TorchGraph(graph)(several)) == 3
    with pytest.raises(GraphError, match=r"a fixed batch of 1 that cannot be freed, expected items that are"):
        BatchStatisticsGraph(graph)(several)
    plain = build_graph(nodes[1:], {"n": x}, ["y"], 15, {"target": constant["target"]})
    assert len(BatchStatisticsGraph(plain)(several)) == 3


def test_one_value_a_channel_is_refused(graph, inputs):
    with pytest.raises(GraphError, match="more than 1 value per channel"):
        BatchStatisticsGraph(graph)(inputs[:1])
