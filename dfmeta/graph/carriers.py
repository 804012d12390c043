"""The torch type that carries each of ONNX's element types.

Torch has no arithmetic on a few of ONNX's integers, so a wider type *carries* them: the values are exact, and
the operators that saturate (``QuantizeLinear``) look at the ONNX name, never at the carrier.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from dfmeta.errors import UnsupportedOperator

CARRIERS: Final[dict[str, torch.dtype]] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "uint16": torch.int32,
    "uint32": torch.int64,
    "int4": torch.int8,
    "uint4": torch.uint8,
    "bool": torch.bool,
}


def to_torch(array: np.ndarray, where: str) -> torch.Tensor:
    """A tensor with its own copy of ``array``, in the carrier type of its element type.

    Raises:
        UnsupportedOperator: an element type that no torch type carries (text, complex numbers, 8-bit floats).
    """
    name = array.dtype.name
    if name not in CARRIERS:
        raise UnsupportedOperator(
            where, f"element type {name}", f"one of {', '.join(CARRIERS)}", "Export the model in float32."
        )
    if name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    plain = array.astype(str(CARRIERS[name]).removeprefix("torch."), order="C", copy=True)
    return torch.from_numpy(plain)
