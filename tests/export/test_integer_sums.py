"""Residual additions and means as convolutions of integers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dfmeta.export import _integer_sums
from dfmeta.export.quantized import QuantizedValue

STEPS = st.floats(1e-4, 1e2)


@given(STEPS, STEPS)
def test_weights_are_in_the_ratio_of_the_steps(first: float, second: float) -> None:
    a, b, unit = _integer_sums.weights_of_sum(first, second)
    assert max(a, b) <= 127
    assert min(a, b) >= 0
    most = max(first, second)
    assert abs(a * unit - first) <= most / 254 * (1 + 1e-9)
    assert abs(b * unit - second) <= most / 254 * (1 + 1e-9)
    assert max(first, second) == pytest.approx(max(a, b) * unit, rel=1e-12)


def test_most_ratios_are_met_far_better() -> None:
    """At the end of the range, 255 steps from 0, in steps of the larger one."""
    ratios = np.linspace(0.25, 1, 1001)
    off = [255 * abs(b * unit - ratio) for ratio in ratios for _, b, unit in [_integer_sums.weights_of_sum(1.0, ratio)]]
    assert np.median(off) < 0.02
    assert max(off) < 1.01


@dataclass
class Whole:
    """A graph of one node, with every value an image of 3 channels."""

    made: dict[str, tuple[str, QuantizedValue]]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    sizes: tuple[int | str | None, ...] = ("n", 3, 4, 5)
    flat: bool = False

    def add(self, name: str, array: np.ndarray) -> str:
        self.arrays[name] = array
        return name

    def free(self, name: str) -> str:
        return name

    def step(self, value: QuantizedValue) -> tuple[str, str]:
        zero = np.array(value.zero).astype(value.dtype)
        scale = np.array(value.scale, np.float32)
        return self.add(f"{value.value}_scale", scale), self.add(f"{value.value}_zero", zero)

    def shape(self, name: str) -> tuple[int | str | None, ...]:
        return self.sizes[:2] if self.flat and name == "y" else self.sizes

    def run(self, nodes: list[onnx.NodeProto], integers: dict[str, np.ndarray]) -> np.ndarray:
        """Its integers, by onnxruntime."""
        ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, array.shape) for name, array in integers.items()]
        out = helper.make_tensor_value_info(nodes[-1].input[0], TensorProto.UINT8, None)
        constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in self.arrays.items()]
        graph = helper.make_graph(nodes[:-1], "g", ends, [out], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found: np.ndarray = session.run(None, integers)[0]
        return found


def meaning(integers: np.ndarray, value: QuantizedValue) -> np.ndarray:
    return (integers.astype(np.float64) - value.zero) * value.scale


@settings(max_examples=40, deadline=None)
@given(st.floats(0.02, 50), st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31))
def test_a_sum_is_that_of_the_numbers(ratio: float, zero: int, other: int, seed: int) -> None:
    a, b = QuantizedValue("a", 0.03, zero, "uint8"), QuantizedValue("b", 0.03 * ratio, other, "uint8")
    y = QuantizedValue("y", 0.03 * (1 + ratio), 128, "uint8")
    graph = Whole({"a": ("qa", a), "b": ("qb", b)})
    node = helper.make_node("Add", ["a", "b"], ["y"])
    assert _integer_sums.adds(node, graph)
    generator = np.random.default_rng(seed)
    qa, qb = (generator.integers(0, 256, (2, 3, 4, 5)).astype(np.uint8) for _ in "ab")
    found = graph.run(_integer_sums.added(node, graph, y), {"qa": qa, "qb": qb})
    exact = np.clip((meaning(qa, a) + meaning(qb, b)) / y.scale + y.zero, 0, 255)
    assert np.abs(found - exact).max() <= 1.0 + 1e-3
    assert np.abs(found - exact).mean() <= 0.5


@pytest.mark.parametrize("op", ["GlobalAveragePool", "ReduceMean"])
def test_a_mean_is_that_of_the_numbers(op: str) -> None:
    x, y = QuantizedValue("x", 0.02, 7, "uint8"), QuantizedValue("y", 0.015, 3, "uint8")
    graph = Whole({"x": ("qx", x)}, {"axes": np.array([-1, 2])}, flat=op == "ReduceMean")
    inputs = ["x", "axes"] if op == "ReduceMean" else ["x"]
    node = helper.make_node(op, inputs, ["y"])
    assert _integer_sums.averages(node, graph)
    qx = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)
    found = graph.run(_integer_sums.averaged(node, graph, y), {"qx": qx})
    exact = np.clip(meaning(qx, x).mean((2, 3)) / y.scale + y.zero, 0, 255)
    np.testing.assert_array_equal(found.reshape(2, 3), np.rint(exact))


def test_what_stays_in_floating_point() -> None:
    x = QuantizedValue("x", 0.02, 7, "uint8")
    both = {"x": ("qx", x), "s": ("qs", QuantizedValue("s", 0.02, 0, "int8"))}
    add, mean = helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("ReduceMean", ["x", "axes"], ["y"])
    assert _integer_sums.adds(add, Whole(both))
    assert not _integer_sums.adds(helper.make_node("Add", ["x", "s"], ["y"]), Whole(both))
    assert not _integer_sums.adds(helper.make_node("Add", ["x", "z"], ["y"]), Whole(both))
    assert not _integer_sums.adds(add, Whole(both, sizes=(1, 3, 4)))
    assert not _integer_sums.averages(mean, Whole(both, {"axes": np.array([1, 2])}))
    assert not _integer_sums.averages(mean, Whole(both))
    assert not _integer_sums.averages(helper.make_node("GlobalMaxPool", ["x"], ["y"]), Whole(both))
