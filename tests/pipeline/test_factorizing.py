"""``factorize`` from a bundle to a file: checked, measured, the same again, and nothing written where it fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dfmeta.errors import BundleError, DataError, IntegrityError, OutputExists, StepError
from dfmeta.graph import Graph, costs
from dfmeta.pipeline.factorizing import Config, Factorized, factorize

Repin = Callable[[Path, Mapping[str, bytes]], None]


@pytest.fixture(scope="module")
def done(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Factorized:
    out = tmp_path_factory.mktemp("factorized") / "student.onnx"
    return factorize(calibrated, out, config=Config(params=0.7), data="digits:test")


def test_the_file_is_what_was_asked_for(done: Factorized, digits_teacher: Graph) -> None:
    graph = Graph.from_file(done.written.path)
    assert costs(graph) == done.written.costs
    assert [value.name for value in graph.inputs] == [value.name for value in digits_teacher.inputs]
    assert [value.name for value in graph.outputs] == [value.name for value in digits_teacher.outputs]
    assert done.parameters <= 0.7 * done.parameters_before
    assert done.parameters_before == sum(array.size for array in digits_teacher.initializers.values() if array.ndim > 1)
    assert sum(done.forms.values()) == len(done.operators) == 3
    assert not done.left
    note = {entry.key: entry.value for entry in graph.model.metadata_props}
    recipe = json.loads(note["dfmeta.recipe"])
    assert (recipe["step"], recipe["params"], recipe["macs"]) == ("factorize", 0.7, None)
    assert note["dfmeta.source_manifest_sha256"] == done.written.source


def test_it_reads_digits_better_than_without_records(done: Factorized, digits_bundle: Path, tmp_path: Path) -> None:
    """The network is small: it has little that nobody misses."""
    config = Config(params=0.7, fallback="plain")
    plain = factorize(digits_bundle, tmp_path / "plain.onnx", config=config, data="digits:test").written.evaluation
    found = done.written.evaluation
    assert found is not None
    assert plain is not None
    assert (found.accuracy or 0) > (plain.accuracy or 0) + 5
    assert (found.accuracy or 0) > 85


def test_data_changes_nothing_in_it_and_neither_does_time(calibrated: Path, done: Factorized, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int, float]] = []
    other = factorize(
        calibrated, tmp_path / "o.onnx", config=Config(params=0.7), progress=lambda *facts: seen.append(facts)
    )
    assert other.written.path.read_bytes() == done.written.path.read_bytes()
    assert other.written.evaluation is None
    assert {stage for stage, *_ in seen} == {"decompose", "factorize"}


def test_an_output_that_exists_is_left_alone(calibrated: Path, tmp_path: Path) -> None:
    out = tmp_path / "taken.onnx"
    out.write_bytes(b"mine")
    with pytest.raises(OutputExists):
        factorize(calibrated, out)
    assert out.read_bytes() == b"mine"


def test_wrong_settings_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="params: found 2, expected a share above 0 and below 1"):
        factorize(tmp_path / "nowhere", tmp_path / "o.onnx", config=Config(params=2.0))


def test_a_bundle_without_second_moments(digits_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"no second moment of the input of .*, .*, .*'calibration'"):
        factorize(digits_bundle, tmp_path / "o.onnx")
    assert not list(tmp_path.iterdir())
    found = factorize(digits_bundle, tmp_path / "o.onnx", config=Config(fallback="plain"))
    assert {operator.record for operator in found.operators} == {""}


def test_records_of_another_graph(calibrated: Path, digits_teacher: Graph, repin: Repin, tmp_path: Path) -> None:
    """Other weights under the same names: other bytes than are pinned, or other answers than the probe's."""
    model = onnx.ModelProto()
    model.CopyFrom(digits_teacher.model)
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) > 1)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))
    bundle = Path(shutil.copytree(calibrated, tmp_path / "other"))
    raw = (bundle / "model.onnx").read_bytes()
    changed = model.SerializeToString()
    (bundle / "model.onnx").write_bytes(changed)
    with pytest.raises(IntegrityError):
        factorize(bundle, tmp_path / "o.onnx")
    repin(bundle, {"model.onnx": changed})
    with pytest.raises((IntegrityError, BundleError)):
        factorize(bundle, tmp_path / "o.onnx")
    repin(bundle, {"model.onnx": raw})
    assert factorize(bundle, tmp_path / "o.onnx").written.path.exists()
