"""Activation functions against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

rng = np.random.default_rng(3)
X = (
    np.concatenate([rng.standard_normal(58) * 2, [0.0, -0.0, 30.0, -30.0, 3.0, -3.0]])
    .astype(np.float32)
    .reshape(2, 4, 8)
)
TIES = rng.integers(0, 3, (3, 4, 5)).astype(np.float32)
CASES: list[tuple[Any, ...]] = [
    ("Relu", (9, 13, 14), [X], {}),
    ("LeakyRelu", (9, 16), [X], {"alpha": 0.2}),
    ("LeakyRelu", (16,), [X], {}),
    ("PRelu", (9, 16), [X, rng.standard_normal((4, 1)).astype(np.float32)], {}),
    ("PRelu", (16,), [X, np.array([0.1], np.float32)], {}),
    ("Elu", (9, 22), [X], {"alpha": 0.7}),
    ("Selu", (9, 22), [X], {}),
    ("Selu", (9,), [X], {"alpha": 1.5, "gamma": 0.9}),
    ("Celu", (12,), [X], {"alpha": 1.5}),
    ("ThresholdedRelu", (10, 22), [X], {"alpha": 0.5}),
    ("Shrink", (9,), [X], {"bias": 0.3, "lambd": 0.7}),
    ("HardSigmoid", (9, 22), [X], {}),
    ("HardSigmoid", (9,), [X], {"alpha": 0.5, "beta": 0.1}),
    ("HardSwish", (14, 22), [X], {}),
    ("Mish", (18, 22), [X], {}),
    ("Gelu", (20,), [X], {}),
    ("Gelu", (20,), [X], {"approximate": "tanh"}),
    ("Swish", (24,), [X], {"alpha": 1.7}),
    ("Sigmoid", (9, 13), [X], {}),
    ("Tanh", (9, 13), [X], {}),
    ("Softplus", (9, 22), [X], {}),
    ("Softsign", (9, 22), [X], {}),
    ("Softmax", (9, 11, 13), [X], {}),
    ("Softmax", (11, 13), [X], {"axis": 2}),
    ("Softmax", (11, 13), [X], {"axis": -2}),
    ("Softmax", (11,), [X], {"axis": 0}),
    ("LogSoftmax", (9, 11, 13), [X], {}),
    ("LogSoftmax", (11, 13), [X], {"axis": -1}),
    ("Hardmax", (9, 11, 13), [TIES], {}),
    ("Hardmax", (13,), [TIES], {"axis": 1}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_activation(case: tuple[Any, ...], same_as_onnxruntime: Callable[..., None]) -> None:
    same_as_onnxruntime(*case)
