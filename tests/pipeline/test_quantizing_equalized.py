"""The verb ``quantize`` after equalizing: the step of a recipe, without inputs for what it takes from the records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dfmeta.compress import equalize
from dfmeta.compress.quantize import Config
from dfmeta.compress.recipe import common
from dfmeta.errors import DataError, StepError
from dfmeta.graph import Graph
from dfmeta.pipeline import record
from dfmeta.pipeline.compressing import compress
from dfmeta.pipeline.quantizing import quantize


def constants(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_weights_alone_are_those_of_the_recipe(calibrated: Path, tmp_path: Path) -> None:
    done = quantize(calibrated, tmp_path / "m.onnx", config=Config("w3"), equalize=equalize.Config())
    recipe = compress(calibrated, tmp_path / "student", common(equalize=True, bits="w3"))
    ours, theirs = constants(done.written.path), constants(recipe.model)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
    assert done.pairs == recipe.steps[0].operators
    assert done.expected == ()
    plain = constants(quantize(calibrated, tmp_path / "plain.onnx", config=Config("w3")).written.path)
    assert any((plain[name] != array).any() for name, array in ours.items() if name.endswith("_codes"))


def test_values_have_expected_ranges_and_that_is_told(calibrated: Path, tmp_path: Path) -> None:
    done = quantize(
        calibrated, tmp_path / "m.onnx", config=Config("w8a8"), equalize=equalize.Config(5), data="digits:test"
    )
    assert {layer.value_bits for layer in done.layers} == {8}
    assert len(done.expected) == len(done.pairs) == 2
    assert f"ranges of scaled values from second moments, as if normal: {', '.join(done.expected)}" in done.notes
    assert done.written.evaluation is not None
    assert (done.written.evaluation.agreement or 0) > 97
    notes = {entry.key: entry.value for entry in onnx.load(done.written.path).metadata_props}
    assert json.loads(notes["dfmeta.recipe"])["equalize"] == {"rounds": 5, "limit": 1000.0}


def test_wrong_use_writes_nothing(calibrated: Path, tmp_path: Path, linear: Callable[..., Graph]) -> None:
    with pytest.raises(DataError, match="limit"):
        quantize(calibrated, tmp_path / "m.onnx", equalize=equalize.Config(limit=1.0))
    x = np.random.default_rng(0).random((40, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    alone = record(linear((1, 8, 8), (10,)), str(tmp_path / "x.npz"), tmp_path / "b", by_class=False).path
    with pytest.raises(StepError, match="no pair of layers with a rectifier between them"):
        quantize(alone, tmp_path / "m.onnx", equalize=equalize.Config())
    assert not (tmp_path / "m.onnx").exists()
