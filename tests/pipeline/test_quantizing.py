"""The verb ``quantize``: from a bundle alone to a checked file, or to none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from dfmeta.compress.quantize import Config
from dfmeta.errors import BundleError, ExportError, GraphError, OutputExists, SchemaError, StepError, UnknownName
from dfmeta.graph import Graph, costs
from dfmeta.pipeline.closed_form import open_source, require_finite, require_same
from dfmeta.pipeline.quantizing import Quantized, quantize

FEW = Config("w4a8", first_last_bits=0)


@pytest.fixture(scope="module")
def quantized(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    out = tmp_path_factory.mktemp("quantized") / "small.onnx"
    return quantize(calibrated, out, config=FEW, data="digits:test")


def test_it_is_as_good_as_its_teacher(quantized: Quantized) -> None:
    found = quantized.written.evaluation
    assert found is not None
    assert found.accuracy is not None
    assert found.teacher_accuracy is not None
    assert found.accuracy > found.teacher_accuracy - 2
    assert found.agreement is not None
    assert found.agreement > 97


def test_what_was_measured_is_the_file_that_was_written(quantized: Quantized) -> None:
    assert quantized.written.evaluation is not None
    assert quantized.written.evaluation.model == str(quantized.written.path)
    assert quantized.written.path.is_file()


def test_the_file_says_where_it_comes_from(quantized: Quantized, calibrated: Path) -> None:
    model = onnx.load(quantized.written.path)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert (
        notes["dfmeta.source_manifest_sha256"]
        == quantized.written.source
        == open_source(calibrated, "x").opened.bundle.identity
    )
    assert json.loads(notes["dfmeta.recipe"])["quantize"]["bits"] == "w4a8"


def test_sizes_are_those_of_the_file(quantized: Quantized, digits_teacher: Graph) -> None:
    written = quantized.written
    assert written.bytes == written.path.stat().st_size == written.costs.bytes
    assert written.teacher_costs == costs(digits_teacher)
    weights = 8 * 9 + 16 * 72 + 10 * 64
    assert quantized.float_bytes == 4 * weights
    assert quantized.weight_bytes == quantized.nominal_bytes == weights // 2 + 4 * (8 + 16 + 10)


@pytest.mark.parametrize("form", ["qoperator", "qdq"])
def test_eight_bits_in_either_form(form: Any, calibrated: Path, tmp_path: Path) -> None:
    done = quantize(calibrated, tmp_path / "m.onnx", form=form, data="digits:test", limit=200)
    assert done.written.evaluation is not None
    assert done.written.evaluation.agreement is not None
    assert done.written.evaluation.agreement >= 98
    names = {node.op_type for node in onnx.load(done.written.path).graph.node}
    assert ("QLinearConv" in names) == (form == "qoperator")


def test_onnxruntimes_own_operator(calibrated: Path, quantized: Quantized, tmp_path: Path) -> None:
    done = quantize(calibrated, tmp_path / "m.onnx", config=FEW, form="matmulnbits")
    sessions = [
        onnxruntime.InferenceSession(str(one.written.path), providers=["CPUExecutionProvider"])
        for one in (done, quantized)
    ]
    x = np.random.default_rng(0).random((4, 1, 8, 8), np.float32)
    ours, theirs = (session.run(None, {"image": x})[0] for session in sessions)
    np.testing.assert_allclose(ours, theirs, atol=0.02 * float(np.abs(theirs).max()))
    assert any("only onnxruntime" in note for note in done.notes)
    with pytest.raises(GraphError, match=r"com\.microsoft"):
        Graph.from_file(done.written.path)


@pytest.mark.parametrize(
    ("config", "said"),
    [(Config("w4", int4=False), "in INT8, at twice the bytes"), (Config("w3"), "no type of 2 or 3 bits")],
)
def test_what_is_stored_otherwise_is_said(config: Config, said: str, calibrated: Path, tmp_path: Path) -> None:
    assert any(said in note for note in quantize(calibrated, tmp_path / "m.onnx", config=config).notes)


def test_an_output_that_exists_is_left_alone(calibrated: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    out.write_bytes(b"mine")
    with pytest.raises(OutputExists):
        quantize(calibrated, out)
    assert out.read_bytes() == b"mine"


def test_records_that_are_missing_are_named_and_nothing_is_written(digits_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    with pytest.raises(StepError, match=r"second moments: found none for .*, expected one for each layer"):
        quantize(digits_bundle, out, config=Config("w4"))
    assert not out.exists()
    done = quantize(digits_bundle, out, config=Config("w4", fallback="nearest"))
    assert {layer.rounding for layer in done.layers} == {"nearest"}
    labels = ", ".join(layer.label for layer in done.layers)
    assert f"rounded to nearest, without records: {labels}" in done.notes
    assert not any("values" in note for note in done.notes)


def test_values_that_stay_in_floating_point_are_named(digits_bundle: Path, tmp_path: Path) -> None:
    done = quantize(digits_bundle, tmp_path / "m.onnx", config=Config("w8a8", fallback="nearest"))
    assert {layer.value_bits for layer in done.layers} == {32}
    labels = ", ".join(layer.label for layer in done.layers)
    assert f"values left in floating point, without histograms: {labels}" in done.notes


def test_the_records_of_another_graph_are_refused(
    calibrated: Path, tmp_path: Path, linear: Callable[..., Graph], repin: Callable[[Path, Mapping[str, bytes]], None]
) -> None:
    folder = Path(shutil.copytree(calibrated, tmp_path / "other"))
    other = linear((1, 8, 8), (10,))
    (folder / "model.onnx").write_bytes(other.raw)
    with pytest.raises(BundleError, match=r"sha256|bytes"):
        quantize(folder, tmp_path / "m.onnx")
    repin(folder, {"model.onnx": other.raw})
    with pytest.raises((SchemaError, BundleError)):
        quantize(folder, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_another_form_is_refused(calibrated: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="qdq"):
        quantize(calibrated, tmp_path / "m.onnx", form="onnx")  # type: ignore[arg-type]


def test_a_form_that_does_not_fit_writes_nothing(calibrated: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="8 bits"):
        quantize(calibrated, tmp_path / "m.onnx", config=FEW, form="qoperator")
    assert not (tmp_path / "m.onnx").exists()


def test_weights_that_are_not_finite_are_refused(digits_teacher: Graph) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(digits_teacher.model)
    tensor = model.graph.initializer[0]
    array = np.array(onnx.numpy_helper.to_array(tensor))
    array.reshape(-1)[0] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    with pytest.raises(ExportError, match="not finite"):
        require_finite(Graph.from_bytes(model.SerializeToString(), "spoiled.onnx"))


def test_a_graph_with_other_ends_is_refused(calibrated: Path, tmp_path: Path, linear: Callable[..., Graph]) -> None:
    with pytest.raises(ExportError, match="the teacher's"):
        require_same(linear((1, 8, 8), (10,)), open_source(calibrated, tmp_path / "m"), 1e-3)


def test_progress_is_told(calibrated: Path, tmp_path: Path) -> None:
    told: list[str] = []
    quantize(
        calibrated,
        tmp_path / "m.onnx",
        data="digits:test",
        limit=50,
        progress=lambda stage, *_: told.append(stage),
    )
    assert set(told) == {"quantize", "evaluate"}
