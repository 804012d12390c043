"""Pooling against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dfmeta.errors import UnsupportedOperator
from dfmeta.graph import TorchGraph

rng = np.random.default_rng(1)


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


IMAGE = f(2, 3, 9, 10)
BYTES = rng.integers(-128, 128, (1, 2, 6, 6)).astype(np.int8)
CASES: list[tuple[Any, ...]] = [
    ("MaxPool", (9, 10, 11, 12, 22), [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("MaxPool", (12,), [IMAGE], {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]}),
    (
        "MaxPool",
        (12,),
        [IMAGE],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "ceil_mode": 1},
    ),
    ("MaxPool", (12, 22), [IMAGE], {"kernel_shape": [2, 3], "strides": [4, 3], "ceil_mode": 1}),
    ("MaxPool", (12,), [IMAGE], {"kernel_shape": [2, 3], "dilations": [2, 3]}),
    ("MaxPool", (12,), [IMAGE], {"kernel_shape": [3, 4], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("MaxPool", (12,), [IMAGE], {"kernel_shape": [3, 4], "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("MaxPool", (12,), [IMAGE], {"kernel_shape": [3, 3], "auto_pad": "VALID"}),
    ("MaxPool", (12,), [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2]}, 2),
    ("MaxPool", (12,), [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "strides": [2, 3]}, 2),
    ("MaxPool", (12,), [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 2),
    ("MaxPool", (12,), [BYTES], {"kernel_shape": [2, 2]}),
    ("MaxPool", (12,), [f(2, 3, 9)], {"kernel_shape": [3], "strides": [2]}, 2),
    ("MaxPool", (12,), [f(1, 2, 5, 6, 7)], {"kernel_shape": [2, 3, 2], "strides": [1, 2, 2]}, 2),
    ("AveragePool", (9, 10, 11, 19, 22), [IMAGE], {"kernel_shape": [2, 3]}),
    ("AveragePool", (11, 22), [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("AveragePool", (11,), [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 0, 2, 1], "count_include_pad": 1}),
    ("AveragePool", (11,), [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 0, 2, 1]}),
    ("AveragePool", (22,), [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    (
        "AveragePool",
        (22,),
        [IMAGE],
        {
            "kernel_shape": [3, 3],
            "strides": [2, 2],
            "ceil_mode": 1,
            "count_include_pad": 1,
            "pads": [1, 1, 1, 1],
        },
    ),
    ("AveragePool", (19, 22), [IMAGE], {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    ("AveragePool", (22,), [IMAGE], {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("AveragePool", (22,), [IMAGE], {"kernel_shape": [4, 3], "auto_pad": "SAME_LOWER"}),
    ("AveragePool", (22,), [f(2, 3, 9)], {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    ("AveragePool", (22,), [f(1, 2, 5, 6, 7)], {"kernel_shape": [2, 3, 2], "pads": [1, 1, 0, 0, 1, 1]}),
    ("LpPool", (11, 18), [IMAGE], {"kernel_shape": [2, 3], "p": 3, "strides": [2, 1]}),
    ("LpPool", (18,), [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("GlobalAveragePool", (9, 22), [IMAGE], {}),
    ("GlobalAveragePool", (9,), [f(2, 3, 7)], {}),
    ("GlobalMaxPool", (9, 22), [IMAGE], {}),
    ("GlobalLpPool", (9,), [IMAGE], {"p": 3}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_pooling(case: tuple[Any, ...], same_as_onnxruntime: Callable[..., None]) -> None:
    same_as_onnxruntime(*case)


def test_column_major_indices_are_refused(build_node: Callable[..., Any]) -> None:
    graph, _ = build_node("MaxPool", 12, [IMAGE], {"kernel_shape": [2, 2], "storage_order": 1}, 2)
    with pytest.raises(UnsupportedOperator, match=r"node 0 \(MaxPool\).*storage_order 1"):
        TorchGraph(graph)
