"""Bad graphs, modules and students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Command = Callable[..., Any]
Nodes = Sequence[onnx.NodeProto]


def model(nodes: Nodes, path: Path, weight: np.ndarray | None = None) -> Path:
    """A graph from ``x`` [batch, 1, 8, 8] to ``y`` [batch, 10], whatever its nodes do in between."""
    values = np.random.default_rng(0).normal(size=(64, 10)) / 8 if weight is None else weight
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(values.astype(np.float32), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"the {op}", **attributes)


FLAT = node("Flatten", "x", "f")
GOOD = (FLAT, node("MatMul", "f w", "y"))


def external(path: Path) -> Path:
    made = onnx.load(model(GOOD, path))
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    path.write_bytes(made.SerializeToString())
    return path


UNSUPPORTED = (3, "UnsupportedOperator")
BAD: dict[str, tuple[Callable[[Path], Any], int, str, str]] = {
    # name: (what to write, exit code, error, part of its text)
    "external-data": (external, 1, "GraphError", "external"),
    "unknown-operator": (
        lambda path: model((FLAT, node("NoSuchOp", "f w", "y")), path),
        *UNSUPPORTED,
        "NoSuchOp",
    ),
    "foreign-domain": (
        lambda path: model((FLAT, node("MatMul", "f w", "y", domain="com.example")), path),
        *(1, "GraphError", "com.example"),
    ),
    "cycle": (
        lambda path: model((FLAT, node("Add", "f b", "a"), node("Relu", "a", "b"), GOOD[1]), path),
        *(1, "GraphError", "'b'"),
    ),
    "no-onnx": (lambda path: path.write_bytes(b"not a model") and path, 1, "GraphError", "model.onnx"),
    "empty": (lambda path: path.write_bytes(b"") or path, 1, "GraphError", "model.onnx"),
    "missing": (lambda path: path, 1, "GraphError", "No such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_graph_is_refused(command: Command, tmp_path: Path, name: str) -> None:
    make, exit_code, kind, part = BAD[name]
    path = make(tmp_path / "model.onnx")
    data = ("--data", "digits:train", "--scale", "1/255")
    recorded = command("record", "--model", path, *data, "--out", tmp_path / "out", "--json")
    evaluated = command("evaluate", path, *data, "--json")
    for done in (recorded, evaluated):
        assert done.code == exit_code, done.err
        assert done.json["error"]["type"] == kind
        assert part in done.err
        assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_an_operator_that_synthesis_cannot_run(command: Command, tmp_path: Path) -> None:
    nodes = (FLAT, node("MatMul", "f w", "m"), node("Det", "x", "d"), node("Add", "m d", "y"))
    path = model(nodes, tmp_path / "model.onnx")
    about = ("--data", "digits:train", "--scale", "1/255", "--preset", "top-layer", "--out", tmp_path / "out")
    recorded = command("record", "--model", path, *about)
    assert recorded.code == 0, recorded.err
    made = ("--student", "tiny8", "--out", tmp_path / "student.onnx")
    done = command("distill", tmp_path / "out", *made, "--json")
    assert done.code == 3
    assert done.json["error"]["type"] == "UnsupportedOperator"
    assert "Det" in done.err


def test_activations_that_are_not_finite(command: Command, tmp_path: Path) -> None:
    path = model(GOOD, tmp_path / "model.onnx", np.full((64, 10), 3e38))
    data = ("--data", "digits:train", "--out", tmp_path / "out")
    done = command("record", "--model", path, *data, "--json")
    assert done.code == 1
    assert done.json["error"]["type"] == "StepError"
    assert "NaN or infinity" in done.err
    assert not (tmp_path / "out").exists()


MODULES = {
    "dfmeta_test_nowhere:teacher": (2, "ModuleNotFoundError"),
    "dfmeta_test_teacher:nobody": (2, "AttributeError"),
    "dfmeta_test_teacher:number": (2, "int"),
    "dfmeta_test_teacher:broken": (2, "no such luck"),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_is_no_model(command: Command, publisher: Path, tmp_path: Path, name: str) -> None:
    exit_code, part = MODULES[name]
    done = command("record", "--model", name, "--data", "digits", "--out", tmp_path / "out")
    assert done.code == exit_code, done.err
    assert part in done.err
    assert done.err.startswith("error: --model: ")


def test_weights_that_do_not_fit(command: Command, publisher: Path, tmp_path: Path) -> None:
    words = (
        "record",
        "--model",
        "dfmeta_test_teacher:teacher",
        "--data",
        "digits",
        "--out",
        tmp_path / "out",
    )
    for weights, part in (("nowhere.safetensors", "no such file"), ("dfmeta_test_teacher.py", "safetensors")):
        done = command(*words, "--weights", publisher / weights)
        assert done.code == 1, done.err
        assert part in done.err
        assert "Traceback" not in done.err


def test_a_student_that_does_not_fit(command: Command, release: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.onnx"
    done = command("distill", release, "--student", "lenet5", "--out", out, "--json")
    assert done.code == 1
    assert done.json["error"]["type"] == "StepError"
    assert "32" in done.err
    assert not out.exists()


def test_a_model_that_is_not_the_bundles(command: Command, release: Path, tmp_path: Path) -> None:
    narrow = helper.make_graph(
        [FLAT, node("MatMul", "f w", "y")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.zeros((64, 3), np.float32), "w")],
    )
    made = helper.make_model(narrow, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "narrow.onnx").write_bytes(made.SerializeToString())
    done = command("evaluate", tmp_path / "narrow.onnx", "--data", "digits", "--bundle", release)
    assert done.code == 2
    assert "3" in done.err
