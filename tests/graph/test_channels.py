"""Which channels go together: known networks as tables, and every operator that ties them by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from dfmeta.graph import Graph, OrtGraph
from dfmeta.graph.channels import ChannelGroup, channel_groups
from dfmeta.graph.constant_folding import folded

Build = Callable[..., Graph]
IMAGE = np.zeros((1, 2, 4, 4), np.float32)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"the {op}", **attributes)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def first_and_last(
    build: Build, between: list[onnx.NodeProto], constants: dict[str, np.ndarray], read: int = 4, opset: int = 18
) -> Graph:
    """A convolution to four channels ``h``, what is ``between`` it and ``j``, and a convolution of ``j``."""
    constants = {"w": ones(4, 2, 1, 1), "v": ones(3, read, 1, 1)} | constants
    nodes = [node("Conv", "x w", "h"), *between, node("Conv", "j v", "y")]
    return build(nodes, {"x": IMAGE}, ["y"], opset, constants)


def by_id(graph: Graph) -> dict[str, ChannelGroup]:
    return {group.id: group for group in channel_groups(graph)}


def places(group: ChannelGroup) -> dict[str, list[list[int]]]:
    return {f"{member.tensor} {member.axis} {member.role}": member.positions.tolist() for member in group.members}


def test_a_plain_network(repository: Path) -> None:
    groups = channel_groups(Graph.from_file(repository / "examples" / "lenet5-mnist.onnx"))
    assert [(group.id, group.size, group.fixed) for group in groups] == [
        ("conv1.weight", 6, None),
        ("conv2.weight", 16, None),
        ("fc1.weight", 120, None),
        ("fc2.weight", 84, None),
        ("out.weight", 10, "graph output 'logits'"),
    ]
    found = {f"{member.tensor} {member.axis}": member for member in groups[1].members}
    assert {name: member.role for name, member in found.items()} == {
        "conv2.weight 0": "producer",
        "conv2.bias 0": "parameter",
        "fc1.weight 1": "consumer",
    }
    np.testing.assert_array_equal(found["fc1.weight 1"].positions, np.arange(400).reshape(16, 25))
    assert groups[1].of("consumer") == (found["fc1.weight 1"],)


def test_a_residual_network_with_padded_shortcuts(shared: Path) -> None:
    """Channels 8 to 23 of the second stage carry the first stage's 16; those are 24 to 39 of the third."""
    groups = by_id(Graph.from_file(shared / "models" / "resnet20-cifar10.onnx"))
    assert {name: group.size for name, group in groups.items() if group.fixed is None} == {
        "conv1.weight": 16,
        "layer2.0.conv2.weight": 16,
        "layer3.0.conv2.weight": 32,
    } | {f"layer{layer}.{block}.conv1.weight": 2 ** (layer + 3) for layer in (1, 2, 3) for block in range(3)}
    assert groups["linear.weight"].fixed == "graph output 'logits'"
    carried = {f"{member.tensor} {member.axis}": member for member in groups["conv1.weight"].members}
    for tensor, start in (("layer1.0.conv2", 0), ("layer2.0.conv2", 8), ("layer3.0.conv2", 24)):
        assert carried[f"{tensor}.weight 0"].positions[:, 0].tolist() == list(range(start, start + 16))
    own = {f"{member.tensor} {member.axis}": member for member in groups["layer2.0.conv2.weight"].members}
    assert own["layer2.0.conv2.weight 0"].positions[:, 0].tolist() == [*range(8), *range(24, 32)]
    assert own["linear.weight 1"].positions[:, 0].tolist() == [*range(16, 24), *range(40, 48)]


def test_every_channel_of_every_weight_is_in_one_group_only(shared: Path) -> None:
    seen: set[tuple[str, int, int]] = set()
    for group in channel_groups(Graph.from_file(shared / "models" / "resnet20-cifar10.onnx")):
        for member in group.members:
            entries = {(member.tensor, member.axis, place) for place in member.positions.reshape(-1).tolist()}
            assert len(entries) == member.positions.size
            assert not entries & seen
            seen |= entries
    assert ("linear.weight", 1, 63) in seen


def test_a_concatenation_shifts_and_a_shared_weight_ties(build_graph: Build) -> None:
    constants = {"a": ones(2, 2, 1, 1), "b": ones(3, 2, 1, 1), "v": ones(1, 8, 1, 1), "k": ones(1, 1, 4, 4)}
    nodes = [
        node("Conv", "x a", "p"),
        node("Conv", "x b", "q"),
        node("Relu", "x", "r"),
        node("Conv", "r a", "s"),
        node("Concat", "p q s k", "j", axis=1),
        node("Conv", "j v", "y"),
    ]
    groups = by_id(build_graph(nodes, {"x": IMAGE}, ["y"], 18, constants))
    assert places(groups["a"]) == {"a 0 producer": [[0], [1]], "v 1 consumer": [[0, 5], [1, 6]]}
    assert places(groups["b"]) == {"b 0 producer": [[0], [1], [2]], "v 1 consumer": [[2], [3], [4]]}


def test_parameters_that_channels_pass_through(build_graph: Build) -> None:
    """Constants by channel go along; single numbers, and what is the same for all channels, do not."""
    constants = {"slope": ones(4, 1, 1), "gain": ones(1, 4, 1, 1), "shift": ones(1, 1, 4, 4)}
    constants |= {"low": ones(), "k": ones(1)}
    between = [
        node("PRelu", "h slope", "a"),
        node("Mul", "gain a", "b"),
        node("Add", "b shift", "c"),
        node("Clip", "c low", "d"),
        node("Div", "d k", "j"),
    ]
    groups = by_id(first_and_last(build_graph, between, constants))
    each = [[0], [1], [2], [3]]
    assert places(groups["w"]) == {
        "w 0 producer": each,
        "v 1 consumer": each,
        "slope 0 parameter": each,
        "gain 1 parameter": each,
    }


def test_a_generator_makes_channels_of_features(build_graph: Build) -> None:
    constants = {"w": ones(2, 12), "target": np.array([0, 3, 2, 2]), "v": ones(1, 3, 1, 1)}
    nodes = [node("MatMul", "x w", "h"), node("Reshape", "h target", "j"), node("Conv", "j v", "y")]
    groups = by_id(build_graph(nodes, {"x": ones(1, 2)}, ["y"], 18, constants))
    assert places(groups["w"]) == {
        "w 1 producer": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
        "v 1 consumer": [[0], [1], [2]],
    }


FIXING: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], str]] = {
    "softmax": ([node("Softmax", "h", "j", axis=1)], {}, "node 'the Softmax' (Softmax): channels are not followed"),
    "local response": ([node("LRN", "h", "j", size=3)], {}, "node 'the LRN' (LRN): channels are not followed"),
    "layer normalization": (
        [node("LayerNormalization", "h s", "j", axis=1)],
        {"s": ones(4, 4, 4)},
        "node 'the LayerNormalization' (LayerNormalization)",
    ),
    "mean over channels": (
        [node("ReduceMean", "h axes", "m"), node("Mul", "h m", "j")],
        {"axes": np.array([1])},
        "node 'the ReduceMean' (ReduceMean) reduces over it",
    ),
    "attention": (
        [
            node("Reshape", "h flat", "q"),
            node("Transpose", "q", "k", perm=[0, 2, 1]),
            node("MatMul", "k q", "m"),
            node("MatMul", "q m", "o"),
            node("Reshape", "o back", "j"),
        ],
        {"flat": np.array([0, 4, 16]), "back": np.array([0, 4, 4, 4])},
        "node 'the MatMul' (MatMul): 'q' is not a constant",
    ),
    "a stride over channels": (
        [node("Slice", "h zero four one two", "p"), node("Concat", "p p", "j", axis=1)],
        {name: np.array([number]) for name, number in (("zero", 0), ("four", 4), ("one", 1), ("two", 2))},
        "node 'the Slice' (Slice): it steps over channels",
    ),
    "channels upscaled": (
        [node("Resize", "h none scales", "p"), node("MaxPool", "p", "j", kernel_shape=[1, 1])],
        {"none": ones(0), "scales": np.array([1, 2, 1, 1], np.float32)},
        "node 'the Resize' (Resize): it resizes channels",
    ),
    "channels added to a picture": (
        [node("Transpose", "h", "p", perm=[0, 2, 1, 3]), node("Add", "h p", "j")],
        {},
        "node 'the Add' (Add) joins it to an axis that is not of channels",
    ),
}


@pytest.mark.parametrize("name", FIXING)
def test_what_ties_all_channels_is_named(build_graph: Build, name: str) -> None:
    between, constants, reason = FIXING[name]
    read = 8 if name == "channels upscaled" else 4
    found = by_id(first_and_last(build_graph, between, constants, read))["w"].fixed
    assert found is not None
    assert found.startswith(reason)


def test_one_channel_that_weighs_all_others_stays(build_graph: Build) -> None:
    constants = {"zero": np.array([0]), "one": np.array([1])}
    between = [node("Slice", "h zero one one", "p"), node("Mul", "h p", "j")]
    gate, others = channel_groups(first_and_last(build_graph, between, constants))[:2]
    assert (gate.size, gate.fixed) == (1, "node 'the Mul' (Mul) repeats it")
    assert (others.size, others.fixed) == (3, None)


def test_channels_given_from_outside_are_fixed(build_graph: Build) -> None:
    between = [node("Concat", "h x", "j", axis=1)]
    groups = by_id(first_and_last(build_graph, between, {}, read=6))
    assert places(groups["w"])["v 1 consumer"] == [[0], [1], [2], [3]]
    added = build_graph(
        [node("Conv", "x w", "h"), node("Add", "h x", "j"), node("Conv", "j v", "y")],
        {"x": IMAGE},
        ["y"],
        18,
        {"w": ones(2, 2, 1, 1), "v": ones(3, 2, 1, 1)},
    )
    assert by_id(added)["w"].fixed == "graph input 'x'"


def test_a_value_that_is_also_returned_is_fixed(build_graph: Build) -> None:
    nodes = [node("Conv", "x w", "h"), node("Conv", "h v", "y")]
    graph = build_graph(nodes, {"x": IMAGE}, ["h", "y"], 18, {"w": ones(4, 2, 1, 1), "v": ones(3, 4, 1, 1)})
    assert by_id(graph)["w"].fixed == "graph output 'h'"


def test_a_weight_that_is_computed_is_not_cut(build_graph: Build) -> None:
    nodes = [
        node("Conv", "x w", "h"),
        node("DequantizeLinear", "q scale", "v"),
        node("Conv", "h v", "y"),
    ]
    constants = {"w": ones(4, 2, 1, 1), "q": np.ones((3, 4, 1, 1), np.int8), "scale": np.float32(0.1).reshape(())}
    found = by_id(build_graph(nodes, {"x": IMAGE}, ["y"], 18, constants))["w"].fixed
    assert found == "node 'the Conv' (Conv): 'v' is not a constant"


def test_pooling_with_places_is_fixed(build_graph: Build) -> None:
    """The second output counts through all channels."""
    nodes = [node("Conv", "x w", "h"), node("MaxPool", "h", "p at", kernel_shape=[2, 2]), node("Conv", "p v", "y")]
    graph = build_graph(nodes, {"x": IMAGE}, ["y", "at"], 18, {"w": ones(4, 2, 1, 1), "v": ones(3, 4, 1, 1)})
    assert by_id(graph)["w"].fixed == "node 'the MaxPool' (MaxPool): its second output is used"


def test_a_target_that_depends_on_the_input_is_fixed(build_graph: Build) -> None:
    nodes = [node("Conv", "x w", "h"), node("Shape", "h", "size"), node("Reshape", "h size", "j")]
    nodes.append(node("Conv", "j v", "y"))
    graph = build_graph(nodes, {"x": IMAGE}, ["y"], 18, {"w": ones(4, 2, 1, 1), "v": ones(3, 4, 1, 1)})
    assert by_id(graph)["w"].fixed == "node 'the Shape' (Shape): channels are not followed through this operator"


def test_folding_writes_constants_out_and_keeps_names(build_graph: Build) -> None:
    constants = {"w": ones(4, 2, 1, 1), "zero": np.zeros((), np.float32), "m": ones(3, 64), "t": np.array([0, -1])}
    nodes = [
        node("Shape", "w", "n", end=1),
        node("CastLike", "zero x", "z"),
        node("Expand", "z n", "bias"),
        node("Conv", "x w bias", "h"),
        node("Reshape", "h t", "f"),
        node("Transpose", "m", "mt"),
        node("MatMul", "f mt", "y"),
    ]
    graph = build_graph(nodes, {"x": IMAGE}, ["y"], 18, constants)
    after = folded(graph)
    assert [proto.op_type for proto in after.model.graph.node] == ["Conv", "Reshape", "MatMul"]
    assert set(after.initializer_names) == {"w", "t", "mt"}
    x = np.random.default_rng(0).standard_normal(IMAGE.shape).astype(np.float32)
    np.testing.assert_allclose(OrtGraph(after).run({"x": x})["y"], OrtGraph(graph).run({"x": x})["y"], rtol=1e-6)
    assert folded(after).raw == after.raw


def test_folding_leaves_what_is_tied_huge_or_returned(build_graph: Build) -> None:
    constants = {"m": ones(3, 3), "size": np.array([2**13, 2**12]), "one": ones(1, 1)}
    nodes = [
        node("MatMul", "x m", "h"),
        node("Transpose", "m", "t"),
        node("MatMul", "h t", "y"),
        node("Expand", "one size", "big"),
        node("ReduceSum", "big", "total"),
        node("Add", "y total", "z"),
        node("Relu", "m", "constant"),
    ]
    after = folded(build_graph(nodes, {"x": ones(1, 3)}, ["z", "constant"], 18, constants))
    assert [proto.op_type for proto in after.model.graph.node] == [
        "MatMul",
        "Transpose",
        "MatMul",
        "Expand",
        "ReduceSum",
        "Add",
        "Relu",
    ]
    assert by_id(after)["m"].fixed is not None
