"""Graphs built node by node, and the comparison of the torch executor with onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from dfmeta.graph import Graph, OrtGraph, TorchGraph, inference
from dfmeta.graph.ops import lookup

# Different summation orders in float32 differ by a few units in the last place of the largest term.
RTOL, ATOL = 1e-4, 2e-5


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    opset: int,
    constants: Mapping[str, np.ndarray] | None = None,
) -> Graph:
    """A gated graph; output types are inferred."""
    opsets = [helper.make_opsetid("", opset)]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=opsets, ir_version=max(helper.find_min_ir_version_for(opsets), 8))
    typed = onnx.shape_inference.infer_shapes(inference.with_identity(model, inference.RULELESS))
    for output, result in zip(model.graph.output, typed.graph.output, strict=True):
        output.CopyFrom(result)
    return Graph.from_bytes(model.SerializeToString(), "test.onnx")


def compare(graph: Graph, inputs: Mapping[str, np.ndarray], values: Sequence[str] = ()) -> None:
    """Every output and chosen value alike in torch and onnxruntime, in value, shape and type."""
    expected = OrtGraph(graph, values, threads=1).run(inputs)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    found = TorchGraph(graph).run(tensors, list(expected))
    for name, array in expected.items():
        ours = found[name].numpy()
        assert ours.shape == array.shape, name
        if array.dtype.kind == "f":
            assert ours.dtype == array.dtype, name
            np.testing.assert_allclose(ours, array, RTOL, ATOL, err_msg=name)
        else:
            np.testing.assert_array_equal(ours.astype(np.int64), array.astype(np.int64), err_msg=name)


def runs_on_another_device(graph: Graph, inputs: Mapping[str, np.ndarray]) -> None:
    """Nothing of the graph is left behind on the CPU: torch's meta device, like a GPU, refuses to mix.

    What depends on the numbers themselves (how many are not zero) has no shape there.
    """
    if any(node.op_type in ("NonZero", "ConstantOfShape", "Range", "Shape", "Size") for node in graph.model.graph.node):
        return
    tensors = {name: torch.from_numpy(array.copy()).to("meta") for name, array in inputs.items()}
    names = [output.name for output in graph.outputs]
    module = TorchGraph(graph).to("meta")
    if tensors:
        assert {tensor.device.type for tensor in module.run(tensors, names).values()} == {"meta"}


def one_node(
    op: str, opset: int, inputs: Sequence[np.ndarray | None], attributes: Mapping[str, Any], outputs: int
) -> tuple[Graph, dict[str, np.ndarray]]:
    """A graph of one node; inputs that steer it (shapes, axes) are constants, the others are given."""
    entry = lookup(op, opset)
    host = entry.host if entry else frozenset()
    names = [f"x{place}" if array is not None else "" for place, array in enumerate(inputs)]
    given = {
        n: a for place, (n, a) in enumerate(zip(names, inputs, strict=True)) if a is not None and place not in host
    }
    fixed = {n: a for place, (n, a) in enumerate(zip(names, inputs, strict=True)) if a is not None and place in host}
    results = [f"y{place}" for place in range(outputs)]
    node = helper.make_node(op, names, results, **attributes)
    return build([node], given, results, opset, fixed), given


@pytest.fixture
def same_as_onnxruntime() -> Callable[..., None]:
    """Checks one operator at several opsets against onnxruntime."""

    def check(
        op: str,
        opsets: Sequence[int],
        inputs: Sequence[np.ndarray | None],
        attributes: Mapping[str, Any],
        outputs: int = 1,
    ) -> None:
        for opset in opsets:
            graph, given = one_node(op, opset, inputs, attributes, outputs)
            compare(graph, given)
            runs_on_another_device(graph, given)

    return check


@pytest.fixture
def build_graph() -> Callable[..., Graph]:
    """The builder, for tests of whole graphs."""
    return build


@pytest.fixture
def compare_with_onnxruntime() -> Callable[..., None]:
    """The comparison, for tests of whole graphs."""
    return compare


@pytest.fixture
def build_node() -> Callable[..., tuple[Graph, dict[str, np.ndarray]]]:
    """The builder of a single node."""
    return one_node
