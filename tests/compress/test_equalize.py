"""Equalizing: the same function from weights that are alike, and records as if they were taken anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import helper

from dfmeta.compress._operators import input_record, operators
from dfmeta.compress.equalize import Config, run
from dfmeta.errors import DataError, StepError
from dfmeta.graph import Graph, OrtGraph
from dfmeta.records import PublishedRecords

make = helper.make_node
Build = Callable[..., Graph]
Records = Callable[..., PublishedRecords]
GENERATOR = np.random.default_rng(3)


def f(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (GENERATOR.standard_normal(shape) * scale).astype(np.float32)


def uneven(*shape: int, axis: int = 0) -> np.ndarray:
    """Rows of very different sizes."""
    sizes = np.exp(GENERATOR.uniform(-3, 3, shape[axis])).astype(np.float32)
    return f(*shape) * sizes.reshape([-1 if place == axis else 1 for place in range(len(shape))])


STATISTICS = {"ng": np.abs(f(6)) + np.float32(0.5), "ns": f(6), "nm": f(6), "nv": np.abs(f(6)) + np.float32(0.5)}
NODES: Sequence[onnx.NodeProto] = [
    make("Conv", ["x", "w0", "b0"], ["c0"], name="first", pads=[1, 1, 1, 1]),
    make("BatchNormalization", ["c0", "ng", "ns", "nm", "nv"], ["n0"]),
    make("Relu", ["n0"], ["r0"]),
    make("Conv", ["r0", "w1"], ["c1"], name="depthwise", pads=[1, 1, 1, 1], group=6),
    make("LeakyRelu", ["c1"], ["r1"]),
    make("MaxPool", ["r1"], ["m1"], kernel_shape=[2, 2], strides=[2, 2]),
    make("Conv", ["m1", "w2", "b2"], ["c2"], name="pointwise"),
    make("Relu", ["c2"], ["r2"]),
    make("Flatten", ["r2"], ["v"]),
    make("Gemm", ["v", "w3", "b3"], ["h"], name="hidden", transB=1),
    make("Relu", ["h"], ["r3"]),
    make("MatMul", ["r3", "w4"], ["y"], name="head"),
]


@pytest.fixture(scope="module")
def network(build_graph: Build) -> Graph:
    constants = {
        "w0": uneven(6, 2, 3, 3),
        "b0": f(6),
        "w1": uneven(6, 1, 3, 3),
        "w2": uneven(4, 6, 1, 1),
        "b2": f(4),
        "w3": uneven(7, 36),
        "b3": f(7),
        "w4": uneven(7, 3),
        **STATISTICS,
    }
    return build_graph(NODES, {"x": ["n", 2, 6, 6]}, {"y": ["n", 3]}, constants)


def outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    [found] = OrtGraph(graph, threads=1).run({"x": x}).values()
    return found


def test_the_function_stays(network: Graph) -> None:
    found = run(network, PublishedRecords(()))
    x = f(20, 2, 6, 6)
    expected = outputs(network, x)
    np.testing.assert_allclose(outputs(found.graph, x), expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))
    assert [(pair.before, pair.after) for pair in found.pairs] == [
        ("first", "depthwise"),
        ("depthwise", "pointwise"),
        ("pointwise", "hidden"),
        ("hidden", "head"),
    ]


def test_both_sides_of_a_channel_become_alike(network: Graph) -> None:
    found = {operator.label: operator for operator in operators(run(network, PublishedRecords(()), Config(200)).graph)}
    made = np.abs(found["pointwise"].weight[0]).max(1)
    read = np.abs(found["hidden"].weight[0]).max(0).reshape(4, 9).max(1)
    np.testing.assert_allclose(made, read, rtol=1e-3)
    made, read = np.abs(found["first"].weight[0]).max(1), np.abs(found["depthwise"].weight).max((1, 2))
    np.testing.assert_allclose(made, read, rtol=1e-3)


@pytest.mark.parametrize("storage", [None, "int8"])
@pytest.mark.parametrize("form", ["full", "toeplitz", "kronecker", "diagonal"])
def test_records_are_those_of_the_new_graph(
    form: str, storage: str | None, network: Graph, records_of_graph: Records
) -> None:
    if form == "diagonal" and storage:
        storage = None
    x = f(50, 2, 6, 6)
    found = run(network, records_of_graph(network, {"x": x}, form=form, storage=storage))
    anew = records_of_graph(found.graph, {"x": x}, form=form, storage=storage)
    for operator in operators(found.graph):
        ours, theirs = (input_record(records, operator) for records in (found.records, anew))
        assert ours.moment is not None
        assert theirs.moment is not None
        size = np.sqrt(np.einsum("gii->gi", theirs.moment))
        # int8 correlations round to 1/127, and from other last digits to the next one.
        allowed = (1e-4 if storage is None else 2 / 127) * size[:, :, None] * size[:, None, :] + 1e-12
        assert (np.abs(ours.moment - theirs.moment) <= allowed).all(), operator.label
        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-3, atol=1e-5 * float(size.max()))


def test_moments_are_those_of_the_new_graph(network: Graph, records_of_graph: Records) -> None:
    x = f(50, 2, 6, 6)
    found = run(network, records_of_graph(network, {"x": x}))
    anew = records_of_graph(found.graph, {"x": x})
    checked = 0
    for statistic in found.records:
        if statistic.kind == "moments" and statistic.value != "y":
            theirs = anew.of(statistic.value, "moments", by_class=False)
            assert theirs is not None
            for name in ("mean", "var"):
                expected = theirs.tensors[name].numpy()
                atol = 1e-4 * float(np.abs(expected).max())
                np.testing.assert_allclose(statistic.tensors[name].numpy(), expected, rtol=1e-3, atol=atol)
            checked += 1
    assert checked >= 3


def test_histograms_of_scaled_values_are_dropped_and_said_so(network: Graph, records_of_graph: Records) -> None:
    records = records_of_graph(network, {"x": f(5, 2, 6, 6)})
    found = run(network, records)
    gone = {one.value for one in records if one.record in found.dropped and one.kind == "histogram"}
    assert {"r0", "m1", "v", "r3"} <= gone
    assert found.records.of("x", "histogram", by_class=False) is not None
    assert not any(one.value in found.scales for one in found.records if one.kind == "histogram")


NOT_ALIKE: Mapping[str, Sequence[onnx.NodeProto]] = {
    "another activation": [
        make("Conv", ["x", "w0"], ["c"]),
        make("Sigmoid", ["c"], ["r"]),
        make("Conv", ["r", "w"], ["y"]),
    ],
    "read twice": [
        make("Conv", ["x", "w0"], ["c"]),
        make("Relu", ["c"], ["r"]),
        make("Conv", ["r", "w"], ["d"]),
        make("Add", ["r", "d"], ["y"]),
    ],
    "shared": [
        make("Conv", ["x", "w0"], ["c"]),
        make("Conv", ["c", "w"], ["d"]),
        make("Conv", ["d", "w"], ["y"]),
    ],
}


@pytest.mark.parametrize("case", NOT_ALIKE)
def test_a_graph_without_pairs_is_refused(case: str, build_graph: Build) -> None:
    constants = {"w0": f(2, 2, 1, 1), "w": f(2, 2, 1, 1)}
    graph = build_graph(NOT_ALIKE[case], {"x": ["n", 2, 3, 3]}, {"y": ["n", 2, 3, 3]}, constants)
    with pytest.raises(StepError, match="no pair of layers"):
        run(graph, PublishedRecords(()))


@pytest.mark.parametrize("config", [Config(rounds=0), Config(limit=1.0), Config(limit=float("nan"))], ids=str)
def test_settings_out_of_range_are_refused(config: Config, network: Graph) -> None:
    with pytest.raises(DataError, match="equalize"):
        run(network, PublishedRecords(()), config)


def test_no_channel_is_scaled_beyond_the_limit(network: Graph) -> None:
    found = run(network, PublishedRecords(()), Config(limit=2.0))
    for scale in found.scales.values():
        assert scale.min() >= 0.5 - 1e-12
        assert scale.max() <= 2.0 + 1e-12
    assert all(pair.spread > 1 for pair in found.pairs)
