"""Students as files: versions, provenance, reproducible bytes, and the comparison with their source."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from torch import nn

from dfmeta import students
from dfmeta.errors import ExportError
from dfmeta.export import PROVENANCE_KEYS, check_parity, export_student, with_provenance
from dfmeta.graph import Graph, TorchGraph, export_module
from dfmeta.graph.parity import compare
from dfmeta.schema import v1

PROVENANCE = {
    "dfmeta.source_manifest_sha256": "ab" * 32,
    "dfmeta.source_bundle_id": "urn:uuid:6a1d1c5e-6f0e-4f0e-9d43-0d6f1f6f3b0a",
    "dfmeta.recipe": json.dumps({"method": "distill", "seed": 0}),
    "dfmeta.tool": "dfmeta 1",
}
IMAGE = v1.Input(name="image", dtype="float32", shape=["n", 1, 8, 8])


@dataclass(frozen=True)
class PlainInput:
    name: str
    dtype: str
    shape: tuple[int | str, ...]


def tiny() -> nn.Module:
    student = students.build("tiny8", (1, 8, 8), 10, seed=1)
    for name, parameter in student.named_parameters():
        if name.endswith("bias"):
            nn.init.constant_(parameter, 0.1)
    return student


@pytest.fixture(scope="module")
def raw() -> bytes:
    return export_student(tiny(), IMAGE, "logits", provenance=PROVENANCE)


def test_a_student_is_what_embedded_tools_read(raw: bytes) -> None:
    graph = Graph.from_bytes(raw, "student.onnx")
    assert (graph.opset, graph.ir_version) == (18, 8)
    assert [(v.name, v.shape) for v in (*graph.inputs, *graph.outputs)] == [
        ("image", (1, 1, 8, 8)),
        ("logits", (1, 10)),
    ]
    operators = [node.op_type for node in graph.model.graph.node]
    assert operators == ["Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool", "Flatten", "Gemm"]
    assert graph.parameter_count == 1898


def test_provenance_is_what_onnxruntime_reads(raw: bytes) -> None:
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == PROVENANCE
    keys = [entry.key for entry in onnx.load_model_from_string(raw).metadata_props]
    assert keys == sorted(PROVENANCE_KEYS)


def test_the_same_weights_give_the_same_bytes(raw: bytes) -> None:
    shuffled = dict(reversed(PROVENANCE.items()))
    assert export_student(tiny(), IMAGE, "logits", provenance=shuffled) == raw


def test_the_file_computes_what_the_student_computes(raw: bytes) -> None:
    graph = Graph.from_bytes(raw, "student.onnx")
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    parity = check_parity(graph, tiny(), [x], atol=1e-5, rtol=1e-5)
    assert parity.max_abs < 1e-5
    assert parity.max_rel < 1e-5
    assert parity.argmax_agreement == 1.0


def test_a_free_batch_on_request() -> None:
    source = PlainInput("x", "float32", ("batch", 5))
    mlp = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = Graph.from_bytes(export_student(mlp, source, "y", provenance={}, dynamic_batch=True), "student.onnx")
    assert graph.inputs[0].shape == ("batch", 5)
    assert not graph.model.metadata_props
    assert check_parity(graph, mlp, [torch.randn(7, 5)], atol=1e-5, rtol=1e-5).argmax_agreement == 1.0


def test_new_provenance_replaces_the_old_and_leaves_the_graph(raw: bytes) -> None:
    before = Graph.from_bytes(raw, "student.onnx")
    after = with_provenance(before, {"dfmeta.tool": "other 2"})
    assert [(entry.key, entry.value) for entry in after.model.metadata_props] == [("dfmeta.tool", "other 2")]
    assert after.model.graph == before.model.graph
    assert before.raw == raw


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (
            "dfmeta.sha",
            "x",
            "provenance: found key 'dfmeta.sha', expected one of dfmeta.source_manifest_sha256",
        ),
        ("dfmeta.source_manifest_sha256", "AB" * 32, "expected 64 hexadecimal digits"),
        ("dfmeta.source_manifest_sha256", "ab", "expected 64 hexadecimal digits"),
        ("dfmeta.recipe", "{not json", "expected JSON text"),
        ("dfmeta.source_bundle_id", " ", "expected a bundle id"),
        ("dfmeta.tool", "", "expected a name and version"),
    ],
)
def test_provenance_of_the_wrong_form_is_refused(key: str, value: str, text: str) -> None:
    with pytest.raises(ExportError) as caught:
        export_student(tiny(), IMAGE, "logits", provenance={key: value})
    assert text in str(caught.value)


def test_a_free_size_is_refused() -> None:
    source = PlainInput("x", "float32", ("n", 1, "height", 8))
    with pytest.raises(ExportError, match=r"input 'x': found shape .*fixed sizes after the batch axis"):
        export_student(tiny(), source, "y", provenance={})


def test_a_scalar_input_is_refused() -> None:
    with pytest.raises(ExportError, match="fixed sizes after the batch axis"):
        export_student(tiny(), PlainInput("x", "float32", ()), "y", provenance={})


def test_an_unknown_element_type_is_refused() -> None:
    with pytest.raises(ExportError, match="element type 'string'"):
        export_student(tiny(), PlainInput("x", "string", ("n", 1, 8, 8)), "y", provenance={})


def test_another_network_does_not_pass_as_the_source(raw: bytes) -> None:
    graph = Graph.from_bytes(raw, "student.onnx")
    other = students.build("tiny8", (1, 8, 8), 10, seed=2)
    with pytest.raises(ExportError, match=r"student.onnx: found a largest absolute difference of \d"):
        check_parity(graph, other, [torch.ones(1, 1, 8, 8)], atol=1e-4, rtol=1e-3)


def test_another_output_shape_does_not_pass(raw: bytes) -> None:
    graph = Graph.from_bytes(raw, "student.onnx")
    with pytest.raises(ExportError, match=r"found outputs of shapes \[\(1, 10\)\], expected .*\[\(1, 64\)\]"):
        check_parity(graph, lambda x: x.flatten(1), [torch.ones(1, 1, 8, 8)], atol=1.0, rtol=1.0)


def test_a_number_that_is_not_finite_does_not_pass() -> None:
    finite = [np.ones((1, 2), np.float32)]
    for value in (np.nan, np.inf, -np.inf):
        odd = [np.array([[1.0, value]], dtype=np.float32)]
        for found, expected in ((odd, finite), (finite, odd), (odd, odd)):
            with pytest.raises(ExportError, match="difference of nan"):
                compare(found, expected, 1.0, 1.0, "here")


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=8),
    error=st.floats(0, 10, width=32),
)
def test_parity_measures_the_difference(values: list[float], error: float) -> None:
    expected = np.array([values], dtype=np.float64)
    found = expected.copy()
    found[0, 0] += error
    gap = abs(found[0, 0] - expected[0, 0])
    parity = compare([found], [expected], atol=float(gap), rtol=0.0, where="here")
    assert parity.max_abs == gap
    size = float(np.abs(expected).max())
    assert parity.max_rel == (gap / size if size else np.inf if gap else 0.0)
    if gap:
        with pytest.raises(ExportError):
            compare([found], [expected], atol=float(gap) * 0.9, rtol=0.0, where="here")


def test_agreement_is_the_share_of_equal_largest_entries() -> None:
    expected = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = expected + np.array([[0.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    assert compare([found], [expected], 5.0, 0.0, "here").argmax_agreement == 0.75


def learned(graph: Graph) -> TorchGraph:
    """A graph student whose weights and statistics have moved."""
    student = TorchGraph(graph, trainable=True, batch_norm="train").train()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        student(torch.randn(16, *map(int, graph.inputs[0].shape[1:]), generator=generator))
    return student


def normalised_graph(*, dynamic_batch: bool) -> Graph:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = [nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)]
    names: Any = {"input_names": ["x"], "output_names": ["y"]}
    example = (torch.zeros(1, 1, 8, 8),)
    return export_module(
        nn.Sequential(*layers), example, **names, dynamic_batch=dynamic_batch, keep_batchnorm=True, opset=20
    )


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("source_free", [False, True])
def test_a_graph_student_becomes_the_same_kind_of_file(free: bool, source_free: bool) -> None:
    student = learned(normalised_graph(dynamic_batch=source_free))
    raw = export_student(student, IMAGE, "logits", provenance=PROVENANCE, dynamic_batch=free)
    graph = Graph.from_bytes(raw, "student.onnx")
    assert (graph.opset, graph.ir_version) == (18, 8)
    assert [(v.name, v.shape) for v in (*graph.inputs, *graph.outputs)] == [
        ("image", ("batch" if free else 1, 1, 8, 8)),
        ("logits", ("batch" if free else 1, 10)),
    ]
    assert [node.op_type for node in graph.model.graph.node] == ["Conv", "Relu", "Flatten", "Gemm"]
    assert {entry.key: entry.value for entry in graph.model.metadata_props} == PROVENANCE
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert check_parity(graph, student, [x], atol=1e-5, rtol=1e-4).argmax_agreement == 1.0
    assert student.training
    assert export_student(student, IMAGE, "logits", provenance=PROVENANCE, dynamic_batch=free) == raw


def test_a_graph_student_in_double_is_written_in_the_files_type() -> None:
    raw = export_student(learned(normalised_graph(dynamic_batch=True)).double(), IMAGE, "y", provenance={})
    graph = Graph.from_bytes(raw, "student.onnx")
    assert {array.dtype.name for array in graph.initializers.values() if array.dtype.kind == "f"} == {"float32"}


def test_a_pre_trained_file_of_another_opset_is_written_small(shared: Path) -> None:
    teacher = Graph.from_file(shared / "models" / "resnet20-cifar10.onnx")
    source = PlainInput("image", "float32", ("n", 3, 32, 32))
    graph = Graph.from_bytes(export_student(TorchGraph(teacher), source, "logits", provenance={}), "student.onnx")
    assert (teacher.opset, graph.opset, graph.ir_version) == (20, 18, 8)
    kinds = Counter(node.op_type for node in graph.model.graph.node)
    assert kinds == {"Conv": 19, "Relu": 19, "Add": 9, "Slice": 4, "Pad": 2} | dict.fromkeys(
        ("GlobalAveragePool", "Flatten", "Gemm"), 1
    )


def graph_of(nodes: list[onnx.NodeProto], opset: int, outputs: tuple[str, ...] = ("y",)) -> Graph:
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in ("x", *outputs)]
    constants = [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")]
    proto = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return Graph.from_bytes(model.SerializeToString(), "source.onnx")


def test_a_graph_that_opset_18_cannot_say_is_refused() -> None:
    graph = graph_of([helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Gelu", ["h"], ["y"])], 20)
    with pytest.raises(ExportError, match=r"export of source\.onnx: .*expected operators that opset 18 has"):
        export_student(TorchGraph(graph), PlainInput("x", "float32", ("n", 3)), "y", provenance={})


def test_a_graph_of_two_outputs_is_refused() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    with pytest.raises(ExportError, match="1 inputs and 2 outputs, expected one of each"):
        export_student(
            TorchGraph(graph_of(nodes, 18, ("y", "z"))), PlainInput("x", "float32", ("n", 3)), "y", provenance={}
        )


def test_a_name_that_is_taken_is_refused() -> None:
    graph = graph_of([helper.make_node("MatMul", ["x", "w"], ["y"])], 18)
    with pytest.raises(ExportError, match="another value called 'w'"):
        export_student(TorchGraph(graph), PlainInput("x", "float32", ("n", 3)), "w", provenance={})


def test_a_graph_student_that_takes_another_input_is_refused() -> None:
    graph = graph_of([helper.make_node("MatMul", ["x", "w"], ["y"])], 18)
    with pytest.raises(ExportError, match=r"shape \[4\] after the batch"):
        export_student(TorchGraph(graph), PlainInput("x", "float32", ("n", 4)), "y", provenance={})


def test_a_graph_that_differs_from_its_student_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    student = learned(normalised_graph(dynamic_batch=True))
    before = student.graph
    monkeypatch.setattr(student, "to_graph", lambda: before)
    with pytest.raises(ExportError, match=r"largest absolute difference of \d"):
        export_student(student, IMAGE, "logits", provenance={})
