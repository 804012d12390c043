"""Normalizations against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dfmeta.errors import UnsupportedOperator
from dfmeta.graph import TorchGraph

rng = np.random.default_rng(5)


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


X = f(2, 6, 4, 5) + 1
STATISTICS = [f(6), f(6), f(6), rng.random(6).astype(np.float32) + 0.1]
CASES: list[tuple[Any, ...]] = [
    ("BatchNormalization", (9, 14, 15), [X, *STATISTICS], {"epsilon": 1e-3}),
    ("BatchNormalization", (15,), [f(3, 6), *STATISTICS], {}),
    ("InstanceNormalization", (9, 22), [X, f(6), f(6)], {"epsilon": 1e-2}),
    ("LayerNormalization", (17,), [X, f(5), f(5)], {}),
    ("LayerNormalization", (17,), [X, f(4, 5)], {"axis": -2, "epsilon": 1e-3}),
    ("LayerNormalization", (17,), [X, f(6, 4, 5), f(6, 4, 5)], {"axis": 1}),
    ("LayerNormalization", (17,), [X, f(5), f(5)], {}, 3),
    ("GroupNormalization", (18,), [X, f(3), f(3)], {"num_groups": 3}),
    ("GroupNormalization", (21,), [X, f(6), f(6)], {"num_groups": 3, "epsilon": 1e-3}),
    ("RMSNormalization", (23,), [X, f(5)], {}),
    ("RMSNormalization", (23,), [X, f(4, 5)], {"axis": 2}),
    ("LRN", (9, 13), [X], {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 1.5}),
    ("LRN", (13,), [X], {"size": 5}),
    ("MeanVarianceNormalization", (9, 13), [X], {}),
    ("MeanVarianceNormalization", (13,), [X], {"axes": [2, 3]}),
    ("LpNormalization", (9,), [X], {}),
    ("LpNormalization", (9,), [X], {"p": 1, "axis": 1}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_normalization(case: tuple[Any, ...], same_as_onnxruntime: Callable[..., None]) -> None:
    same_as_onnxruntime(*case)


def test_batch_statistics_are_refused(build_node: Callable[..., Any]) -> None:
    graph, _ = build_node("BatchNormalization", 15, [X, *STATISTICS], {"training_mode": 1}, 3)
    with pytest.raises(UnsupportedOperator, match=r"BatchNormalization of opset 15 with training outputs"):
        TorchGraph(graph)
