"""Matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta.graph.ops.registry import Node, operator


@operator("Gemm")
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """``alpha * A' B' + beta * C`` with optional transposes; A' is [m, k], B' is [k, n]."""
    alpha, beta = node.float("alpha", 1.0), node.float("beta", 1.0)
    if node.int("transA", 0):
        a = a.T
    weight = b if node.int("transB", 0) else b.T
    if alpha != 1.0:
        weight = weight * alpha
    if c is None or beta == 0.0:
        return F.linear(a, weight)
    if beta != 1.0:
        c = c * beta
    fused = c.dim() == 1 and c.shape[0] == weight.shape[0]
    return F.linear(a, weight, c) if fused else F.linear(a, weight) + c


@operator("MatMul")
def matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Matrix product with numpy's broadcasting."""
    return torch.matmul(a, b)


@operator("Einsum")
def einsum(node: Node, *operands: Tensor) -> Tensor:
    """Einstein summation; ONNX and torch share the equation's grammar."""
    return torch.einsum(node.text("equation", ""), *operands)
