"""Histograms that equalizing takes away, from moments: of rectified normal values, and against the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from dfmeta.compress import _ranges, equalize
from dfmeta.compress._expected_histograms import before_rectifier, with_expected_histograms
from dfmeta.graph import Graph, OrtGraph
from dfmeta.records import PublishedRecords
from dfmeta.records.operator_moments import histogram_record

make = helper.make_node
Build = Callable[..., Graph]
Records = Callable[..., PublishedRecords]


@given(mean=st.floats(-3, 20), deviation=st.floats(0.01, 100))
@settings(max_examples=50, deadline=None)
def test_a_rectified_normal_variable_is_found_again(mean: float, deviation: float) -> None:
    """From its mean and mean square, integrated by the trapezoid rule."""
    z = np.linspace(-12, 12, 200_001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    x = np.maximum(deviation * (mean + z), 0)
    moments = [np.array([np.trapezoid(density * x**power, z)]) for power in (1, 2)]
    found, variance = before_rectifier(*moments)
    assert found == pytest.approx(mean * deviation, abs=1e-3 * deviation)
    assert np.sqrt(variance) == pytest.approx(deviation, rel=1e-3)


def test_channels_that_never_change_or_are_never_seen() -> None:
    mean, variance = before_rectifier(np.array([0.0, 2.0]), np.array([0.0, 4.0]))
    np.testing.assert_allclose(mean, [0, 2], rtol=2e-3)
    assert variance[0] == 0
    assert 0 <= variance[1] < 0.01


@pytest.fixture(scope="module")
def network(build_graph: Build) -> Graph:
    generator = np.random.default_rng(0)
    sizes = np.exp(generator.uniform(-2, 2, 8)).reshape(8, 1, 1, 1)
    nodes = [
        make("Conv", ["x", "w0", "b0"], ["a"], "first", pads=[1, 1, 1, 1]),
        make("Relu", ["a"], ["b"]),
        make("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Conv", ["c", "w1"], ["d"], "second", pads=[1, 1, 1, 1]),
        make("LeakyRelu", ["d"], ["e"], alpha=0.3),
        make("Flatten", ["e"], ["f"]),
        make("Gemm", ["f", "w2"], ["y"], "head"),
    ]
    constants = {
        "w0": generator.standard_normal((8, 2, 3, 3)) * sizes / 4,
        "b0": generator.standard_normal(8) * sizes.reshape(-1),
        "w1": generator.standard_normal((6, 8, 3, 3)) / 8,
        "w2": generator.standard_normal((54, 4)) / 7,
    }
    arrays = {name: array.astype(np.float32) for name, array in constants.items()}
    return build_graph(nodes, {"x": ["n", 2, 6, 6]}, {"y": ["n", 4]}, arrays)


@pytest.mark.parametrize("form", ["full", "toeplitz", "kronecker", "diagonal"])
def test_the_range_is_near_that_of_the_scaled_values_themselves(
    form: str, network: Graph, records_of_graph: Records
) -> None:
    x = np.random.default_rng(1).standard_normal((400, 2, 6, 6)).astype(np.float32)
    before = records_of_graph(network, {"x": x}, form=form)
    equal = equalize.run(network, before)
    assert {value for value in ("c", "f") if histogram_record(equal.records, value) is None} == {"c", "f"}
    records, expected = with_expected_histograms(before, equal)
    assert expected == ("c", "f")
    assert histogram_record(records, "x") is histogram_record(before, "x")
    again = records_of_graph(equal.graph, {"x": x}, form=form)
    values = OrtGraph(equal.graph, ["c", "f"], threads=1).run({"x": x})
    for value in expected:
        ours, theirs = (_ranges.read(histogram_record(one, value)) for one in (records, again))  # type: ignore[arg-type]
        found, wanted = (_ranges.bounds(one, "mse", 8) for one in (ours, theirs))
        assert found == pytest.approx(wanted, rel=0.4, abs=0.1 * wanted[1]), value
        low, high = (_ranges.quantile(ours, share) for share in (0.05, 0.95))
        inside = float(((values[value] >= low) & (values[value] <= high)).mean())
        assert 0.85 < inside <= 0.99, value
    assert found[0] < 0


def test_without_scales_or_moments_nothing_is_expected(network: Graph, records_of_graph: Records) -> None:
    x = np.random.default_rng(1).standard_normal((20, 2, 6, 6)).astype(np.float32)
    before = records_of_graph(network, {"x": x})
    only = PublishedRecords(tuple(one for one in before if one.kind == "histogram"))
    assert with_expected_histograms(only, equalize.run(network, only))[1] == ()
    moments = PublishedRecords(tuple(one for one in before if one.kind != "histogram"))
    assert with_expected_histograms(moments, equalize.run(network, moments))[1] == ()
