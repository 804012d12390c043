"""What a graph that learns needs beyond one that runs: batch statistics, and the way back to a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from dfmeta.errors import GraphError
from dfmeta.graph.inference import node_label
from dfmeta.graph.load import Graph
from dfmeta.graph.ops.normalization import batch_normalization_in_training
from dfmeta.graph.plan import Step


def running_statistics(graph: Graph) -> frozenset[str]:
    """Names of the tensors that hold the running means and variances of BatchNormalization.

    Raises:
        GraphError: statistics that the graph computes, so that there is nothing to update.
    """
    found: set[str] = set()
    for index, node in enumerate(graph.model.graph.node):
        if node.op_type != "BatchNormalization":
            continue
        for name in node.input[3:5]:
            if name not in graph.initializers:
                raise GraphError(
                    f"{graph.where}: {node_label(node, index)}",
                    f"running statistics {name!r} that the graph computes",
                    "tensors of the file",
                    "Export the graph again with its constants folded.",
                )
            found.add(name)
    return frozenset(found)


def in_training(step: Step) -> Step:
    """The step, with BatchNormalization in its training form; other operators behave alike in both modes."""
    if step.node.op != "BatchNormalization":
        return step
    return dataclasses.replace(
        step, operator=dataclasses.replace(step.operator, function=batch_normalization_in_training)
    )


def with_values(graph: Graph, values: Mapping[str, Tensor | np.ndarray]) -> Graph:
    """The same graph with other values for some of its initializers, each in the file's own element type.

    Args:
        graph: stays as it is.
        values: by name; floating tensors of the shapes that the file has.

    Raises:
        GraphError: an unknown name or another shape.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    places = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, value in values.items():
        if name not in places:
            raise GraphError(graph.where, f"no tensor {name!r}", "the name of an initializer")
        array = value.detach().cpu().to(torch.float64).numpy() if isinstance(value, Tensor) else value
        before = graph.initializers[name]
        if array.shape != before.shape:
            raise GraphError(
                f"{graph.where}: tensor {name!r}", f"shape {list(array.shape)}", f"shape {list(before.shape)}"
            )
        places[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array.astype(before.dtype)), name))
    return Graph.from_bytes(model.SerializeToString(deterministic=True), graph.where)
