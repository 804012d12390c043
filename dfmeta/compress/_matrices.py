"""The weight of an operator as a matrix ``[g, o, d]``: how each operator lays out its rows and columns."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dfmeta.graph.operator_inputs import OperatorInput

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def matrix(entry: OperatorInput, array: Array, operand: int, settings: Mapping[str, object]) -> tuple[Array, bool, int]:
    """A weight as a matrix.

    Args:
        entry: its operator.
        array: the initializer.
        operand: which operand of the operator it is.
        settings: the operator's attributes.

    Returns:
        ``[g, o, d]``, whether features come before outputs in the array, and its axis of scales.
    """
    shape = array.shape
    if entry.op == "Conv":
        return array.reshape(entry.groups, shape[0] // entry.groups, -1), False, 0
    if entry.op == "ConvTranspose":
        return array.reshape(entry.groups, shape[0] // entry.groups, -1).swapaxes(1, 2), True, 1
    if entry.op == "Gemm":
        turned = bool(settings.get("transB" if operand == 1 else "transA", 0))
        transposed = turned != (operand == 1)
    else:
        transposed = operand == 1
    if array.ndim == 1:
        return array.reshape(1, 1, -1), False, 0
    stacked = array.reshape(math.prod(shape[:-2]), *shape[-2:])
    axis = array.ndim - (1 if transposed else 2)
    return (stacked.swapaxes(1, 2) if transposed else stacked), transposed, axis


def rows(entry: OperatorInput, weight: Array, shape: tuple[int, ...]) -> tuple[Indices, Indices]:
    """Of each row ``[g, o]``, its place along the axis of scales, and its channel of the output.

    Args:
        entry: the operator.
        weight: ``[g, o, d]``.
        shape: of the initializer.
    """
    groups, count = weight.shape[:2]
    if entry.op == "ConvTranspose":
        channel = np.arange(count) // math.prod(shape[2:])
        return np.tile(channel, (groups, 1)), channel + shape[1] * np.arange(groups)[:, None]
    if entry.op == "Conv":
        channels = np.arange(groups * count).reshape(groups, count)
        return channels, channels
    if len(shape) == 1:
        return np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64)
    channels = np.tile(np.arange(count), (groups, 1))
    return channels, channels


def by_channel(shape: tuple[int | str, ...], op: str, operand: int, outputs: int) -> bool:
    """Whether a bias of this shape has one number for each of the outputs, or one for all."""
    if "Conv" in op or math.prod(int(size) for size in shape) == 1:
        return True
    last = shape[-1:] if operand == 1 else (shape[-2:-1] if shape[-1] == 1 else ())
    return last == (outputs,) and math.prod(int(size) for size in shape) == outputs
