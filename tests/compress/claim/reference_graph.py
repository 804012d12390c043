"""What the layers of any small graph read, from the data itself: with branches, groups and products of matrices.

As in :mod:`reference_data`, nothing of the package is used.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from reference_data import Layer, folded, layer_of, output, pads


def layers_of(model: onnx.ModelProto, images: np.ndarray) -> dict[str, list[Layer]]:
    """Every Conv and MatMul by its name, a layer for each group of a convolution.

    Args:
        model: of Conv, BatchNormalization, Relu, Add, GlobalAveragePool, Flatten and MatMul.
        images: ``[n, c, h, w]``, preprocessed.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    values = {model.graph.input[0].name: torch.from_numpy(images.astype(np.float64))}
    values |= {name: torch.from_numpy(array.copy()) for name, array in constants.items()}
    nodes, found = list(model.graph.node), {}
    for place, node in enumerate(nodes):
        settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        given = [values[name] for name in node.input]
        if node.op_type == "Conv":
            weight, bias = constants[node.input[1]], constants.get("".join(node.input[2:]), np.zeros(1))
            found[node.name] = _groups(
                *folded(weight, bias, nodes[place + 1 : place + 2], constants), given[0], settings
            )
        elif node.op_type == "MatMul":
            following = nodes[place + 1].input[1] if place + 1 < len(nodes) else ""
            bias = np.broadcast_to(constants.get(following, np.zeros(1)), given[1].shape[1])
            found[node.name] = [layer_of(given[1].numpy().T, bias, given[0].numpy())]
        if node.op_type == "Conv" and settings.get("group", 1) > 1:
            strides = settings.get("strides", [1, 1])
            made = F.conv2d(F.pad(given[0], pads(settings)), *given[1:], stride=strides, groups=settings["group"])
        elif node.op_type in ("Add", "MatMul", "GlobalAveragePool"):
            made = {"Add": torch.add, "MatMul": torch.matmul}.get(node.op_type, _averaged)(*given)
        else:
            made = output(node.op_type, [constants.get(name) for name in node.input[1:]], given[0], settings)
        values[node.output[0]] = made
    return found


def _averaged(value: torch.Tensor) -> torch.Tensor:
    return value.mean((2, 3), keepdim=True)


def _groups(weight: np.ndarray, bias: np.ndarray, value: torch.Tensor, settings: dict[str, object]) -> list[Layer]:
    """Each group of a convolution reads channels of its own."""
    count = int(settings.get("group", 1))  # type: ignore[call-overload]
    found = []
    for part, rows, offsets in zip(value.chunk(count, 1), np.split(weight, count), np.split(bias, count), strict=True):
        strides = list(settings.get("strides", [1, 1]))  # type: ignore[call-overload]
        patches = F.unfold(F.pad(part, pads(settings)), list(weight.shape[2:]), stride=strides)
        samples = patches.transpose(1, 2).reshape(-1, patches.shape[1]).numpy()
        found.append(layer_of(rows.reshape(len(rows), -1), offsets, samples, weight.shape[2:]))
    return found
