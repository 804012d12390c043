"""Records of any graph, taken from given inputs, without a bundle around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from dfmeta._catalog import KINDS
from dfmeta.graph import Graph, OrtGraph
from dfmeta.records import PublishedRecords, make_plan
from dfmeta.records.published import Statistic

Records = Callable[..., PublishedRecords]
Build = Callable[..., Graph]


def records_of(
    graph: Graph, inputs: Mapping[str, np.ndarray], *, form: str | None = "full", storage: str | None = None
) -> PublishedRecords:
    """The ``calibration`` records of a graph over these inputs, as a bundle would hold them."""
    plans = make_plan(graph, ["calibration"], form=form, storage=storage)
    values = OrtGraph(graph, tuple({plan.site.value for plan in plans}), threads=1).run(inputs)
    values |= dict(inputs)
    return PublishedRecords(tuple(_statistic(number, plan, values) for number, plan in enumerate(plans)))


def _statistic(number: int, plan: Any, values: Mapping[str, np.ndarray]) -> Statistic:
    x = torch.from_numpy(np.array(values[plan.site.value]))
    axis = plan.site.feature_axis
    if plan.features == "channel":
        rows = x.movedim(axis, -1).reshape(-1, x.shape[axis])
    else:
        rows = x if plan.features == "patch" else x.reshape(len(x), -1)
    accumulator = KINDS.load(plan.kind, "accumulate").Accumulator(plan.feature_count, 1, plan.configuration)
    accumulator.update(rows, torch.zeros(len(rows), dtype=torch.int64))
    arrays = accumulator.tensors(np.array([len(x)]), 1)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return Statistic(
        f"r{number}",
        plan.site.label,
        plan.site.value,
        plan.kind,
        by_class=False,
        features=plan.features,
        feature_axis=axis,
        tensors=tensors,
        configuration=plan.configuration,
    )


def build(
    nodes: Sequence[onnx.NodeProto],
    shapes: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, np.ndarray],
    opset: int = 18,
) -> Graph:
    """A graph of float32 values."""

    def typed(values: Mapping[str, Sequence[int | str]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in values.items()]

    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    proto = helper.make_graph(list(nodes), "g", typed(shapes), typed(outputs), tensors)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return Graph.from_bytes(model.SerializeToString(), "test.onnx")


@pytest.fixture(scope="session")
def records_of_graph() -> Records:
    """``records_of_graph(graph, inputs, form=..., storage=...)``: calibration records over those inputs."""
    return records_of


@pytest.fixture(scope="session")
def build_graph() -> Build:
    """``build_graph(nodes, input shapes, output shapes, constants, opset)``."""
    return build
