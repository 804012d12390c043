"""The convolutional students: what they cost, what they take, and whether they survive export."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dfmeta import students
from dfmeta.errors import StepError
from dfmeta.export import export_student
from dfmeta.graph import Costs, Graph, TorchGraph, costs
from dfmeta.schema import v1
from dfmeta.students import _residual

# Input, classes; parameters and multiply-accumulates of the exported graph, BatchNorm folded.
MLPERF = {
    "resnet8": ((3, 32, 32), 10, 77_706, 12_501_632),
    "ds-cnn": ((1, 49, 10), 12, 22_604, 2_656_768),
    "mobilenet-v1-025": ((3, 96, 96), 2, 210_850, 7_489_664),
}
# Least height and width; below it a name stands for its whole family.
LEAST = {
    "alexnet": (15, 15),
    "alexnet-half": (15, 15),
    "ds-cnn": (10, 4),
    "mobilenet-v1-025": (32, 32),
    "resnet18": (8, 8),
    "resnet20": (4, 4),
    "resnet34": (8, 8),
    "resnet8": (4, 4),
    "vgg11": (32, 32),
    "wrn-16-1": (4, 4),
    "wrn-40-2": (4, 4),
}


def lived_in(network: nn.Module) -> nn.Module:
    """Biases and BatchNorm as training might have left them: an exporter drops what is zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if name.endswith(("bias", "running_mean")):
                tensor.uniform_(-0.2, 0.2, generator=generator)
            elif tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def exported(network: nn.Module, shape: tuple[int, ...]) -> Graph:
    image = v1.Input(name="x", dtype="float32", shape=["n", *shape])
    return Graph.from_bytes(export_student(network, image, "y", provenance={}), "student")


@pytest.mark.parametrize("name", MLPERF)
def test_exported_costs_are_those_of_the_reference_models(name: str) -> None:
    shape, classes, parameters, macs = MLPERF[name]
    graph = exported(lived_in(students.build(name, shape, classes, seed=0)), shape)
    assert costs(graph) == Costs(parameters, macs, len(graph.raw))
    assert {node.op_type for node in graph.model.graph.node} <= {
        "Conv",
        "Relu",
        "Add",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    }


def make(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of each family, as small as it gets."""
    generator = torch.Generator().manual_seed(0)
    if name == "alexnet-half":
        return students.build(name, (1, 15, 17), 3, seed=0), (1, 15, 17)
    if name == "wide":
        return _residual.wide(name, (2, 8, 8), 10, 1, 3, generator), (2, 8, 8)
    shortcut = {"projected": _residual.projected, "subsampled": _residual.Subsampled}[name]
    return _residual.basic(name, (2, 7, 8), (4, 6), (1, 1), shortcut, 3, generator), (2, 7, 8)


@pytest.mark.parametrize("name", ["alexnet-half", "wide", "projected", "subsampled"])
def test_every_family_survives_export(name: str) -> None:
    """In onnxruntime, which the exporter compares with, and as a graph in torch again."""
    network, shape = make(name)
    graph = exported(lived_in(network), shape)
    inputs = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(TorchGraph(graph)(inputs), network(inputs), atol=1e-4, rtol=1e-4)


def test_a_subsampled_shortcut_takes_every_second_pixel_and_adds_zeros() -> None:
    image = torch.arange(30.0).reshape(1, 2, 3, 5)
    expected = torch.zeros(1, 5, 2, 3)
    for channel in range(2):
        for row in range(2):
            for column in range(3):
                expected[0, channel, row, column] = image[0, channel, 2 * row, 2 * column]
    assert torch.equal(_residual.Subsampled(2, 5, 2)(image), expected)


def test_a_basic_block_is_two_convolutions_beside_its_shortcut() -> None:
    network, shape = make("projected")
    block = lived_in(network).get_submodule("stage2_1")
    x = torch.randn(2, 4, *shape[1:], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        hidden = block.norm1(block.conv1(x)).clamp(min=0)
        shortcut = block.shortcut[1](block.shortcut[0](x))
        expected = (block.norm2(block.conv2(hidden)) + shortcut).clamp(min=0)
        assert torch.equal(block(x), expected)


def test_a_wide_block_is_activated_before_its_convolutions_and_its_shortcut() -> None:
    network, shape = make("wide")
    block = lived_in(network).get_submodule("stage2_1")
    x = torch.randn(2, 16, *shape[1:], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        active = block.norm1(x).clamp(min=0)
        expected = block.conv2(block.norm2(block.conv1(active)).clamp(min=0)) + block.shortcut(active)
        assert torch.equal(block(x), expected)
        same = network.get_submodule("stage1_1")
        within = same.conv2(same.norm2(same.conv1(same.norm1(x).clamp(min=0))).clamp(min=0))
        assert torch.equal(same(x), within + x)


@pytest.mark.parametrize("name", LEAST)
def test_the_smallest_image_and_an_oblong_one_fit(name: str) -> None:
    height, width = LEAST[name]
    for shape in ((1, height, width), (2, height + 3, width + 7)):
        student = students.build(name, shape, 3, seed=0).eval()
        with torch.no_grad():
            assert student(torch.ones(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.parametrize("short", [0, 1])
def test_too_small_an_image_says_what_fits(name: str, short: int) -> None:
    height, width = LEAST[name]
    shape = (3, height - (short == 0), width - (short == 1))
    with pytest.raises(StepError) as caught:
        students.build(name, shape, 10, seed=0)
    assert f"student '{name}': found input shape {list(shape)}" in str(caught.value)
    assert f"expected [channels, {height} or more, {width} or more]" in str(caught.value)


@pytest.mark.parametrize("name", LEAST)
def test_a_vector_is_refused(name: str) -> None:
    with pytest.raises(StepError, match="channels"):
        students.build(name, (3072,), 10, seed=0)


def test_training_draws_no_random_numbers() -> None:
    """No dropout: a step of training is a function of weights and batch."""
    student = students.build("alexnet-half", (3, 32, 32), 10, seed=0).train()
    before = torch.random.get_rng_state()
    student(torch.ones(2, 3, 32, 32)).sum().backward()
    assert torch.equal(before, torch.random.get_rng_state())
