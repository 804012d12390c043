"""Cutting, joining, looking up, padding and resizing against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dfmeta.errors import UnsupportedOperator
from dfmeta.graph import TorchGraph

rng = np.random.default_rng(8)


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def a(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


X, IMAGE = f(3, 4, 5), f(1, 2, 5, 6)
ROWS = a(-1, 0, 2, 1).reshape(2, 2)
PICKS = rng.integers(-3, 3, (3, 4, 5))
LAST = np.iinfo(np.int64).max
FIRST = np.iinfo(np.int64).min
PADS, AXES = a(1, 0, 2, 0, 3, 1), a(2, 0)
SPREAD = a(0, 2, 1).reshape(3, 1)
NEW = f(3, 4, 5)
CASES: list[tuple[Any, ...]] = [
    ("Concat", (9, 11, 13), [X, X], {"axis": 1}),
    ("Concat", (13,), [X, X, X], {"axis": -1}),
    ("Split", (9, 11), [X], {"axis": 1}, 2),
    ("Split", (11,), [X], {"axis": 2, "split": [1, 4]}, 2),
    ("Split", (13,), [X], {"axis": 1}, 4),
    ("Split", (13, 18), [X, a(3, 2)], {"axis": -1}, 2),
    ("Split", (18,), [X], {"axis": 2, "num_outputs": 3}, 3),
    ("Slice", (9,), [X], {"starts": [1, 0], "ends": [3, -1], "axes": [1, 2]}),
    ("Slice", (9,), [X], {"starts": [1, -3], "ends": [9, 9]}),
    ("Slice", (10, 11, 13), [X, a(1, 0), a(LAST, -1), a(1, 2), a(1, 2)], {}),
    ("Slice", (13,), [X, a(-1, 3), a(FIRST, 0), a(0, -2), a(-1, -2)], {}),
    ("Slice", (13,), [X, a(3), a(3), a(1)], {}),
    ("Slice", (13,), [X, a(1, 1), a(2, 3)], {}),
    ("Gather", (9, 11, 13), [X, ROWS], {}),
    ("Gather", (13,), [X, ROWS], {"axis": -1}),
    ("Gather", (13,), [X, np.array(2)], {"axis": 1}),
    ("GatherElements", (11, 13), [X, PICKS], {}),
    ("GatherElements", (13,), [X, PICKS], {"axis": -2}),
    ("GatherND", (11, 12, 13), [X, a(0, 1, 2, -1).reshape(2, 2)], {}),
    ("GatherND", (12,), [X, a(0, 3, -1).reshape(3, 1)], {"batch_dims": 1}),
    ("GatherND", (12,), [X, rng.integers(0, 5, (3, 4, 1))], {"batch_dims": 2}),
    ("Scatter", (9,), [X, PICKS[:1], NEW[:1]], {"axis": 0}),
    ("ScatterElements", (11, 13), [X, SPREAD[:, :, None] + 0 * PICKS, NEW], {}),
    ("ScatterElements", (16, 18), [X, PICKS, NEW], {"axis": 1, "reduction": "add"}),
    *(("ScatterElements", (18,), [X, PICKS, NEW], {"reduction": r}) for r in ("mul", "min", "max")),
    ("ScatterND", (11, 13), [X, SPREAD, NEW], {}),
    ("ScatterND", (16, 18), [X, a(0, 1, 0, 1).reshape(2, 2), f(2, 5)], {"reduction": "add"}),
    *(("ScatterND", (18,), [X, SPREAD * 0, NEW], {"reduction": r}) for r in ("mul", "min", "max")),
    ("Expand", (9, 13), [f(3, 1), a(2, 1, 4)], {}),
    ("Expand", (13,), [f(3, 4), a(1)], {}),
    ("Tile", (9, 13), [X, a(1, 2, 3)], {}),
    ("DepthToSpace", (9, 11, 13), [f(2, 8, 3, 4)], {"blocksize": 2}),
    ("DepthToSpace", (11,), [f(2, 8, 3, 4)], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", (9, 13), [f(2, 3, 4, 6)], {"blocksize": 2}),
    *(("Pad", (9,), [X], {"pads": [0, 1, 2, 1, 0, 3], "mode": m}) for m in ("constant", "edge", "reflect")),
    ("Pad", (9,), [X], {"pads": [0, 1, 2, 1, 0, 3], "value": 1.5}),
    *(("Pad", (11, 13, 18), [X, PADS], {"mode": m}) for m in ("constant", "edge", "reflect")),
    ("Pad", (19, 24), [X, PADS], {"mode": "wrap"}),
    ("Pad", (13,), [X, a(0, -1, 1, 0, 2, -1), np.float32(0.5)], {}),
    ("Pad", (18,), [X, a(1, 2, 0, 1), np.float32(0.5), AXES], {}),
    ("Pad", (18,), [X, a(1, 2, 0, 1), None, AXES], {"mode": "reflect"}),
    ("Pad", (13,), [X > 0, PADS], {}),
]
UP, DOWN = np.array([1, 1, 2.5, 1.6], np.float32), np.array([1, 1, 0.6, 0.45], np.float32)
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def by_size(*sizes: int) -> list[np.ndarray | None]:
    return [IMAGE, None, None, a(1, 2, *sizes)]


RESIZES: list[tuple[Any, ...]] = [
    *(("Upsample", (9,), [IMAGE, np.array([1, 1, 2, 3], np.float32)], {"mode": m}) for m in ("nearest", "linear")),
    *(("Resize", (10,), [IMAGE, UP], {"mode": m}) for m in ("nearest", "linear")),
    *(
        ("Resize", (13, 18, 19), [IMAGE, None, scale], {"mode": m, "coordinate_transformation_mode": c})
        for m in ("nearest", "linear", "cubic")
        for c in COORDINATES
        for scale in (UP, DOWN)
    ),
    *(
        ("Resize", (19,), by_size(9, 8), {"nearest_mode": n, "coordinate_transformation_mode": c})
        for n in ROUNDINGS
        for c in COORDINATES
    ),
    *(("Resize", (19,), by_size(3, 11), {"mode": m}) for m in ("nearest", "linear", "cubic")),
    ("Resize", (11,), [IMAGE, np.zeros(0, np.float32), UP], {"mode": "linear"}),
    (
        "Resize",
        (11,),
        [IMAGE, np.zeros(0, np.float32), UP],
        {"coordinate_transformation_mode": "tf_half_pixel_for_nn"},
    ),
    (
        "Resize",
        (19,),
        by_size(9, 1),
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    ),
    ("Resize", (19,), by_size(9, 8), {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}),
    (
        "Resize",
        (19,),
        [IMAGE, None, UP],
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"},
    ),
    ("Resize", (18,), [IMAGE, None, None, a(8, 9)], {"mode": "linear", "axes": [2, 3]}),
    ("Resize", (18,), [f(2, 3, 7), None, np.array([1, 1, 2], np.float32)], {"mode": "linear"}),
]
CASES += RESIZES


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_indexing(case: tuple[Any, ...], same_as_onnxruntime: Callable[..., None]) -> None:
    same_as_onnxruntime(*case)


@pytest.mark.parametrize(
    "attributes",
    [
        {"mode": "linear", "antialias": 1},
        {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"},
        {"mode": "linear", "keep_aspect_ratio_policy": "not_larger"},
    ],
    ids=str,
)
def test_inexact_resizes_are_refused(attributes: dict[str, Any], build_node: Callable[..., Any]) -> None:
    roi = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32)
    graph, _ = build_node("Resize", 18, [IMAGE, roi, None, a(1, 2, 3, 3)], attributes, 1)
    with pytest.raises(UnsupportedOperator, match="Resize of opset 18 with"):
        TorchGraph(graph)
