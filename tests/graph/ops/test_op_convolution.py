"""Conv and ConvTranspose against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

rng = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


IMAGE = f(2, 4, 9, 8)
CASES: list[tuple[Any, ...]] = [
    ("Conv", (9, 11, 22, 24), [IMAGE, f(6, 4, 3, 3), f(6)], {}),
    ("Conv", (18,), [IMAGE, f(6, 4, 3, 3)], {"pads": [1, 1, 1, 1], "strides": [2, 1]}),
    ("Conv", (18,), [IMAGE, f(6, 4, 3, 2), f(6)], {"pads": [0, 1, 2, 3], "strides": [2, 2]}),
    ("Conv", (18,), [IMAGE, f(6, 2, 3, 3)], {"group": 2, "dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    ("Conv", (18,), [IMAGE, f(8, 1, 3, 3), f(8)], {"group": 4, "kernel_shape": [3, 3]}),
    ("Conv", (11, 22), [IMAGE, f(6, 4, 4, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", (11, 22), [IMAGE, f(6, 4, 4, 3)], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("Conv", (18,), [IMAGE, f(6, 4, 3, 3)], {"auto_pad": "VALID"}),
    ("Conv", (18,), [f(2, 3, 11), f(5, 3, 4), f(5)], {"pads": [2, 1], "strides": [2]}),
    ("Conv", (18,), [f(1, 2, 5, 6, 7), f(3, 2, 3, 2, 3), f(3)], {"pads": [1, 0, 1, 1, 1, 0]}),
    ("ConvTranspose", (9, 11, 22), [IMAGE, f(4, 3, 3, 3), f(3)], {}),
    ("ConvTranspose", (18,), [IMAGE, f(4, 3, 3, 3)], {"strides": [2, 3], "pads": [1, 0, 0, 1]}),
    ("ConvTranspose", (18,), [IMAGE, f(4, 3, 3, 3), f(3)], {"strides": [2, 2], "output_padding": [1, 0]}),
    ("ConvTranspose", (18,), [IMAGE, f(4, 3, 3, 3)], {"strides": [2, 2], "output_shape": [19, 18]}),
    ("ConvTranspose", (18,), [IMAGE, f(4, 3, 3, 3)], {"strides": [2, 2], "output_shape": [18, 15]}),
    (
        "ConvTranspose",
        (18,),
        [IMAGE, f(4, 3, 3, 3)],
        {"strides": [2, 2], "output_shape": [18, 16], "auto_pad": "SAME_UPPER"},
    ),
    ("ConvTranspose", (18,), [IMAGE, f(4, 2, 3, 3), f(4)], {"group": 2, "dilations": [2, 1]}),
    ("ConvTranspose", (18,), [IMAGE, f(4, 3, 4, 4)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", (18,), [IMAGE, f(4, 3, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("ConvTranspose", (18,), [f(2, 3, 7), f(3, 4, 3), f(4)], {"strides": [2], "pads": [1, 1]}),
    ("ConvTranspose", (18,), [f(1, 2, 3, 4, 3), f(2, 3, 2, 3, 2)], {"strides": [2, 1, 2]}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_convolution(case: tuple[Any, ...], same_as_onnxruntime: Callable[..., None]) -> None:
    same_as_onnxruntime(*case)
