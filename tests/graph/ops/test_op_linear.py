"""Matrix products against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

rng = np.random.default_rng(2)


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


CASES: list[tuple[Any, ...]] = [
    ("Gemm", (9, 11, 13, 24), [f(3, 4), f(4, 5), f(5)], {}),
    ("Gemm", (13,), [f(4, 3), f(5, 4), f(3, 1)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", (13,), [f(3, 4), f(5, 4)], {"transB": 1}),
    ("Gemm", (13,), [f(3, 4), f(4, 5), f(3, 5)], {"beta": 0.0}),
    ("Gemm", (13,), [f(3, 4), f(4, 5), f(1)], {"beta": 0.5}),
    ("MatMul", (9, 13), [f(3, 4), f(4, 5)], {}),
    ("MatMul", (13,), [f(2, 1, 3, 4), f(5, 4, 2)], {}),
    ("MatMul", (13,), [f(4), f(2, 4, 3)], {}),
    ("MatMul", (13,), [f(2, 3, 4), f(4)], {}),
    ("Einsum", (12,), [f(2, 3, 4), f(2, 5, 4)], {"equation": "bid,bjd->bij"}),
    ("Einsum", (12,), [f(2, 3, 3)], {"equation": "...ii->...i"}),
    ("Einsum", (12,), [f(3, 4), f(4, 5)], {"equation": "ij, jk"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_linear(case: tuple[Any, ...], same_as_onnxruntime: Callable[..., None]) -> None:
    same_as_onnxruntime(*case)
