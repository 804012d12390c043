"""Other graphs: grouped and transposed convolutions, residual sums, shared weights, and what may not be cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from pruning_case import (
    MIDDLES,
    NO_RECORDS,
    PADDED,
    Build,
    Records,
    by_group,
    chain,
    error,
    fitted,
    make,
    numbers,
    patches,
    residual,
)

from dfmeta.compress._repairing import repaired
from dfmeta.compress._sources import Sources
from dfmeta.compress.prune import Config, run
from dfmeta.errors import StepError
from dfmeta.graph import Graph, OrtGraph, costs


@pytest.mark.parametrize("name", MIDDLES)
def test_other_convolutions_are_cut_too(
    build_graph: Build, records_of_graph: Records, images: np.ndarray, name: str
) -> None:
    middle, constants, wide, expected = MIDDLES[name]
    graph = chain(build_graph, middle, constants, wide)
    moments = records_of_graph(graph, {"x": images})
    result = run(graph, moments, Config(channels=0.5))
    assert by_group(result) == expected
    blind = run(graph, NO_RECORDS, Config(channels=0.5, fallback="norms"))
    assert error(result.graph, graph, images) < 0.7 * error(blind.graph, graph, images)
    assert costs(result.graph).macs < costs(graph).macs


def test_groups_are_repaired_one_by_one(build_graph: Build, records_of_graph: Records, images: np.ndarray) -> None:
    """A convolution in two groups is two convolutions of half the channels."""
    middle, constants, wide, _ = MIDDLES["grouped"]
    graph = chain(build_graph, middle, constants, wide)
    sources = Sources(graph, records_of_graph(graph, {"x": images}), 1e-3, affine=True)
    lost = np.arange(9, 18)
    found = repaired(sources.of("g"), lost, np.zeros(0, np.int64), None, 1e-2, variance=False)
    x = patches(graph, images, "b")
    for group in range(2):
        part = x[:, group * 36 : group * 36 + 36]
        kept = [feature for feature in range(36) if feature not in lost]
        weight = constants["g"].astype(np.float64)[group * 3 : group * 3 + 3].reshape(3, -1)
        new, shift, _ = fitted(part, weight, kept, 1e-3)
        np.testing.assert_allclose(found.weight[group][:, kept], new, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.shifts[0][group * 3 : group * 3 + 3], shift, rtol=1e-4, atol=1e-5)  # type: ignore[index]


def test_shared_channels_are_cut_only_when_asked(
    build_graph: Build, records_of_graph: Records, images: np.ndarray
) -> None:
    graph = residual(build_graph)
    moments = records_of_graph(graph, {"x": images})
    inner, every = (run(graph, moments, Config(channels=0.5, groups=groups)) for groups in ("inner", "all"))  # type: ignore[arg-type]
    assert by_group(inner) == {"first": 8, "in": 3, "left": 2, "right": 3, "head": 4}
    assert by_group(every) == {"first": 4, "in": 3, "left": 2, "right": 3, "head": 4}
    reasons = {group.id: group.left for group in inner.groups}
    assert reasons["first"] == "2 weights make it and 3 read it, which only 'all' groups allows"
    assert "graph output 'y'" in reasons["head"]
    blind = run(graph, NO_RECORDS, Config(channels=0.5, groups="all", fallback="norms"))
    assert error(every.graph, graph, images) < 0.7 * error(blind.graph, graph, images)


def tied(build_graph: Build, last: Sequence[Any], more: Mapping[str, np.ndarray]) -> Graph:
    """Two layers with one weight, each with a bias of its own."""
    nodes = [
        make("Gemm", ["x", "first"], ["a"], "one"),
        make("Relu", ["a"], ["b"]),
        make("Gemm", ["b", "both", "c1"], ["c"], "left"),
        make("Tanh", ["b"], ["t"]),
        make("Gemm", ["t", "both", "c2"], ["d"], "right"),
        *last,
    ]
    constants = {"first": numbers(0, 5, 8), "both": numbers(1, 8, 6), "c1": numbers(2, 6), "c2": numbers(3, 6)}
    return build_graph(nodes, {"x": ["n", 5]}, {"y": ["n", 6]}, {**constants, **more}, 17)


def test_a_weight_that_two_share_serves_both(build_graph: Build, records_of_graph: Records) -> None:
    """One refit for the inputs of both, and a bias for each."""
    graph, x = tied(build_graph, [make("Add", ["c", "d"], ["y"])], {}), numbers(5, 200, 5)
    result = run(graph, records_of_graph(graph, {"x": x}), Config(channels=0.75, damping=1e-6, variance=False))
    first = graph.initializers["first"].T
    left = [int(np.abs(first - row).sum(1).argmin()) for row in result.graph.initializers["first"].T]
    assert len(left) == 6
    hidden = OrtGraph(graph, ("b", "t"), threads=1).run({"x": x})
    centred = np.concatenate([hidden[name].astype(np.float64) - hidden[name].mean(0) for name in ("b", "t")])
    weight = graph.initializers["both"].astype(np.float64)
    expected = np.linalg.lstsq(centred[:, left], centred @ weight, rcond=None)[0]
    np.testing.assert_allclose(result.graph.initializers["both"], expected, rtol=1e-3, atol=1e-3)
    found = OrtGraph(result.graph, ("c", "d"), threads=1).run({"x": x})
    for name, reference in OrtGraph(graph, ("c", "d"), threads=1).run({"x": x}).items():
        np.testing.assert_allclose(found[name].mean(0), reference.mean(0), rtol=1e-3, atol=1e-4)


def test_a_weight_that_something_else_reads_is_left_alone(build_graph: Build, records_of_graph: Records) -> None:
    """Its channels are also summed over, in another place: the text names that."""
    last = [
        make("Add", ["c", "d"], ["e"]),
        make("ReduceMean", ["x"], ["s"], axes=[1]),
        make("Unsqueeze", ["s", "two"], ["u"]),
        make("Mul", ["u", "both"], ["v"]),
        make("ReduceMean", ["v"], ["w"], "other", axes=[1], keepdims=0),
        make("Add", ["e", "w"], ["y"]),
    ]
    graph = tied(build_graph, last, {"two": np.array([2])})
    with pytest.raises(StepError, match=r"no channels that may be cut \(first: node 'other' \(ReduceMean\)"):
        run(graph, records_of_graph(graph, {"x": numbers(5, 50, 5)}), Config(channels=0.5))


def test_a_graph_with_nothing_to_cut_says_why(build_graph: Build) -> None:
    graph = build_graph([make("MatMul", ["x", "w"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": numbers(0, 4, 3)})
    with pytest.raises(StepError, match=r"no channels that may be cut \(w: graph output 'y'\)"):
        run(graph, NO_RECORDS, Config(channels=0.5))


def test_only_shared_channels_point_to_all(build_graph: Build, records_of_graph: Records, images: np.ndarray) -> None:
    middle = [make("Conv", ["b", "in"], ["i"], "inner", **PADDED), make("Add", ["i", "b"], ["z"])]
    graph = chain(build_graph, middle, {"in": numbers(3, 8, 8, 3, 3)}, 8)
    moments = records_of_graph(graph, {"x": images})
    with pytest.raises(StepError, match=r"first: 2 weights make it and 2 read it.*Prune 'all' groups"):
        run(graph, moments, Config(channels=0.5))
    assert by_group(run(graph, moments, Config(channels=0.5, groups="all"))) == {"first": 4, "head": 4}
