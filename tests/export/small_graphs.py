"""Graphs of a few nodes, from ``x`` to ``y``."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dfmeta.graph import Graph


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node that is called as its output; inputs are named with one space between them."""
    return helper.make_node(operator, inputs.split(" "), [output], name=output, **attributes)


def graph_of(
    nodes: list[onnx.NodeProto],
    shape: list[int | str] | None = None,
    opset: int = 18,
    ir_version: int = 8,
    dtype: int = TensorProto.FLOAT,
    **constants: np.ndarray,
) -> Graph:
    """A graph that passed the gate; the shape of ``y`` is inferred.

    Args:
        nodes: in order.
        shape: of ``x``; ``[1, 16, 8, 8]`` where none is given.
        opset: of the default domain.
        ir_version: of the container.
        dtype: of ``x``.
        **constants: initializers by name.
    """
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, shape or [1, 16, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    described = onnx.shape_inference.infer_shapes(model).graph.output
    del model.graph.output[:]
    model.graph.output.extend(described)
    return Graph.from_bytes(model.SerializeToString(), "model.onnx")
