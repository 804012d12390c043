"""Pruned models from real bundles: measured, traceable, and refused where the bundle is not that of the graph."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from dfmeta.errors import DataError, IntegrityError, OutputExists, StepError
from dfmeta.graph import Graph
from dfmeta.pipeline.pruning import Config, Pruned, prune


@pytest.fixture(scope="module")
def halved(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Pruned:
    out = tmp_path_factory.mktemp("pruned") / "student.onnx"
    return prune(calibrated, out, config=Config(channels=0.5), data="digits:test")


def test_half_of_the_channels(halved: Pruned) -> None:
    found = halved.written.evaluation
    assert found is not None
    assert found.accuracy is not None
    assert found.teacher_accuracy is not None
    assert found.accuracy > found.teacher_accuracy - 6
    assert {group.id: group.kept for group in halved.groups} == {"0.weight": 4, "4.weight": 8, "9.weight": 10}
    assert halved.written.costs.macs < 0.4 * halved.written.teacher_costs.macs
    assert halved.sparse_bytes == halved.dense_bytes > 0


def test_the_data_changes_nothing(calibrated: Path, halved: Pruned, tmp_path: Path) -> None:
    again = prune(calibrated, tmp_path / "again.onnx", config=Config(channels=0.5))
    assert again.written.evaluation is None
    assert again.written.path.read_bytes() == halved.written.path.read_bytes()


def test_the_file_says_where_it_comes_from(halved: Pruned) -> None:
    notes = {entry.key: entry.value for entry in onnx.load(halved.written.path).metadata_props}
    recipe = json.loads(notes["dfmeta.recipe"])
    assert (recipe["step"], recipe["channels"], recipe["ranking"]) == ("prune", 0.5, halved.config.ranking)
    assert notes["dfmeta.source_manifest_sha256"] == halved.written.source


def test_zeros_stay_in_a_dense_file(calibrated: Path, halved: Pruned, tmp_path: Path) -> None:
    done = prune(calibrated, tmp_path / "sparse.onnx", config=Config(sparsity="0.5"), data="digits:test", limit=200)
    graph = Graph.from_file(done.written.path)
    zeros = {one.weight: float((graph.initializers[one.weight] == 0).mean()) for one in done.operators}
    assert zeros == {one.weight: one.zeros for one in done.operators}
    assert all(share == pytest.approx(0.5, abs=0.01) for share in zeros.values())
    assert done.written.costs.parameters > halved.written.costs.parameters
    assert done.sparse_bytes < 0.6 * done.dense_bytes
    assert done.written.evaluation is not None
    assert done.written.evaluation.agreement is not None
    assert done.written.evaluation.agreement > 90


def test_a_bundle_without_second_moments_is_refused(digits_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.onnx"
    with pytest.raises(StepError, match=r"no second moment of the inputs of .*reads.*calibration"):
        prune(digits_bundle, out, config=Config(channels=0.5))
    assert not out.exists()
    done = prune(digits_bundle, out, config=Config(channels=0.5, fallback="norms"))
    assert {one.form for one in done.operators} == {""}


def test_records_of_another_graph_are_refused(calibrated: Path, repin: Any, tmp_path: Path) -> None:
    """The very same network with one weight moved: its digest gives it away, or, pinned anew, its probe."""
    other = Path(shutil.copytree(calibrated, tmp_path / "other"))
    model = onnx.load(other / "model.onnx")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "4.weight")
    array = numpy_helper.to_array(tensor).copy()
    array[0] += 1
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    (other / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        prune(other, tmp_path / "student.onnx", config=Config(channels=0.5))
    repin(other, {"model.onnx": model.SerializeToString()})
    with pytest.raises(IntegrityError, match=r"probe .*a difference of"):
        prune(other, tmp_path / "student.onnx", config=Config(channels=0.5))


def test_what_is_wrong_is_said_before_the_bundle_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to do"):
        prune(tmp_path / "none", tmp_path / "student.onnx", config=Config())
    (tmp_path / "taken.onnx").write_bytes(b"")
    with pytest.raises(OutputExists):
        prune(tmp_path / "none", tmp_path / "taken.onnx", config=Config(channels=0.5))
