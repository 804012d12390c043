"""Reductions, orders and running sums against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

rng = np.random.default_rng(6)
X = rng.standard_normal((2, 3, 4)).astype(np.float32)
POSITIVE = np.abs(X) + np.float32(0.5)
INTEGERS = rng.integers(-9, 10, (2, 3, 4))
TIES = rng.integers(0, 3, (4, 6)).astype(np.float32)
SIGNED = (
    "ReduceMean",
    "ReduceSum",
    "ReduceProd",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
)
ALL = (*SIGNED, "ReduceLogSum", "ReduceLogSumExp")
BY_ATTRIBUTE = {op: (9, 11) if op == "ReduceSum" else (9, 13) for op in ALL}
BY_INPUT = {op: (13, 18) if op == "ReduceSum" else (18, 20) for op in ALL}


def a(*axes: int) -> np.ndarray:
    return np.array(axes, np.int64)


CASES: list[tuple[Any, ...]] = [
    *((op, opsets, [POSITIVE], {"axes": [1]}) for op, opsets in BY_ATTRIBUTE.items()),
    *((op, opsets[:1], [POSITIVE], {"axes": [0, 2], "keepdims": 0}) for op, opsets in BY_ATTRIBUTE.items()),
    *((op, opsets[:1], [POSITIVE], {"keepdims": 0}) for op, opsets in BY_ATTRIBUTE.items()),
    *((op, opsets, [POSITIVE, a(-1)], {}) for op, opsets in BY_INPUT.items()),
    *((op, opsets[:1], [POSITIVE, a(2, 0)], {"keepdims": 0}) for op, opsets in BY_INPUT.items()),
    *((op, opsets[:1], [POSITIVE], {}) for op, opsets in BY_INPUT.items()),
    *((op, (18,), [X, a(1)], {}) for op in SIGNED),
    ("ReduceSum", (13, 18), [X], {"noop_with_empty_axes": 1}),
    ("ReduceMean", (18,), [X, a()], {"noop_with_empty_axes": 1}),
    ("ReduceMean", (18,), [X, a()], {}),
    *((op, (18,), [INTEGERS, a(1)], {}) for op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")),
    ("ReduceMean", (18,), [INTEGERS.astype(np.int32), a(1)], {}),
    *((op, (9, 11, 12, 13), [TIES], {"axis": 1}) for op in ("ArgMax", "ArgMin")),
    *((op, (12,), [TIES], {"axis": -1, "select_last_index": 1}) for op in ("ArgMax", "ArgMin")),
    *((op, (13,), [TIES], {"axis": 0, "keepdims": 0}) for op in ("ArgMax", "ArgMin")),
    ("CumSum", (11, 14), [X, np.array(1)], {}),
    ("CumSum", (14,), [X, np.array(-1)], {"exclusive": 1}),
    ("CumSum", (14,), [X, np.array(0)], {"reverse": 1}),
    ("CumSum", (14,), [X, np.array(2)], {"reverse": 1, "exclusive": 1}),
    ("TopK", (9,), [TIES], {"k": 3}, 2),
    ("TopK", (10, 11, 24), [TIES, a(3)], {}, 2),
    ("TopK", (11,), [TIES, a(2)], {"axis": 0, "largest": 0}, 2),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_reduction(case: tuple[Any, ...], same_as_onnxruntime: Callable[..., None]) -> None:
    same_as_onnxruntime(*case)
