"""Activation functions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta.graph.ops.registry import Node, operator


@operator("Relu")
def relu(node: Node, x: Tensor) -> Tensor:
    """max(x, 0)."""
    return F.relu(x)


@operator("LeakyRelu")
def leaky_relu(node: Node, x: Tensor) -> Tensor:
    """x, or alpha x where negative."""
    return F.leaky_relu(x, node.float("alpha", 0.01))


@operator("PRelu")
def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """x, or slope x where negative; ``slope`` broadcasts to ``x``."""
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def elu(node: Node, x: Tensor) -> Tensor:
    """x, or alpha (e^x - 1) where negative."""
    return F.elu(x, node.float("alpha", 1.0))


@operator("Selu")
def selu(node: Node, x: Tensor) -> Tensor:
    """Gamma x, or gamma alpha (e^x - 1) where not positive."""
    return node.float("gamma", 1.0507010221481323) * F.elu(x, node.float("alpha", 1.6732631921768188))


@operator("Celu")
def celu(node: Node, x: Tensor) -> Tensor:
    """max(x, 0) + min(0, alpha (e^(x / alpha) - 1))."""
    return F.celu(x, node.float("alpha", 1.0))


@operator("ThresholdedRelu")
def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    """X where it exceeds alpha, 0 elsewhere."""
    return torch.where(x > node.float("alpha", 1.0), x, torch.zeros_like(x))


@operator("Shrink")
def shrink(node: Node, x: Tensor) -> Tensor:
    """X moved by ``bias`` towards 0 where its magnitude exceeds ``lambd``, 0 elsewhere."""
    bias, limit = node.float("bias", 0.0), node.float("lambd", 0.5)
    zero = torch.zeros_like(x)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero)).to(x.dtype)


@operator("HardSigmoid")
def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    """Alpha x + beta, clipped to [0, 1]."""
    return (x * node.float("alpha", 0.2) + node.float("beta", 0.5)).clamp(0.0, 1.0)


@operator("HardSwish", since=14)
def hard_swish(node: Node, x: Tensor) -> Tensor:
    """X times HardSigmoid with alpha 1/6 and beta 1/2."""
    return F.hardswish(x)


@operator("Mish", since=18)
def mish(node: Node, x: Tensor) -> Tensor:
    """X tanh(softplus(x))."""
    return F.mish(x)


@operator("Gelu", since=20)
def gelu(node: Node, x: Tensor) -> Tensor:
    """Gaussian error linear unit, exact or by the tanh formula."""
    return F.gelu(x, approximate=node.text("approximate", "none"))


@operator("Swish", since=24)
def swish(node: Node, x: Tensor) -> Tensor:
    """X sigmoid(alpha x)."""
    return x * torch.sigmoid(x * node.float("alpha", 1.0))


@operator("Sigmoid")
def sigmoid(node: Node, x: Tensor) -> Tensor:
    """Logistic function."""
    return torch.sigmoid(x)


@operator("Tanh")
def tanh(node: Node, x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return torch.tanh(x)


@operator("Softplus")
def softplus(node: Node, x: Tensor) -> Tensor:
    """ln(1 + e^x), without overflow and without a cut-off."""
    return torch.logaddexp(x, torch.zeros_like(x))


@operator("Softsign")
def softsign(node: Node, x: Tensor) -> Tensor:
    """X / (1 + |x|)."""
    return x / (1 + x.abs())


def _flattened(node: Node, x: Tensor) -> Tensor:
    """Before opset 13 these operators saw a matrix: the axes before ``axis`` by the axes from it on."""
    axis = node.int("axis", 1) % max(x.dim(), 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


@operator("Softmax")
def softmax_flattened(node: Node, x: Tensor) -> Tensor:
    """Softmax over all axes from ``axis`` on together."""
    return torch.softmax(_flattened(node, x), 1).reshape(x.shape)


@operator("LogSoftmax")
def log_softmax_flattened(node: Node, x: Tensor) -> Tensor:
    """Logarithm of softmax over all axes from ``axis`` on together."""
    return torch.log_softmax(_flattened(node, x), 1).reshape(x.shape)


@operator("Hardmax")
def hardmax_flattened(node: Node, x: Tensor) -> Tensor:
    """1 at the first largest element of all axes from ``axis`` on together, 0 elsewhere."""
    return _one_hot(_flattened(node, x), 1).reshape(x.shape)


@operator("Softmax", since=13)
def softmax(node: Node, x: Tensor) -> Tensor:
    """Softmax along one axis."""
    return torch.softmax(x, node.int("axis", -1))


@operator("LogSoftmax", since=13)
def log_softmax(node: Node, x: Tensor) -> Tensor:
    """Logarithm of softmax along one axis."""
    return torch.log_softmax(x, node.int("axis", -1))


@operator("Hardmax", since=13)
def hardmax(node: Node, x: Tensor) -> Tensor:
    """1 at the first largest element along one axis, 0 elsewhere."""
    return _one_hot(x, node.int("axis", -1))


def _one_hot(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)
