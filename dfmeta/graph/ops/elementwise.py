"""Arithmetic, comparison and logic, element by element."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from dfmeta.graph.ops.registry import Node, operator


@operator("Add")
def add(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """A + b."""
    return a + b


@operator("Sub")
def sub(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """A - b."""
    return a - b


@operator("Mul")
def mul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """A b."""
    return a * b


@operator("Div")
def div(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """A / b; integers are cut towards zero."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Mod", since=10)
def mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Remainder with the sign of ``b``, or with ``fmod`` the sign of ``a``."""
    return torch.fmod(a, b) if node.int("fmod", 0) else torch.remainder(a, b)


@operator("Pow")
def power(node: Node, base: Tensor, exponent: Tensor) -> Tensor:
    """Base ^ exponent, in the type of the base."""
    if exponent.numel() == 1 and not exponent.requires_grad and exponent.dim() <= base.dim():
        return torch.pow(base, exponent.reshape(()).to(base.dtype))
    return torch.pow(base, exponent).to(base.dtype)


@operator("Sum")
def add_all(node: Node, *terms: Tensor) -> Tensor:
    """Sum of all inputs."""
    return functools.reduce(torch.add, terms)


@operator("Mean")
def mean_of_all(node: Node, *terms: Tensor) -> Tensor:
    """Mean of all inputs."""
    return functools.reduce(torch.add, terms) / len(terms)


@operator("Max")
def largest(node: Node, *terms: Tensor) -> Tensor:
    """Largest of all inputs."""
    return functools.reduce(torch.maximum, terms)


@operator("Min")
def smallest(node: Node, *terms: Tensor) -> Tensor:
    """Smallest of all inputs."""
    return functools.reduce(torch.minimum, terms)


@operator("Reciprocal")
def reciprocal(node: Node, x: Tensor) -> Tensor:
    """1 / x."""
    return torch.reciprocal(x)


@operator("Clip")
def clip_attribute(node: Node, x: Tensor) -> Tensor:
    """X within [min, max]."""
    return x.clamp(node.float("min", -math.inf), node.float("max", math.inf))


@operator("Clip", since=11)
def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """X within [low, high], either of which may be left out."""
    # The gradient of what lies on an end passes whole, as that of what lies between does.
    if low is not None:
        x = x.clamp(min=low.to(x.dtype))
    return x if high is None else x.clamp(max=high.to(x.dtype))


_UNARY: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Sign": torch.sign,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,  # half to even, as ONNX asks
    "Sqrt": torch.sqrt,
    "Exp": torch.exp,
    "Log": torch.log,
    "Erf": torch.erf,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Asin": torch.asin,
    "Acos": torch.acos,
    "Atan": torch.atan,
    "Sinh": torch.sinh,
    "Cosh": torch.cosh,
    "Asinh": torch.asinh,
    "Acosh": torch.acosh,
    "Atanh": torch.atanh,
    "Not": torch.logical_not,
    "BitwiseNot": torch.bitwise_not,
    "IsNaN": torch.isnan,
}


@operator(*_UNARY)
def unary(node: Node, x: Tensor) -> Tensor:
    """The function of that name, of each element."""
    return _UNARY[node.op](x)


_BINARY: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "Equal": torch.eq,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}


@operator(*_BINARY)
def binary(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The comparison or logical function of that name, of each pair of elements."""
    return _BINARY[node.op](a, b)


@operator("IsInf", since=10)
def is_inf(node: Node, x: Tensor) -> Tensor:
    """Whether an element is infinite, of the signs asked for."""
    negative = torch.isneginf(x) if node.int("detect_negative", 1) else torch.zeros_like(x, dtype=torch.bool)
    return negative | torch.isposinf(x) if node.int("detect_positive", 1) else negative


@operator("Where")
def where(node: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A where the condition holds, b elsewhere."""
    return torch.where(condition, a, b)


@operator("Cast")
def cast(node: Node, x: Tensor) -> Tensor:
    """X in another element type; floating numbers are cut towards zero when they become integers."""
    return x.to(node.dtype(node.output_types[0]))


@operator("CastLike", since=15)
def cast_like(node: Node, x: Tensor, like: Tensor) -> Tensor:
    """X in the element type of another value."""
    return x.to(node.dtype(node.output_types[0]))
