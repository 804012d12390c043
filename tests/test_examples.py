"""The programs in examples/ run as their first lines say, and the published bundle there is what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from dfmeta.bundle import Bundle
from dfmeta.graph import Graph
from dfmeta.pipeline import validate

MEBIBYTE = 2**20


def run(repository: Path, folder: Path, *words: object, path: Path | None = None) -> str:
    """Run Python in ``folder``, with dfmeta, and with ``path`` if given; what it printed."""
    found = [str(repository), *([str(path)] if path else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(found)}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def examples(repository: Path) -> Path:
    return repository / "examples"


def test_publish(repository: Path, examples: Path, tmp_path: Path) -> None:
    said = run(repository, tmp_path, examples / "publish.py", "--out", "release")
    assert "valid: True" in said
    assert float(said.split("teacher: ")[1].split(" %")[0]) > 95
    assert validate(tmp_path / "release", strict=True).valid


def test_consume(repository: Path, examples: Path, tmp_path: Path) -> None:
    said = run(repository, tmp_path, examples / "consume.py", "--out", "student.onnx", "--steps", "100")
    assert "15,738 parameters; the teacher has 61,706" in said
    assert float(said.split("synthetic inputs: ")[1].split(" %")[0]) > 50
    assert load_file(tmp_path / "student.safetensors")["x"].shape == (500, 1, 32, 32)
    assert opset(tmp_path / "student.onnx") == 18


def test_extend(repository: Path, examples: Path, tmp_path: Path) -> None:
    said = run(repository, tmp_path, examples / "extend.py", "--out", "student.onnx")
    assert float(said.split("its own inputs: ")[1].split(" %")[0]) > 50
    assert opset(tmp_path / "student.onnx") == 18


def test_extend_through_an_entry_point(repository: Path, examples: Path, tmp_path: Path) -> None:
    entry = (examples / "extend.py").read_text().split('[project.entry-points."dfmeta.synthesis"]\n')[1].split("\n")[0]
    name, _, module = entry.strip().replace('"', "").partition(" = ")
    installed(tmp_path, "extend", "dfmeta.synthesis", {name: module})
    (tmp_path / "extend.py").write_bytes((examples / "extend.py").read_bytes())
    words = ("-m", "dfmeta", "distill", examples / "lenet5-mnist", "--method", "class-gaussian", "--set", "spread=0.5")
    said = run(
        repository,
        tmp_path,
        *(*words, "--student", "extend:small", "--steps", "5", "--out", "student.onnx", "--json"),
        path=tmp_path,
    )
    assert json.loads(said)["method"] == "class-gaussian"


def installed(folder: Path, name: str, group: str, entries: dict[str, str]) -> None:
    """What pip leaves behind for a package with entry points, so that ``folder`` on the path is enough."""
    made = folder / f"{name}-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    lines = [f"{key} = {value}" for key, value in entries.items()]
    (made / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))


def test_a_kind_from_another_package(repository: Path, examples: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(examples / "sparsity", package)
    shutil.copy(examples / "digits-cnn.onnx", tmp_path)
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    installed(package, "dfmeta_sparsity", "dfmeta.kinds", project["entry-points"]["dfmeta.kinds"])
    said = run(repository, tmp_path, package / "record.py", "--out", "release", path=package)
    assert "% of all pixels are zero" in said
    known = run(repository, tmp_path, "-m", "dfmeta", "validate", "release", "--json", path=package)
    assert json.loads(known)["valid"]
    assert not json.loads(known)["warnings"]
    laws = run(repository, tmp_path, "-m", "pytest", "-q", package, "-p", "no:cacheprovider", path=package)
    assert "passed" in laws
    # Without the package the bundle is as valid, and its records are passed over.
    report = validate(tmp_path / "release")
    assert report.valid
    assert any("'sparsity'" in warning for warning in report.warnings)


def test_shard_and_merge(repository: Path, examples: Path, tmp_path: Path) -> None:
    said = run(repository, tmp_path, examples / "shard_and_merge.py", "--out", "release")
    assert "8 records over 1442 units" in said
    assert "valid: True" in said


def test_train_lenet5_mnist(repository: Path, examples: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (300, 28, 28), dtype=np.uint8), np.arange(300) % 10
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    words = ("--data", "mnist.npz", "--out", "lenet5.onnx", "--epochs", "1")
    assert "test accuracy" in run(repository, tmp_path, examples / "train_lenet5_mnist.py", *words)
    shipped = Graph.from_file(examples / "lenet5-mnist.onnx")
    made = Graph.from_file(tmp_path / "lenet5.onnx")
    assert {name: array.shape for name, array in made.initializers.items()} == {
        name: array.shape for name, array in shipped.initializers.items()
    }


def opset(path: Path) -> int:
    """Of a file that ONNX's own checker accepts."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return int(model.opset_import[0].version)


def test_the_published_bundle_is_what_it_says(examples: Path) -> None:
    report = validate(examples / "lenet5-mnist", strict=True)
    assert report.valid, report.problems
    assert report.warnings == ()


def test_the_published_bundle_is_of_the_model_beside_it(examples: Path) -> None:
    bundle = Bundle.open(examples / "lenet5-mnist")
    assert bundle.graph_bytes() == (examples / "lenet5-mnist.onnx").read_bytes()
    assert [data.unit_count for data in bundle.manifest.datasets] == [60_000]
    ranks = {r.configuration["rank"] for r in bundle.manifest.records if r.kind == "spectrum"}
    # As its README says: five eigenpairs, six sites.
    assert (ranks, len(bundle.manifest.sites)) == ({5}, 6)


def test_the_published_bundle_is_small_and_speaks_of_whole_classes(examples: Path) -> None:
    sizes = [path.stat().st_size for path in (examples / "lenet5-mnist").rglob("*") if path.is_file()]
    assert max(sizes) < MEBIBYTE
    assert sum(sizes) < 1_400_000
    bundle = Bundle.open(examples / "lenet5-mnist")
    by_class = [record.id for record in bundle.manifest.records if record.group.by == "class"]
    assert by_class
    for record in by_class:
        assert bundle.tensor(record, "count").min() > 5000


def test_the_digits_model_is_the_one_that_publish_makes(examples: Path) -> None:
    graph = Graph.from_file(examples / "digits-cnn.onnx")
    (statement,) = [line for line in (examples / "publish.py").read_text().splitlines() if " parameters." in line]
    trained = sum(graph.initializers[name].size for name in graph.weights)
    assert f"{trained:,} parameters" in statement
