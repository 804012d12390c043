"""Element types: ONNX's numbers, their names, and what they hold."""

from __future__ import annotations

from typing import Final

import onnx

_NAMES: Final[dict[int, str]] = {
    number: name.lower() for name, number in onnx.TensorProto.DataType.items() if name != "UNDEFINED"
} | {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
}

FLOATS: Final = frozenset({"float32", "float64", "float16", "bfloat16"})

INTEGER_RANGES: Final[dict[str, tuple[int, int]]] = {
    f"{sign}int{bits}": ((0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    for sign in ("", "u")
    for bits in (4, 8, 16, 32)
}


def name_of(number: int) -> str:
    """ONNX's element type number as a lower-case name (``float32``); ``undefined`` when unknown."""
    return _NAMES.get(number, "undefined")
