"""Small graphs built node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfmeta.graph import Graph

TYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32, "int64": TensorProto.INT64}


class Build:
    """``build(nodes, inputs, output, weights)``: a gated graph; ``nodes`` are ``(op, inputs, output)``."""

    def __call__(
        self,
        nodes: Sequence[tuple[str, str, str]],
        inputs: Mapping[str, tuple[str, Sequence[int | str]]],
        output: tuple[str, Sequence[int | str]],
        weights: Mapping[str, Sequence[int]],
    ) -> Graph:
        generator = np.random.default_rng(0)
        tensors = {name: generator.normal(0, 0.3, shape).astype(np.float32) for name, shape in weights.items()}
        graph = helper.make_graph(
            [helper.make_node(op, given.split(), [made], name=f"the {made}") for op, given, made in nodes],
            "g",
            [helper.make_tensor_value_info(name, TYPES[dtype], shape) for name, (dtype, shape) in inputs.items()],
            [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
            [numpy_helper.from_array(array, name) for name, array in tensors.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(model)
        return Graph.from_bytes(model.SerializeToString(), "test.onnx")

    def tokens(self, dtype: str) -> Graph:
        """``ids [batch, 5]`` through an embedding of 30 words and two layers to ``y [batch, 4]``."""
        nodes = [
            ("Gather", "table ids", "embedded"),
            ("Flatten", "embedded", "flat"),
            ("Gemm", "flat w1", "hidden"),
            ("Relu", "hidden", "active"),
            ("Gemm", "active w2", "y"),
        ]
        weights = {"table": (30, 6), "w1": (30, 8), "w2": (8, 4)}
        return self(nodes, {"ids": (dtype, ["batch", 5])}, ("y", ["batch", 4]), weights)

    def two(self) -> Graph:
        """``left [batch, 3]`` and ``right [batch, 2]``, each through a layer, added: ``y [batch, 4]``."""
        nodes = [("Gemm", "left w1", "a"), ("Gemm", "right w2", "b"), ("Add", "a b", "y")]
        inputs = {"left": ("float32", ["batch", 3]), "right": ("float32", ["batch", 2])}
        return self(nodes, inputs, ("y", ["batch", 4]), {"w1": (3, 4), "w2": (2, 4)})


@pytest.fixture(scope="session")
def build() -> Build:
    return Build()


@pytest.fixture(scope="session")
def lenet(repository: Path) -> Graph:
    """LeNet-5 for 28 x 28 images."""
    return Graph.from_file(repository / "examples" / "lenet5-mnist.onnx")


@pytest.fixture(scope="session")
def resnet(shared: Path) -> Graph:
    """ResNet-20 for 32 x 32 colour images."""
    return Graph.from_file(shared / "models" / "resnet20-cifar10.onnx")
