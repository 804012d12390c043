"""Quantizers and integer arithmetic.

Quantized values are *carried* as floating numbers that happen to be whole, so that a gradient can pass:
straight through the rounding, and only where nothing saturated (Bengio et al., 2013, arXiv:1308.3432; Jacob
et al., 2018, arXiv:1712.05877). Sums of integer products are taken in float64, which holds them exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dfmeta.graph.dtypes import INTEGER_RANGES
from dfmeta.graph.ops.convolution import conv
from dfmeta.graph.ops.registry import Node, operator


def _not_integer(node: Node) -> str:
    name = node.output_types[0] if node.op == "QuantizeLinear" else node.input_types[0]
    if name not in INTEGER_RANGES:
        return f"element type {name}"
    return "attribute precision" if node.int("precision", 0) else ""


def _aligned(node: Node, factor: Tensor, x: Tensor) -> Tensor:
    """A scale or zero point that broadcasts with ``x``: for the whole tensor, along an axis, or by blocks."""
    axis = node.int("axis", 1)
    block = node.int("block_size", 0)
    if block and factor.dim() == x.dim():
        return factor.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if factor.numel() == 1:
        return factor.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return factor.reshape(shape)


def _straight_through(x: Tensor) -> Tensor:
    """``x`` rounded half to even, with the gradient of ``x``; exact: the difference is representable."""
    return x + (torch.round(x) - x).detach()


def _quantized(scaled: Tensor, zero: Tensor | float, name: str) -> Tensor:
    low, high = INTEGER_RANGES[name]
    return (_straight_through(scaled) + zero).clamp(low, high)


def _exact(x: Tensor, zero: Tensor | None) -> Tensor:
    """``x - zero`` in float64."""
    wide = x.to(torch.float64)
    return wide if zero is None else wide - zero.to(torch.float64)


@operator("QuantizeLinear", since=10, refuse=_not_integer)
def quantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """saturate(round(x / scale) + zero), with a straight-through gradient."""
    offset: Tensor | float = 0.0 if zero is None else _aligned(node, zero, x).to(x.dtype)
    return _quantized(x / _aligned(node, scale, x).to(x.dtype), offset, node.output_types[0])


@operator("DequantizeLinear", since=10, refuse=_not_integer)
def dequantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """(x - zero) scale."""
    dtype = node.dtype(node.output_types[0])
    wide = x if x.is_floating_point() else x.to(torch.int64)
    if zero is not None:
        wide = wide - _aligned(node, zero, x).to(wide.dtype)
    return wide.to(dtype) * _aligned(node, scale, x).to(dtype)


@operator("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(node: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` as uint8 with a scale and zero point from its own range, which is widened to hold 0."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    zero = _quantized(-low / scale, 0.0, "uint8")
    return _quantized(x / scale, zero, "uint8"), scale, zero


@operator("MatMulInteger", since=10)
def matmul_integer(
    node: Node, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """Product of integer matrices after taking off their zero points (one for each row of a, column of b)."""
    if a_zero is not None and a_zero.dim() == 1 and a_zero.numel() > 1:
        a_zero = a_zero.unsqueeze(-1)
    return torch.matmul(_exact(a, a_zero), _exact(b, b_zero))


def _by_channel(factor: Tensor, rank: int) -> Tensor:
    return factor.reshape(-1, *[1] * (rank - 1)) if factor.numel() > 1 else factor.reshape(())


@operator("ConvInteger", since=10)
def conv_integer(
    node: Node, x: Tensor, weight: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    """Convolution of integers after taking off their zero points."""
    w_zero = None if w_zero is None else _by_channel(w_zero, weight.dim())
    return conv(node, _exact(x, x_zero), _exact(weight, w_zero))


@operator("QLinearMatMul", since=10)
def qlinear_matmul(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """Product of quantized matrices, quantized again."""
    total = matmul_integer(node, a, b, a_zero, b_zero)
    rows = a_scale.unsqueeze(-1) if a_scale.dim() == 1 and a_scale.numel() > 1 else a_scale
    return _quantized(total * (rows * b_scale / y_scale), y_zero.to(total.dtype), node.output_types[0])


@operator("QLinearConv", since=10)
def qlinear_conv(
    node: Node,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    weight: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolution of quantized values, quantized again; the bias is an integer at scale x times w."""
    total = conv_integer(node, x, weight, x_zero, w_zero)
    channels = [-1, *[1] * (weight.dim() - 2)]
    if bias is not None:
        total = total + bias.to(total.dtype).reshape(channels)
    factor = x_scale * w_scale / y_scale
    factor = factor.reshape(channels) if factor.numel() > 1 else factor.reshape(())
    return _quantized(total * factor, y_zero.to(total.dtype), node.output_types[0])
