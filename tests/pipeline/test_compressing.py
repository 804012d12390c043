"""The verb ``compress``: a recipe from a bundle alone to a checked folder, or to none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dfmeta.bundle import write_folder
from dfmeta.compress.recipe import Inputs, Recipe, common, parse
from dfmeta.errors import BundleError, ExportError, OutputExists, StepError, UnknownName
from dfmeta.graph import Graph, OrtGraph
from dfmeta.pipeline import _step_of_recipe, reconstruct
from dfmeta.pipeline.closed_form import open_source
from dfmeta.pipeline.compressing import Compressed, compress

WHOLE = common(equalize=True, prune=0.5, factorize=0.75, finetune=60, bits="w4a8", inputs=Inputs("noise", 200))


@pytest.fixture(scope="module")
def inputs(digits: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Inputs in a file, as ``reconstruct`` keeps them."""
    path = tmp_path_factory.mktemp("inputs") / "inputs.npz"
    np.savez(path, x=digits[0][:300].numpy(), y=digits[1][:300].numpy())
    return str(path)


@pytest.fixture(scope="module")
def compressed(calibrated: Path, inputs: str, tmp_path_factory: pytest.TempPathFactory) -> Compressed:
    out = tmp_path_factory.mktemp("compressed") / "student"
    return compress(calibrated, out, WHOLE, inputs=inputs, data="digits:test")


def test_every_step_is_told_of(compressed: Compressed) -> None:
    names = ["equalize", "prune", "factorize", "finetune", "quantize"]
    assert [step.name for step in compressed.steps] == names
    equal, cut, factors, tuned, rounded = compressed.steps
    assert equal.error is None
    assert equal.agreement == 100
    assert cut.costs.macs < 0.5 * equal.costs.macs
    assert factors.weights < cut.weights
    assert tuned.weights == factors.weights
    # Stages in the middle of a chain have got biases, for the mean error of their rounded weights.
    assert 0 <= rounded.weights - tuned.weights < 16
    assert rounded.costs.parameters < 0.2 * tuned.costs.parameters
    assert all(step.error is not None and 0 < step.error < 1 for step in compressed.steps[1:])
    assert rounded.accuracy is not None
    assert compressed.teacher_accuracy is not None
    assert rounded.accuracy > compressed.teacher_accuracy - 25
    assert compressed.count > 300
    assert (compressed.inputs, compressed.inputs_from.endswith("inputs.npz")) == (300, True)


def test_every_site_says_where_its_records_come_from(compressed: Compressed) -> None:
    equal, cut, factors, tuned, rounded = compressed.steps
    assert not equal.sites
    assert not tuned.sites
    assert {(site.origin, *site.transformed) for site in cut.sites} == {("recorded",), ("recorded", "scaled")}
    origins = {(site.origin, *site.transformed) for site in factors.sites}
    assert origins == {("recorded",), ("recorded", "scaled", "restricted"), ("anew",)}
    of = {(site.value, site.kind): site.origin for site in rounded.sites}
    assert of.pop(("image", "second-moment")) == of.pop(("image", "histogram")) == "recorded"
    assert set(of.values()) == {"anew"}
    assert len(of) >= 4


def test_the_folder_holds_the_model_and_the_report(compressed: Compressed, calibrated: Path) -> None:
    assert sorted(path.name for path in compressed.path.iterdir()) == ["report.json", "student.onnx"]
    report = json.loads((compressed.path / "report.json").read_text())
    assert report["source"] == compressed.source == open_source(calibrated, "x").opened.bundle.identity
    assert [step["name"] for step in report["steps"]] == [step.name for step in compressed.steps]
    assert report["steps"][1]["sites"][0]["origin"] == "recorded"
    assert report["steps"][4]["operators"][0]["rounding"] == "gptq"
    assert report["recipe"]["step"][1]["channels"] == 0.5
    model = onnx.load(compressed.model)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(notes["dfmeta.recipe"]) == json.loads(json.dumps(compressed.recipe))
    assert compressed.steps[-1].costs.bytes == compressed.model.stat().st_size
    found = OrtGraph(Graph.from_file(compressed.model)).run({"image": np.zeros((3, 1, 8, 8), np.float32)})
    assert found["logits"].shape == (3, 10)


def test_the_data_changes_nothing(compressed: Compressed, calibrated: Path, inputs: str, tmp_path: Path) -> None:
    again = compress(calibrated, tmp_path / "again", WHOLE, inputs=inputs)
    assert again.model.read_bytes() == compressed.model.read_bytes()
    assert {step.accuracy for step in again.steps} == {None}


def test_inputs_are_made_when_a_step_needs_them(calibrated: Path, tmp_path: Path) -> None:
    none = compress(calibrated, tmp_path / "one", common(bits="w4a8"))
    assert (none.inputs, none.inputs_from) == (0, "")
    assert {site.origin for site in none.steps[0].sites} == {"recorded"}
    told: list[str] = []
    recipe = common(prune=0.5, bits="w8a8", inputs=Inputs("noise", 50))
    some = compress(calibrated, tmp_path / "two", recipe, progress=lambda stage, *_: told.append(stage))
    assert (some.inputs, some.inputs_from) == (50, "noise")
    assert {"record", "quantize"} <= set(told)


def test_inputs_that_reconstruct_kept(calibrated: Path, tmp_path: Path) -> None:
    kept = reconstruct(calibrated, tmp_path / "x.safetensors", method="noise", count=40)
    recipe = common(bits="w2", finetune=3)
    done = compress(calibrated, tmp_path / "student", recipe, inputs=str(kept))
    assert done.inputs == 40
    assert [step.name for step in done.steps] == ["quantize", "finetune"]
    codes = [
        numpy_helper.to_array(tensor).astype(int)
        for tensor in onnx.load(done.model).graph.initializer
        if tensor.name.endswith("_codes") and tensor.data_type == onnx.TensorProto.INT4
    ]
    assert codes
    assert all(-2 <= array.min() <= array.max() <= 1 for array in codes)


def test_a_distilled_student_is_recorded_before_it_is_quantized(calibrated: Path, inputs: str, tmp_path: Path) -> None:
    steps = [{"name": "distill", "student": "tiny8", "steps": 40, "batch": 64}, {"name": "quantize", "bits": "w8a8"}]
    done = compress(calibrated, tmp_path / "student", parse({"step": steps}), inputs=inputs, data="digits:test")
    student, rounded = done.steps
    assert student.accuracy is not None
    assert rounded.agreement is not None
    of = {(site.value, site.kind): site.origin for site in rounded.sites}
    assert {origin for (value, _), origin in of.items() if value != "image"} == {"anew"}
    assert len(of) >= 4


def test_records_that_are_missing_are_an_error_and_nothing_is_written(digits_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    with pytest.raises(StepError, match="no second moment"):
        compress(digits_bundle, out, common(prune=0.5))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_left_alone(calibrated: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    out.mkdir()
    with pytest.raises(OutputExists):
        compress(calibrated, out, common(bits="w8"))
    assert list(out.iterdir()) == []


def test_other_wrong_use_writes_nothing(calibrated: Path, tmp_path: Path) -> None:
    recipe = common(bits="w2", finetune=2, inputs=Inputs("nois", 10))
    with pytest.raises(UnknownName, match="noise"):
        compress(calibrated, tmp_path / "student", recipe)
    with pytest.raises(UnknownName, match="noise"):
        compress(calibrated, tmp_path / "student", common(bits="w4", inputs=Inputs("nois")))
    with pytest.raises(UnknownName, match="'iteration'"):
        compress(calibrated, tmp_path / "student", common(bits="w4", inputs=Inputs("zskd", 9, {"iteration": "1"})))
    with pytest.raises(BundleError):
        compress(tmp_path / "none", tmp_path / "student", recipe)
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_makes_it_larger_or_spoils_it_is_refused(calibrated: Path, digits_teacher: Graph) -> None:
    source = open_source(calibrated, "nothing")
    step = common(prune=0.5).steps[0]
    count = _step_of_recipe.weight_count(digits_teacher)
    _step_of_recipe.verify(step, digits_teacher, source, count)
    with pytest.raises(ExportError, match="weights after prune"):
        _step_of_recipe.verify(step, digits_teacher, source, count - 1)
    model = onnx.ModelProto()
    model.CopyFrom(digits_teacher.model)
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(tensor), np.nan), tensor.name))
    with pytest.raises(ExportError, match="not finite"):
        _step_of_recipe.verify(step, Graph.from_bytes(model.SerializeToString(), "m.onnx"), source, count)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    write_folder(tmp_path / "one", {"a": b"1", "b/c": b"2"})
    assert (tmp_path / "one" / "b" / "c").read_bytes() == b"2"
    with pytest.raises(OutputExists):
        write_folder(tmp_path / "one", {})
    with pytest.raises(BundleError):
        write_folder(tmp_path / "none" / "two", {"a": b"1"})
    with pytest.raises(TypeError):
        write_folder(tmp_path / "three", {"a": b"1", "b": "text"})  # type: ignore[dict-item]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


def test_a_recipe_holds_what_it_says() -> None:
    assert isinstance(WHOLE, Recipe)
    assert json.loads(json.dumps(WHOLE.as_dict()))["inputs"] == {"method": "noise", "count": 200, "settings": {}}
