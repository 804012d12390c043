"""What the layers of a network read, from the data itself: the slow way round, in float64, without any record.

The networks of these tests are chains of a few operators, which are written out here once more. Nothing of the package
is used, so that what it says of records can be held against this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """One weight operator and all that it ever multiplied.

    Attributes:
        weight: ``[o, d]`` float64 of the float32 numbers that a graph with folded normalisation has.
        bias: ``[o]``.
        mean: ``[d]`` of the samples.
        samples: ``[d, d]`` or ``[n, d]``: the n samples less their mean, over the root of n. Where there are more
            samples than features, the triangular factor of them: turned by an orthogonal matrix, which changes no inner
            product of two columns.
        kernel: of a convolution.
    """

    weight: Array
    bias: Array
    mean: Array
    samples: Array
    kernel: tuple[int, ...]


def layers(model: onnx.ModelProto, images: np.ndarray) -> list[Layer]:
    """Every Conv and Gemm of a chain, in its order.

    Args:
        model: of Conv, BatchNormalization, Relu, MaxPool, Flatten and Gemm, one after the other.
        images: ``[n, c, h, w]``, preprocessed.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    value, found = torch.from_numpy(images.astype(np.float64)), []
    nodes = list(model.graph.node)
    for place, node in enumerate(nodes):
        settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type in ("Conv", "Gemm"):
            weight, bias = constants[node.input[1]], constants.get("".join(node.input[2:]), np.zeros(1))
            if node.op_type == "Gemm" and not settings.get("transB", 0):
                weight = weight.T
            found.append(_layer(folded(weight, bias, nodes[place + 1 : place + 2], constants), value, settings))
        value = output(node.op_type, [constants.get(name) for name in node.input[1:]], value, settings)
    return found


def folded(
    weight: Array, bias: Array, following: list[onnx.NodeProto], constants: Mapping[str, Array]
) -> tuple[Array, Array]:
    """The weight and bias with the normalisation that comes next, as float32 has them."""
    if following and following[0].op_type == "BatchNormalization":
        gain, shift, mean, variance = (constants[name] for name in following[0].input[1:])
        epsilon = [attribute.f for attribute in following[0].attribute if attribute.name == "epsilon"]
        factor = gain / np.sqrt(variance + (epsilon[0] if epsilon else 1e-5))
        weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        bias = (bias - mean) * factor + shift
    bias = np.broadcast_to(bias, len(weight))
    return weight.astype(np.float32).astype(np.float64), bias.astype(np.float32).astype(np.float64)


def _layer(parameters: tuple[Array, Array], value: Tensor, settings: Mapping[str, object]) -> Layer:
    weight, bias = parameters
    kernel, rows = weight.shape[2:], value
    if kernel:
        patches = F.unfold(F.pad(value, pads(settings)), list(kernel), stride=list(settings.get("strides", [1, 1])))  # type: ignore[call-overload]
        rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
    return layer_of(weight.reshape(len(weight), -1), bias, rows.numpy(), kernel)


def layer_of(weight: Array, bias: Array, rows: Array, kernel: tuple[int, ...] = ()) -> Layer:
    """A layer from samples ``[n, d]`` of what it reads."""
    mean = rows.mean(0)
    around = (rows - mean) / np.sqrt(len(rows))
    samples = np.linalg.qr(around, mode="r") if len(rows) > rows.shape[1] else around
    return Layer(weight, bias, mean, samples, kernel)


def pads(settings: Mapping[str, object]) -> list[int]:
    """In torch's order, the last axis first."""
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])  # type: ignore[misc]
    return [left, right, top, bottom]


def output(op: str, operands: list[Array | None], value: Tensor, settings: Mapping[str, object]) -> Tensor:
    """What one operator of a chain makes."""
    constants = [torch.from_numpy(array.copy()) for array in operands if array is not None]
    if op == "Conv":
        return F.conv2d(F.pad(value, pads(settings)), *constants, stride=list(settings.get("strides", [1, 1])))  # type: ignore[call-overload]
    if op == "BatchNormalization":
        gain, shift, mean, variance = constants
        return F.batch_norm(value, mean, variance, gain, shift, eps=float(settings.get("epsilon", 1e-5)))  # type: ignore[arg-type]
    if op == "Relu":
        return value.relu()
    if op == "MaxPool":
        return F.max_pool2d(value, settings["kernel_shape"], settings["strides"])  # type: ignore[arg-type]
    if op == "Flatten":
        return value.flatten(1)
    if op == "Gemm":
        return F.linear(value, constants[0] if settings.get("transB", 0) else constants[0].T, *constants[1:])
    raise NotImplementedError(op)
