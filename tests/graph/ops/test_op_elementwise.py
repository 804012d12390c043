"""Arithmetic, comparison and logic against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

rng = np.random.default_rng(4)


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def i(*shape: int, low: int = -9, high: int = 10, dtype: Any = np.int64) -> np.ndarray:
    return rng.integers(low, high, shape).astype(dtype)


A, B = f(2, 3, 4), f(3, 1)
UNIT = (rng.random((3, 4)) * 1.8 - 0.9).astype(np.float32)
POSITIVE = (rng.random((3, 4)) + 1.1).astype(np.float32)
HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4], np.float32)
ODD = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0], np.float32)
BOOLEAN, OTHER = i(3, 4, low=0, high=2) > 0, i(4, low=0, high=2) > 0
NONZERO = i(2, 3, low=1, high=5) * np.where(i(2, 3) < 0, -1, 1)
CASES: list[tuple[Any, ...]] = [
    *((op, (9, 13, 14), [A, B], {}) for op in ("Add", "Sub", "Mul", "Div")),
    *((op, (13,), [i(2, 3), NONZERO], {}) for op in ("Add", "Sub", "Mul", "Div")),
    ("Mod", (10, 13), [i(2, 3), NONZERO], {}),
    ("Mod", (13,), [i(2, 3), NONZERO], {"fmod": 1}),
    ("Mod", (13,), [A, B], {"fmod": 1}),
    ("Pow", (9, 12, 15), [POSITIVE, f(4)], {}),
    ("Pow", (15,), [A, np.array(2.0, np.float32)], {}),
    ("Pow", (15,), [A, np.array([3], np.int64)], {}),
    ("Pow", (15,), [i(3), np.array(2.0, np.float32)], {}),
    *((op, (9, 13), [A, B, f(1)], {}) for op in ("Sum", "Mean", "Max", "Min")),
    *((op, (13,), [A], {}) for op in ("Sum", "Mean", "Max", "Min")),
    *((op, (12, 13), [i(2, 3), i(3)], {}) for op in ("Max", "Min")),
    *((op, (9, 13), [A], {}) for op in ("Abs", "Neg", "Sign", "Floor", "Ceil", "Exp", "Erf")),
    *((op, (13,), [i(2, 3)], {}) for op in ("Abs", "Neg", "Sign")),
    *((op, (9, 13), [POSITIVE], {}) for op in ("Sqrt", "Log", "Reciprocal")),
    *((op, (9,), [UNIT], {}) for op in ("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh")),
    *((op, (9,), [UNIT], {}) for op in ("Asinh", "Atanh")),
    ("Acosh", (9,), [POSITIVE], {}),
    ("Round", (11, 22), [HALVES], {}),
    ("Clip", (9,), [A], {"min": -0.5, "max": 0.5}),
    ("Clip", (9,), [A], {"max": 0.5}),
    ("Clip", (11, 12, 13), [A, np.array(-0.5, np.float32), np.array(0.5, np.float32)], {}),
    ("Clip", (13,), [A, None, np.array(0.5, np.float32)], {}),
    ("Clip", (13,), [A], {}),
    ("Clip", (13,), [A, np.array(0.5, np.float32), np.array(-0.5, np.float32)], {}),
    ("Clip", (13,), [i(5), np.array(-2), np.array(3)], {}),
    *((op, (9, 13), [A, B], {}) for op in ("Less", "Greater")),
    *((op, (16,), [i(3, 4), i(4)], {}) for op in ("LessOrEqual", "GreaterOrEqual", "Less", "Greater", "Equal")),
    ("Equal", (13, 19), [np.round(A), np.round(B)], {}),
    ("Equal", (9,), [i(3, 4), i(4)], {}),
    *((op, (9,), [BOOLEAN, OTHER], {}) for op in ("And", "Or", "Xor")),
    ("Not", (9,), [BOOLEAN], {}),
    *((op, (18,), [i(5, low=0), i(5, low=0)], {}) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    ("BitwiseNot", (18,), [i(5)], {}),
    ("IsNaN", (9, 13, 20), [ODD], {}),
    ("IsInf", (10, 20), [ODD], {}),
    ("IsInf", (10,), [ODD], {"detect_negative": 0}),
    ("IsInf", (10,), [ODD], {"detect_positive": 0}),
    ("Where", (9, 16), [BOOLEAN, f(3, 4), f(1)], {}),
    ("Where", (16,), [OTHER, i(3, 4), i(4)], {}),
    ("Cast", (9, 13, 19, 24), [A * 3], {"to": TensorProto.INT32}),
    ("Cast", (13,), [A], {"to": TensorProto.DOUBLE}),
    ("Cast", (13,), [A], {"to": TensorProto.FLOAT16}),
    ("Cast", (13,), [A], {"to": TensorProto.BOOL}),
    ("Cast", (13,), [BOOLEAN], {"to": TensorProto.FLOAT}),
    ("Cast", (13,), [i(5)], {"to": TensorProto.FLOAT}),
    ("CastLike", (15, 19), [A * 3, i(1)], {}),
    ("CastLike", (15,), [i(4), f(1)], {}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_elementwise(case: tuple[Any, ...], same_as_onnxruntime: Callable[..., None]) -> None:
    same_as_onnxruntime(*case)
