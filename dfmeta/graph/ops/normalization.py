"""Normalizations, with the semantics of evaluation; BatchNormalization in its training form too."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta.graph.ops.registry import Node, operator

BATCH_MOMENTUM = 0.1


def _training(node: Node) -> str:
    return "training outputs" if node.int("training_mode", 0) or any(node.outputs[1:]) else ""


@operator("BatchNormalization", refuse=_training)
def batch_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Scale (x - mean) / sqrt(var + epsilon) + bias with stored statistics, by channel of [n, c, ...]."""
    epsilon = node.float("epsilon", 1e-5)
    if not (mean.requires_grad or var.requires_grad):
        return F.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)
    by_channel = [-1, *[1] * (x.dim() - 2)]
    factor = scale * torch.rsqrt(var + epsilon)
    return (x - mean.reshape(by_channel)) * factor.reshape(by_channel) + bias.reshape(by_channel)


def batch_normalization_in_training(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    """As :func:`batch_normalization` with the batch's own mean and biased variance, as torch trains.

    ``mean`` and ``var`` are updated in place: nine tenths of them, and a tenth of the batch's mean and unbiased
    variance (torch's momentum of 0.1; ONNX's ``momentum`` attribute, which exporters fill with it, is not read).

    Raises:
        ValueError: one value for each channel, which has no variance.
    """
    return F.batch_norm(x, mean, var, scale, bias, True, BATCH_MOMENTUM, node.float("epsilon", 1e-5))


@operator("InstanceNormalization")
def instance_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each plane of [n, c, ...] to mean 0 and variance 1, then scaled and shifted by channel."""
    return F.instance_norm(x, weight=scale, bias=bias, eps=node.float("epsilon", 1e-5))


@operator("LayerNormalization", since=17)
def layer_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """The axes from ``axis`` on to mean 0 and variance 1; the mean and 1/deviation are optional outputs."""
    shape = list(x.shape[node.int("axis", -1) :])
    epsilon = node.float("epsilon", 1e-5)
    if list(scale.shape) == shape and (bias is None or list(bias.shape) == shape):
        y = F.layer_norm(x, shape, scale, bias, epsilon)
    else:
        y = F.layer_norm(x, shape, eps=epsilon) * scale
        y = y if bias is None else y + bias
    if not any(node.outputs[1:]):
        return y
    axes = list(range(x.dim() - len(shape), x.dim()))
    mean = x.mean(axes, keepdim=True)
    return y, mean, torch.rsqrt((x - mean).square().mean(axes, keepdim=True) + epsilon)


@operator("GroupNormalization", since=18)
def group_normalization_by_group(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Groups of channels to mean 0 and variance 1; one scale and one bias for each *group*."""
    groups = node.int("num_groups", 1)
    each = x.shape[1] // groups
    scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return F.group_norm(x, groups, scale, bias, node.float("epsilon", 1e-5))


@operator("GroupNormalization", since=21)
def group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Groups of channels to mean 0 and variance 1; one scale and one bias for each *channel*."""
    return F.group_norm(x, node.int("num_groups", 1), scale, bias, node.float("epsilon", 1e-5))


@operator("RMSNormalization", since=23)
def rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    """The axes from ``axis`` on divided by their root mean square, then scaled."""
    axes = list(range(node.int("axis", -1) % x.dim(), x.dim()))
    square = x.square().mean(axes, keepdim=True)
    return x * torch.rsqrt(square + node.float("epsilon", 1e-5)) * scale


@operator("LRN")
def local_response_normalization(node: Node, x: Tensor) -> Tensor:
    """X / (bias + alpha / size * sum of squares over nearby channels) ^ beta."""
    size = node.int("size", 1)
    before = (size - 1) // 2
    squares = F.pad(x.square().flatten(2).transpose(1, 2), (before, size - 1 - before))
    total = squares.unfold(2, size, 1).sum(-1).transpose(1, 2).reshape(x.shape)
    return x / (node.float("bias", 1.0) + node.float("alpha", 1e-4) / size * total) ** node.float("beta", 0.75)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    """(x - mean) / (deviation + 1e-9) over ``axes``."""
    axes = node.ints("axes", [0, 2, 3])
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


@operator("LpNormalization")
def lp_normalization(node: Node, x: Tensor) -> Tensor:
    """X divided by its p-norm along one axis; zero where the norm is."""
    axis = node.int("axis", -1)
    norm = torch.linalg.vector_norm(x, node.int("p", 2), axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, 1.0, norm))
