"""Cutting channels: nothing changes that should not, whatever the network, whichever channels go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import Tensor, nn

from dfmeta.errors import GraphError
from dfmeta.graph import Graph, OrtGraph, TorchGraph, costs, export_module
from dfmeta.graph.channels import ChannelGroup, channel_groups
from dfmeta.graph.constant_folding import folded
from dfmeta.graph.learning import with_values
from dfmeta.graph.narrow import narrowed

SIDE = 8


def normalised(wide_in: int, wide_out: int, **settings: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(wide_in, wide_out, 3, padding=1, bias=False, **settings), nn.BatchNorm2d(wide_out))


class Residual(nn.Module):
    """Two residual blocks, the second with a convolution in its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = normalised(2, 6), normalised(6, 5), normalised(5, 6)
        self.narrow, self.wide, self.short = normalised(6, 4), normalised(4, 8), nn.Conv2d(6, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.outer(F.relu(self.inner(x))))
        x = F.relu(self.short(x) + self.wide(F.relu(self.narrow(x))))
        found: Tensor = self.head(x.mean((2, 3)))
        return found


class Padded(nn.Module):
    """A residual block whose shortcut strides and pads channels (option A of He et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = normalised(2, 4), normalised(4, 6, stride=2), normalised(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 3))
        x = F.relu(short + self.outer(F.relu(self.inner(x))))
        found: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return found


class Mobile(nn.Module):
    """Depthwise convolutions, one with two filters for each channel, with squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth, self.point = normalised(2, 6), normalised(6, 12, groups=6), nn.Conv2d(12, 4, 1)
        self.squeeze, self.excite = nn.Conv2d(12, 3, 1), nn.Conv2d(3, 12, 1)
        self.single = normalised(4, 4, groups=4)
        self.head = nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.depth(F.relu6(self.stem(x))))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        x = F.max_pool2d(self.single(self.point(x * gate)), 2)
        found: Tensor = self.head(x.flatten(1))
        return found


class Joined(nn.Module):
    """Concatenated branches, a slope for each channel, a split, and a decoder's way up and down."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = normalised(2, 4), normalised(2, 6), nn.Conv2d(10, 8, 3, padding=1)
        self.slope, self.norm = nn.PReLU(10), nn.BatchNorm1d(5 * 16)
        self.up, self.down = nn.ConvTranspose2d(4, 5, 2, stride=2), nn.MaxPool2d(4)
        self.scale = nn.Parameter(torch.rand(1, 5, 1, 1) + 0.5)
        self.head = nn.Sequential(nn.Linear(80, 6), nn.Tanh(), nn.Linear(6, 3, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.three(self.slope(torch.cat([self.one(x), self.two(x)], 1)))
        left, right = x.chunk(2, 1)
        x = self.scale * self.up(left * torch.sigmoid(right))
        found: Tensor = self.head(self.norm(self.down(x).flatten(1)))
        return found


class Grouped(nn.Module):
    """A convolution in two groups, and images given as vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2 * SIDE * SIDE, 6 * 16)
        self.body, self.last = nn.Conv2d(6, 8, 3, groups=2), nn.Conv2d(8, 4, 1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x.flatten(1))).view(-1, 6, 4, 4)
        found: Tensor = self.head(F.relu(self.last(F.relu(self.body(x)))).flatten(1))
        return found


NETWORKS: dict[str, type[nn.Module]] = {
    "residual": Residual,
    "padded": Padded,
    "mobile": Mobile,
    "joined": Joined,
    "grouped": Grouped,
}


@lru_cache
def network(name: str) -> Graph:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = NETWORKS[name]()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
                for tensor in (part.running_mean, part.weight, part.bias):
                    assert tensor is not None
                    nn.init.normal_(tensor)
    names: Any = {"input_names": ["x"], "output_names": ["y"]}
    example = (torch.zeros(1, 2, SIDE, SIDE),)
    return export_module(module.eval(), example, **names, dynamic_batch=True, keep_batchnorm=True)


def of_one(graph: Graph) -> Graph:
    """The same graph for a batch of one."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    return Graph.from_bytes(model.SerializeToString(), graph.where)


def free_groups(graph: Graph) -> list[ChannelGroup]:
    return [group for group in channel_groups(graph) if group.fixed is None]


def outputs(graph: Graph, count: int = 3) -> np.ndarray:
    """In float64."""
    source = graph.inputs[0]
    x = torch.randn(count, *map(int, source.shape[1:]), generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        found: np.ndarray = TorchGraph(graph).double()(x).numpy()
    return found


def deaf(graph: Graph, gone: dict[str, list[int]]) -> Graph:
    """The folded graph with zeros wherever a weight would read a channel that is to go."""
    source = folded(graph)
    arrays = {name: array.copy() for name, array in source.initializers.items()}
    for group in channel_groups(source):
        for member in group.of("consumer"):
            places = member.positions[gone.get(group.id, [])].reshape(-1)
            np.moveaxis(arrays[member.tensor], member.axis, 0)[places] = 0
    changed = {name: array for name, array in arrays.items() if not np.array_equal(array, source.initializers[name])}
    return with_values(source, changed)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_keeping_everything_changes_nothing(name: str, free: bool) -> None:
    graph = network(name) if free else of_one(network(name))
    whole = narrowed(graph, {group.id: range(group.size) for group in free_groups(graph)})
    np.testing.assert_allclose(outputs(whole), outputs(graph), rtol=1e-12, atol=1e-12)
    assert costs(whole).parameters == costs(graph).parameters


@pytest.mark.parametrize("name", NETWORKS)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_channels_that_nothing_reads_may_go(name: str, data: st.DataObject) -> None:
    """For any choice of channels. A position that is off by one, or an order that is not kept, is seen here."""
    graph = network(name) if data.draw(st.booleans()) else of_one(network(name))
    kept, gone = {}, {}
    widths: Counter[tuple[str, int]] = Counter()
    for group in free_groups(graph):
        stay = data.draw(st.sets(st.integers(0, group.size - 1), min_size=1))
        kept[group.id], gone[group.id] = list(stay), sorted(set(range(group.size)) - stay)
        widths.update({(m.tensor, m.axis): len(stay) * m.positions.shape[1] for m in group.members})
    silent = deaf(graph, gone)
    small = narrowed(silent, kept)
    np.testing.assert_allclose(outputs(small), outputs(silent), rtol=1e-9, atol=1e-9)
    assert {place: small.initializers[place[0]].shape[place[1]] for place in widths} == widths


@pytest.mark.parametrize("name", NETWORKS)
def test_one_channel_of_each_group_still_runs_in_onnxruntime(name: str) -> None:
    graph = network(name)
    small = narrowed(graph, {group.id: [group.size - 1] for group in free_groups(graph)})
    x = np.random.default_rng(0).standard_normal((2, 2, SIDE, SIDE)).astype(np.float32)
    expected = OrtGraph(small).run({"x": x})["y"]
    np.testing.assert_allclose(TorchGraph(small)(torch.from_numpy(x)).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert small.outputs == graph.outputs
    assert costs(small).parameters < costs(graph).parameters


def test_cutting_twice_is_cutting_once() -> None:
    graph = network("padded")
    once = narrowed(graph, {group.id: range(1, group.size) for group in free_groups(graph)})
    one_by_one = graph
    for group in free_groups(graph):
        one_by_one = narrowed(one_by_one, {group.id: range(1, group.size)})
    np.testing.assert_allclose(outputs(one_by_one), outputs(once), rtol=1e-12, atol=1e-12)


def test_half_of_lenet_is_the_half_that_is_known(repository: Path) -> None:
    graph = Graph.from_file(repository / "examples" / "lenet5-mnist.onnx")
    half = narrowed(graph, {group.id: range(group.size // 2) for group in free_groups(graph)})
    assert costs(half).parameters == 15_738
    assert half.initializers["fc1.weight"].shape == (60, 200)


def test_half_of_a_pre_trained_residual_network(shared: Path) -> None:
    graph = Graph.from_file(shared / "models" / "resnet20-cifar10.onnx")
    groups = free_groups(graph)
    gone = {group.id: list(range(0, group.size, 2)) for group in groups}
    kept = {group.id: list(range(1, group.size, 2)) for group in groups}
    silent = deaf(graph, gone)
    half = narrowed(silent, kept)
    np.testing.assert_allclose(outputs(half), outputs(silent), rtol=1e-9, atol=1e-9)
    widths = [half.initializers[f"layer{layer}.0.conv2.weight"].shape[0] for layer in (1, 2, 3)]
    assert widths == [8, 16, 32]
    assert costs(half).macs == 10_248_512


def split_graph(build_graph: Callable[..., Graph], opset: int, uneven: bool) -> Graph:
    """A convolution of five channels, split, and both parts read."""
    rng = np.random.default_rng(0)
    shapes = {"w": (5, 2, 1, 1), "a": (3, 2, 1, 1), "b": (3, 3, 1, 1)}
    constants = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    split: dict[str, Any] = {}
    if opset < 13:
        split["split"] = [2, 3]
    elif uneven:
        constants["sizes"] = np.array([2, 3])
    else:
        split["num_outputs"] = 2
        constants |= {"a": constants["b"], "b": constants["a"]}
    inputs = ["h", "sizes"] if "sizes" in constants else ["h"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("Split", inputs, ["p", "q"], axis=1, **split),
        helper.make_node("Conv", ["p", "a"], ["u"]),
        helper.make_node("Conv", ["q", "b"], ["v"]),
        helper.make_node("Add", ["u", "v"], ["y"]),
    ]
    return build_graph(nodes, {"x": np.zeros((1, 2, 3, 3), np.float32)}, ["y"], opset, constants)


@pytest.mark.parametrize(("opset", "uneven"), [(11, True), (13, True), (18, False)])
def test_a_split_is_cut_part_by_part(build_graph: Callable[..., Graph], opset: int, uneven: bool) -> None:
    graph = split_graph(build_graph, opset, uneven)
    first, second = free_groups(graph)
    assert (first.id, second.id) == ("w", "w#1")
    gone = {"w": [0], "w#1": [0]}
    silent = deaf(graph, gone)
    small = narrowed(silent, {"w": range(1, first.size), "w#1": range(1, second.size)})
    np.testing.assert_allclose(outputs(small), outputs(silent), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        ({"no.weight": [0]}, "no group of channels 'no.weight', expected one of stem.0.weight"),
        ({"stem.0.weight": []}, r"channels \[\] to keep, expected one or more different ones of 0..5"),
        ({"stem.0.weight": [6]}, r"channels \[6\] to keep"),
        ({"stem.0.weight": [-1]}, r"channels \[-1\] to keep"),
        ({"stem.0.weight": [1, 1]}, r"channels \[1, 1\] to keep"),
        ({"head.weight": [0]}, r"2 channels to cut, expected none \(graph output 'y'\)"),
    ],
)
def test_a_wrong_choice_is_refused(kept: dict[str, list[int]], text: str) -> None:
    with pytest.raises(GraphError, match=text):
        narrowed(network("residual"), kept)


def test_a_fixed_group_may_be_named_when_all_of_it_stays() -> None:
    assert narrowed(network("residual"), {"head.weight": range(3)}).outputs[0].shape == ("batch", 3)


def test_a_value_that_loses_all_its_channels_is_refused(build_graph: Callable[..., Graph]) -> None:
    """Both halves of one group are read by the same weight, so nothing but the slices tells them apart."""
    constants = {"w": np.ones((4, 2, 1, 1), np.float32), "v": np.ones((3, 4, 1, 1), np.float32)}
    constants |= {"zero": np.array([0]), "two": np.array([2]), "four": np.array([4]), "axis": np.array([1])}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("Slice", ["h", "zero", "two", "axis"], ["p"]),
        helper.make_node("Slice", ["h", "two", "four", "axis"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["j"], axis=1),
        helper.make_node("Conv", ["j", "v"], ["y"]),
    ]
    graph = build_graph(nodes, {"x": np.zeros((1, 2, 3, 3), np.float32)}, ["y"], 18, constants)
    assert narrowed(graph, {"w": [0, 2]}).parameter_count == 10
    with pytest.raises(GraphError, match=r"value '[pq]': found no channel left"):
        narrowed(graph, {"w": [0, 1]})
