"""Quantizing for a target: what comes out fits it, or the reader is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from dfmeta.compress.quantize import Config
from dfmeta.errors import DataError, UnknownName
from dfmeta.export import targets
from dfmeta.graph import Graph, OrtGraph
from dfmeta.pipeline import check_target
from dfmeta.pipeline.quantizing import quantize

INTEGER = ("cortex-m", "onnxruntime-int8", "openvino-int8", "tensorrt-int8")


@pytest.mark.parametrize("target", INTEGER)
def test_it_fits_what_it_was_written_for(target: str, calibrated: Path, digits_teacher: Graph, tmp_path: Path) -> None:
    done = quantize(calibrated, tmp_path / "m.onnx", target=target)
    assert done.checked is not None
    assert done.checked.fits
    assert check_target(tmp_path / "m.onnx", target).fits
    graph = Graph.from_file(tmp_path / "m.onnx")
    assert (graph.opset, graph.ir_version) == (18, 8)
    assert all(value.shape[0] == 1 for value in (*graph.inputs, *graph.outputs))
    codes = [array for name, array in graph.initializers.items() if name.endswith("_codes") and array.dtype == np.int8]
    assert codes
    assert all(int(array.min()) >= -127 for array in codes)
    biases = {array.dtype for name, array in graph.initializers.items() if array.dtype == np.int32}
    assert (biases == set()) == (target == "tensorrt-int8")
    # The same network as without a target, to steps of its values.
    x = np.random.default_rng(0).random((1, *digits_teacher.inputs[0].shape[1:]), np.float32)
    name = digits_teacher.inputs[0].name
    found, expected = (OrtGraph(one, threads=1).run({name: x}) for one in (graph, digits_teacher))
    (logits,) = (found[one.name] - expected[one.name] for one in graph.outputs)
    assert np.abs(logits).max() < 0.1 * np.abs(expected[graph.outputs[0].name]).max()


def test_code_generators_get_integer_operators(calibrated: Path, tmp_path: Path) -> None:
    done = quantize(calibrated, tmp_path / "m.onnx", target="c-codegen")
    assert done.form == "qoperator"
    assert "QLinearConv" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert done.checked is not None
    told = {str(one) for one in done.checked.violations}
    assert told == {note.removeprefix("does not fit c-codegen: ") for note in done.notes if "does not fit" in note}


def test_four_bits_are_stored_in_eight_where_there_is_no_int4(calibrated: Path, tmp_path: Path) -> None:
    done = quantize(calibrated, tmp_path / "m.onnx", config=Config("w4a8"), target="cortex-m")
    assert done.checked is not None
    assert done.checked.fits
    assert Graph.from_file(tmp_path / "m.onnx").opset == 18


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"target": "cortexm"}, UnknownName, "Did you mean 'cortex-m'"),
        ({"target": "esp-dl"}, DataError, "reads a float model"),
        ({"target": "cortex-m", "form": "qoperator"}, DataError, "qdq for cortex-m"),
        ({"target": "c-codegen", "form": "qdq"}, DataError, "qoperator for c-codegen"),
    ],
    ids=str,
)
def test_wrong_use_leaves_nothing(
    settings: dict[str, Any], error: type[Exception], said: str, calibrated: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        quantize(calibrated, tmp_path / "m.onnx", **settings)
    assert list(tmp_path.iterdir()) == []


def test_every_integer_target_is_tried() -> None:
    taking = {name for name in targets.names() if not targets.load(name).quantizes} - {"float-any"}
    assert taking == {*INTEGER, "c-codegen"}
