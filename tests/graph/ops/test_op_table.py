"""The dispatch table itself: nothing in it without a case, nothing dangerous quietly accepted."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from dfmeta.errors import UnsupportedOperator
from dfmeta.graph import TorchGraph
from dfmeta.graph.ops import entries, lookup

HERE = Path(__file__).parent


def cases() -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for path in sorted(HERE.glob("test_op_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if path != Path(__file__) and spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            found += module.CASES
    return found


def test_every_entry_has_a_case() -> None:
    exercised = {(case[0], entry.since) for case in cases() for v in case[1] if (entry := lookup(case[0], v))}
    assert {(entry.name, entry.since) for entry in entries()} == exercised


def test_no_case_names_an_operator_outside_the_table() -> None:
    assert {case[0] for case in cases()} == {entry.name for entry in entries()}


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: f"{entry.name}-{entry.since}")
def test_names_and_versions_are_onnx_s_own(entry: Any) -> None:
    versions = [s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == entry.name]
    assert entry.since == 1 or entry.since in versions


def test_lookup_takes_the_newest_that_applies() -> None:
    since = [entry.since for v in (9, 12, 13, 24) if (entry := lookup("Softmax", v))]
    assert since == [1, 1, 13, 13]
    assert lookup("Gelu", 19) is None
    assert lookup("Nothing", 18) is None


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_recurrent_operators_are_refused(op: str, build_node: Callable[..., Any]) -> None:
    gates = {"LSTM": 4, "GRU": 3}[op]
    x, w, r = (np.zeros(s, np.float32) for s in ((2, 1, 3), (1, gates * 5, 3), (1, gates * 5, 5)))
    graph, _ = build_node(op, 18, [x, w, r], {"hidden_size": 5}, 1)
    with pytest.raises(UnsupportedOperator, match=rf"test.onnx: node 0 \({op}\): found operator {op} of opset 18"):
        TorchGraph(graph)


def test_control_flow_is_refused(build_graph: Callable[..., Any]) -> None:
    value = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [2])
    branch = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["z"])], "branch", [], [value])
    node = onnx.helper.make_node("If", ["c"], ["y"], name="choose", then_branch=branch, else_branch=branch)
    inputs = {"c": np.array(True), "x": np.zeros(2, np.float32)}
    with pytest.raises(UnsupportedOperator, match=r"node 'choose' \(If\): found a subgraph"):
        build_graph([node], inputs, ["y"], 18)
