"""Views, shapes and generated tensors against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfmeta.errors import GraphError

rng = np.random.default_rng(7)
X = rng.standard_normal((2, 3, 4)).astype(np.float32)
THIN = rng.standard_normal((1, 3, 1, 4)).astype(np.float32)
MASK = rng.integers(0, 2, (3, 4)).astype(np.float32)


def a(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def tensor(array: Any) -> Any:
    return numpy_helper.from_array(np.asarray(array))


CASES: list[tuple[Any, ...]] = [
    ("Reshape", (9, 13, 14, 19, 21, 24), [X, a(4, 6)], {}),
    ("Reshape", (14,), [X, a(0, -1)], {}),
    ("Reshape", (14,), [X, a(2, 0, 2, -1)], {}),
    ("Reshape", (14,), [np.zeros((0, 3), np.float32), a(3, 0)], {"allowzero": 1}),
    ("Flatten", (9, 11, 13, 21), [X], {}),
    ("Flatten", (13,), [X], {"axis": 0}),
    ("Flatten", (13,), [X], {"axis": -1}),
    ("Flatten", (13,), [X], {"axis": 3}),
    ("Squeeze", (9, 11), [THIN], {"axes": [0, 2]}),
    ("Squeeze", (11, 13), [THIN], {}),
    ("Squeeze", (13, 21), [THIN, a(-2)], {}),
    ("Unsqueeze", (9, 11), [X], {"axes": [0, 3]}),
    ("Unsqueeze", (13, 21), [X, a(-1, 1)], {}),
    ("Transpose", (9, 13, 21), [X], {"perm": [2, 0, 1]}),
    ("Transpose", (13,), [X], {}),
    ("Shape", (9, 13, 15, 19), [X], {}),
    ("Shape", (15,), [X], {"start": -2}),
    ("Shape", (15,), [X], {"start": 1, "end": 2}),
    ("Size", (9, 13), [X], {}),
    ("Identity", (9, 13, 24), [X], {}),
    ("Dropout", (9, 10), [X], {"ratio": 0.3}),
    ("Dropout", (12, 13, 22), [X], {}),
    ("Dropout", (13,), [X], {}, 2),
    ("Constant", (9, 11, 13, 24), [], {"value": tensor(X)}),
    ("Constant", (13,), [], {"value": tensor(np.array([1, 2], np.int64))}),
    ("Constant", (12,), [], {"value_float": 1.5}),
    ("Constant", (12,), [], {"value_floats": [1.5, 2.5]}),
    ("Constant", (12,), [], {"value_int": 3}),
    ("Constant", (12,), [], {"value_ints": [3, 4]}),
    ("ConstantOfShape", (9, 20, 24), [a(2, 3)], {"value": tensor(np.array([7], np.int32))}),
    ("ConstantOfShape", (9,), [a(2, 3)], {}),
    ("EyeLike", (9, 22), [MASK], {"k": 1}),
    ("EyeLike", (9,), [MASK], {"dtype": TensorProto.INT64, "k": -1}),
    ("Range", (11,), [np.array(1), np.array(9), np.array(3)], {}),
    ("Range", (11,), [np.array(5), np.array(-2), np.array(-2)], {}),
    ("Range", (11,), [np.array(5), np.array(2), np.array(2)], {}),
    ("Range", (11,), [np.float32(0), np.float32(1), np.float32(0.25)], {}),
    ("OneHot", (9, 11), [a(0, 2, -1, 5), np.array(3), np.array([0.5, 2], np.float32)], {}),
    ("OneHot", (11,), [rng.integers(0, 3, (2, 2)), np.array(3), np.array([0.5, 2], np.float32)], {"axis": 1}),
    ("NonZero", (9, 13), [MASK], {}),
    ("Trilu", (14,), [X], {}),
    ("Trilu", (14,), [X, np.array(-1)], {"upper": 0}),
    ("Trilu", (14,), [X, np.array(1)], {"upper": 1}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{list(case[3])}")
def test_shape(case: tuple[Any, ...], same_as_onnxruntime: Callable[..., None]) -> None:
    same_as_onnxruntime(*case)


def test_text_constants_are_refused(build_graph: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("Constant", [], ["text"], value_string=b"hello"),
        helper.make_node("Identity", ["x"], ["y"]),
    ]
    with pytest.raises(GraphError, match=r"node 0 \(Constant\): found text in attribute 'value_string'"):
        build_graph(nodes, {"x": X}, ["y"], 13)
