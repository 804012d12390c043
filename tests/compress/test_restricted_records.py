"""Records carried over a step: exactly what would be recorded of the new graph over the same data, or left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

from dfmeta.compress import factorize, prune
from dfmeta.compress._restricted_records import carried
from dfmeta.compress._unchanged import Part, Whole, origins
from dfmeta.graph import Graph, OrtGraph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.graph.operator_inputs import operator_inputs
from dfmeta.records import PublishedRecords

Build = Callable[..., Graph]


@pytest.fixture(scope="module")
def base(digits_teacher: Graph) -> Graph:
    return without_batch_norm(digits_teacher)


@pytest.fixture(scope="module")
def images(digits: Any) -> dict[str, np.ndarray]:
    return {"image": digits[0][:300].numpy()}


@pytest.fixture(scope="module")
def records(base: Graph, images: Any, records_of_graph: Callable[..., PublishedRecords]) -> PublishedRecords:
    return records_of_graph(base, images)


@pytest.fixture(scope="module")
def halved(base: Graph, records: PublishedRecords) -> Graph:
    return prune.run(base, records, prune.Config(channels=0.5)).graph


def test_values_before_and_behind_the_first_cut(base: Graph, halved: Graph, images: Any) -> None:
    """The image is whole, the first layer's channels are some of what they were, and all else has changed."""
    found = origins(base, halved)
    names = [value for value in halved.values if value not in halved.initializers]
    was, now = (OrtGraph(graph, names).run(images) for graph in (base, halved))
    kinds = {name: type(found.get(name)).__name__ for name in names}
    assert kinds["image"] == "Whole"
    assert set(kinds.values()) == {"Whole", "Part", "NoneType"}
    for name in names:
        origin = found.get(name)
        if isinstance(origin, Part):
            np.testing.assert_allclose(now[name], was[name].take(origin.kept, origin.axis), atol=1e-5)
            assert origin.of == was[name].shape[origin.axis]
        elif isinstance(origin, Whole):
            np.testing.assert_allclose(now[name], was[name], atol=1e-5)
        else:
            same = now[name].shape == was[name].shape and np.allclose(now[name], was[name], atol=1e-5)
            assert not same
    parts = [name for name in names if isinstance(found.get(name), Part)]
    assert len(parts) == 3, "convolution, rectifier, pooling"


@pytest.mark.parametrize(
    ("form", "storage"),
    [
        ("full", "float32"),
        ("full", "int8"),
        ("full", "float16"),
        ("toeplitz", "float32"),
        ("toeplitz", "int8"),
        ("diagonal", "float32"),
        ("kronecker", "float32"),
    ],
)
def test_restricted_records_are_those_of_the_new_graph(
    form: str, storage: str, base: Graph, halved: Graph, images: Any, records_of_graph: Callable[..., PublishedRecords]
) -> None:
    was, wanted = (records_of_graph(graph, images, form=form, storage=storage) for graph in (base, halved))
    found = carried(base, halved, was)
    compared = []
    for statistic in found.records:
        other = wanted.of(statistic.value, statistic.kind, by_class=False)
        assert other is not None
        assert statistic.configuration == other.configuration
        for name, tensor in statistic.tensors.items():
            assert tensor.dtype == other.tensors[name].dtype
            if form == "kronecker" and name in ("channels", "taps"):
                continue
            np.testing.assert_allclose(tensor.numpy(), other.tensors[name].numpy(), rtol=2e-4, atol=2e-5)
        compared.append((statistic.value, statistic.kind, statistic.record in found.restricted))
    assert ("image", "second-moment", False) in compared
    assert ("image", "histogram", False) in compared
    cut = [entry for entry in compared if entry[2]]
    assert {kind for _, kind, _ in cut} == {"second-moment", "moments"}
    assert found.dropped
    assert {statistic.kind for statistic in was if statistic.record in found.dropped} >= {"histogram", "second-moment"}


def test_kronecker_keeps_the_factor_that_fitted_all_channels(
    base: Graph, halved: Graph, images: Any, records_of_graph: Callable[..., PublishedRecords]
) -> None:
    was = records_of_graph(base, images, form="kronecker")
    found = carried(base, halved, was)
    (cut,) = [one for one in found.records if one.record in found.restricted and one.kind == "second-moment"]
    before = next(one for one in was if one.record == cut.record)
    np.testing.assert_array_equal(cut.tensors["taps"].numpy(), before.tensors["taps"].numpy())
    assert cut.tensors["channels"].shape[-1] < before.tensors["channels"].shape[-1]


def test_nothing_is_lost_where_nothing_happened(base: Graph, records: PublishedRecords) -> None:
    found = carried(base, base, records)
    assert found.records == records
    assert not found.restricted
    assert not found.dropped


def test_a_chain_of_factors_changes_all_that_follows(base: Graph, records: PublishedRecords) -> None:
    made = factorize.run(base, records, factorize.Config(params=0.5))
    whole = [one.form == "whole" for one in made.operators]
    assert whole == [True, False, False], "what this test is about"
    found = carried(base, made.graph, records)
    read = [entry.value for entry in operator_inputs(base)]
    known = {one.value for one in found.records}
    assert set(read[:2]) < known
    assert read[2] not in known
    assert not found.restricted


def branches(build: Build, channels: int, *, changed: bool = False) -> Graph:
    """Two convolutions of one input, rectified, scaled, added, normalised, flattened, multiplied."""
    generator = np.random.default_rng(0)
    keep = slice(0, channels)
    weight = {name: generator.normal(size=(6, 3, 1, 1)).astype(np.float32) for name in "ab"}
    gain = generator.normal(size=(6, 1, 1)).astype(np.float32)
    norm = [np.abs(generator.normal(size=6)).astype(np.float32) for _ in range(4)]
    last = generator.normal(size=(6, 4, 5)).astype(np.float32)
    constants = {f"w{name}": weight[name][keep] for name in "ab"} | {"gain": gain[keep]}
    constants |= {f"n{place}": one[keep] for place, one in enumerate(norm)} | {"m": last[keep].reshape(-1, 5)}
    if changed:
        constants["wb"] = constants["wb"] * 2
    nodes = [
        helper.make_node("Conv", ["x", "wa"], ["a"]),
        helper.make_node("Conv", ["x", "wb"], ["b"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Mul", ["r", "gain"], ["g"]),
        helper.make_node("Add", ["g", "b"], ["s"]),
        helper.make_node("BatchNormalization", ["s", "n0", "n1", "n2", "n3"], ["n"]),
        helper.make_node("Flatten", ["n"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["y"]),
    ]
    return build(nodes, {"x": ["n", 3, 2, 2]}, {"y": ["n", 5]}, constants)


def test_channels_are_followed_through_operators(build_graph: Build) -> None:
    before, after = branches(build_graph, 6), branches(build_graph, 4)
    found = origins(before, after)
    assert {name for name, one in found.items() if isinstance(one, Whole)} == {"x"}
    parts = {name: one for name, one in found.items() if isinstance(one, Part)}
    assert set(parts) == set("abrgsnf")
    assert parts["n"].kept.tolist() == [0, 1, 2, 3]
    assert parts["f"].kept.tolist() == list(range(16))
    assert parts["f"].of == 24


def test_a_changed_branch_changes_the_sum(build_graph: Build) -> None:
    found = origins(branches(build_graph, 6), branches(build_graph, 4, changed=True))
    assert set(found) == {"x", "a", "r", "g"}
    found = origins(branches(build_graph, 6), branches(build_graph, 6, changed=True))
    assert set(found) == {"x", "a", "r", "g"}
    assert all(isinstance(one, Whole) for one in found.values())


def test_places_of_largest_values_are_not_followed(build_graph: Build) -> None:
    """They are counted over all channels, and so change where channels go."""

    def pooled(channels: int) -> Graph:
        weight = np.arange(8, dtype=np.float32).reshape(4, 2, 1, 1)[:channels]
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("MaxPool", ["c"], ["p", "places"], kernel_shape=[2, 2]),
            helper.make_node("Relu", ["p"], ["y"]),
        ]
        return build_graph(nodes, {"x": ["n", 2, 2, 2]}, {"y": ["n", channels, 1, 1]}, {"w": weight})

    assert set(origins(pooled(4), pooled(3))) == {"x", "c"}
    assert set(origins(pooled(4), pooled(4))) == {"x", "c", "p", "places", "y"}


def test_outputs_that_are_equal_stand_for_each_other(build_graph: Build) -> None:
    """A graph with an output twice, and one that has lost one of the two: the same function either way."""

    def twice(rows: list[int]) -> Graph:
        weight = np.array([[1, 2], [3, 4], [1, 2]], np.float32)[rows]
        nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)]
        return build_graph(nodes, {"x": ["n", 2]}, {"y": ["n", len(rows)]}, {"w": weight})

    origin = origins(twice([0, 1, 2]), twice([1, 2]))["y"]
    assert isinstance(origin, Part)
    assert origin.kept.tolist() == [1, 0]
