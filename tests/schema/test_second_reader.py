"""The reader of ``spec/reader``, which knows the format from its text alone, beside dfmeta's own."""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfmeta.bundle import Bundle, usable, validate
from dfmeta.testing import conformance

ROOT = Path(__file__).resolve().parents[2]
READER = ROOT / "spec" / "reader"
VECTORS = ROOT / "spec" / "vectors" / "1.0"
CASES: list[dict[str, Any]] = json.loads((VECTORS / "index.json").read_bytes())["cases"]
RELEASED = [path.parent for path in sorted((ROOT / "tests" / "compat").rglob("dfmeta.json"))]
EXAMPLES = [path.parent for path in sorted((ROOT / "examples").rglob("dfmeta.json"))]
MOST_LINES = 600


@pytest.fixture(scope="module")
def reader():
    """The package, as one who puts ``spec/`` on the path finds it."""
    before = set(sys.modules)
    sys.path.insert(0, str(READER.parent))
    try:
        import reader as found

        yield found
    finally:
        sys.path.remove(str(READER.parent))
        for name in {name for name in sys.modules if name.partition(".")[0] == "reader"} - before:
            del sys.modules[name]


def imported(source: str) -> set[str]:
    """The top of every module that a source names in an import, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0] if not node.level else "reader")
    return found


def foreign(source: str) -> set[str]:
    return imported(source) - sys.stdlib_module_names - {"numpy", "reader"}


def test_it_needs_the_standard_library_and_numpy_alone():
    assert set().union(*(foreign(path.read_text()) for path in READER.glob("*.py"))) == set()


def test_a_foreign_import_would_be_seen():
    assert foreign("def late():\n    from dfmeta.errors import Problem\nimport jsonschema.validators") == {
        "dfmeta",
        "jsonschema",
    }


def test_it_imports_nothing_by_name_at_run_time():
    text = "".join(path.read_text() for path in READER.glob("*.py"))
    assert not [word for word in ("importlib", "__import__", "exec(", "eval(", "import pickle") if word in text]


def test_it_is_small():
    assert sum(len(path.read_text().splitlines()) for path in READER.glob("*.py")) < MOST_LINES


def test_both_readers_agree_on_every_vector(reader):
    """Verdict and code of each; in this process, as the runner's own processes take minutes."""

    def answer(folder: Path) -> conformance.Answer:
        code = refusal(reader, folder)
        said = 3 if code in conformance.UNSUPPORTED_CODES else int(code is not None)
        return conformance.Answer(said, code is None, () if code is None else (code,), ("graph",))

    results = {result.id: result for result in conformance.run(VECTORS, answer)}
    assert results.keys() == {case["id"] for case in CASES}
    outcomes = {"bundle": "agrees", "graph": "not-examined"}
    assert not [result for case in CASES if (result := results[case["id"]]).outcome != outcomes[case["level"]]]


def test_dfmeta_says_the_same_of_every_bundle_vector(reader):
    decided = [case for case in CASES if case["level"] == "bundle" and case["verdict"] != "acceptable"]
    folders = [VECTORS / case["folder"] / case["id"] for case in decided]
    said = {folder: {problem.code for problem in validate(folder).problems} for folder in folders}
    assert not [folder for folder in folders if said[folder] != {refusal(reader, folder)} - {None}]


def refusal(reader, folder: Path) -> str | None:
    try:
        reader.read(folder)
    except reader.Refused as problem:
        return problem.code
    return None


@pytest.mark.parametrize("only", ["no-format", "leap-second", "required-feature", "graph-cut-short", "valid/full"])
def test_the_command_says_what_the_runner_asks(only):
    case = next(case for case in CASES if only in (case["id"], f"{case['folder']}/{case['id']}"))
    answer = conformance.command([sys.executable, str(READER)], 60)(VECTORS / case["folder"] / case["id"])
    assert conformance.judge(case, answer).outcome in ("agrees", "not-examined"), answer


VALID = [VECTORS / case["folder"] / case["id"] for case in CASES if case["verdict"] == "valid"]


@pytest.mark.parametrize("folder", [*RELEASED, *EXAMPLES, *VALID], ids=lambda path: path.name)
def test_it_returns_the_records_that_dfmeta_loads(reader, folder):
    found, bundle = reader.read(folder), Bundle.open(folder)
    assert found.identity == bundle.identity
    read = {record.id: record for record in bundle.manifest.records if usable(record)}
    assert found.records.keys() == read.keys()
    for name in read:
        same(found.records[name], bundle.record_tensors(name))
    same(found.probe, bundle.probe_tensors() if bundle.manifest.model.probe else {})


def same(found, expected) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert (found[name].dtype, found[name].shape) == (expected[name].dtype, expected[name].shape), name
        assert np.array_equal(found[name], expected[name]), name
        assert not found[name].flags.writeable


@pytest.fixture
def bundle_folder(tmp_path):
    """A valid bundle that may be changed, at a place like that of the hub's cache."""
    folder = tmp_path / "repository" / "snapshots" / "main"
    (folder / "dfmeta").mkdir(parents=True)
    (tmp_path / "repository" / "blobs").mkdir()
    source = VECTORS / "valid" / "small"
    for path in source.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(source)).write_bytes(path.read_bytes())
    return folder


SIDECAR = "dfmeta/records.safetensors"


def test_a_link_out_of_the_bundle_is_not_followed(reader, bundle_folder, tmp_path):
    target = (bundle_folder / SIDECAR).rename(tmp_path / "elsewhere")
    (bundle_folder / SIDECAR).symlink_to(target)
    assert refusal(reader, bundle_folder) == "symlink"


def test_a_folder_that_is_a_link_is_not_followed(reader, bundle_folder, tmp_path):
    (bundle_folder / "dfmeta").rename(tmp_path / "elsewhere")
    (bundle_folder / "dfmeta").symlink_to(tmp_path / "elsewhere")
    assert refusal(reader, bundle_folder) == "symlink"


def test_the_hub_s_cache_is_read(reader, bundle_folder):
    blob = bundle_folder.parents[1] / "blobs" / ("a" * 64)
    (bundle_folder / SIDECAR).rename(blob)
    (bundle_folder / SIDECAR).symlink_to(f"../../../blobs/{blob.name}")
    assert refusal(reader, bundle_folder) is None
    (bundle_folder / SIDECAR).unlink()
    (bundle_folder / SIDECAR).symlink_to(f"../../../../repository/blobs/{blob.name}")
    assert refusal(reader, bundle_folder) == "symlink"


def test_a_blob_that_is_a_link_is_not_followed(reader, bundle_folder, tmp_path):
    target = (bundle_folder / SIDECAR).rename(tmp_path / "elsewhere")
    (bundle_folder.parents[1] / "blobs" / ("a" * 64)).symlink_to(target)
    (bundle_folder / SIDECAR).symlink_to(f"../../../blobs/{'a' * 64}")
    assert refusal(reader, bundle_folder) == "symlink"


@pytest.mark.parametrize("member", ["dfmeta.json", SIDECAR])
def test_it_does_not_wait_on_a_fifo(reader, bundle_folder, member):
    (bundle_folder / member).unlink()
    os.mkfifo(bundle_folder / member)
    assert refusal(reader, bundle_folder) == "not-a-file"


def test_no_folder_and_too_large_a_manifest(reader, bundle_folder):
    assert refusal(reader, bundle_folder / "nowhere") == "no-folder"
    manifest = bundle_folder / "dfmeta.json"
    manifest.write_bytes(manifest.read_bytes() + b" " * (4 << 20))
    assert refusal(reader, bundle_folder) == "too-large"


def test_more_records_than_memory_are_refused_before_they_are_read(reader, bundle_folder):
    with pytest.raises(reader.Refused) as refused:
        reader.read(bundle_folder, memory=100)
    assert refused.value.code == "reader-memory"


@pytest.mark.parametrize("text", [b"[" * 1_000_000, b'"' + b'\\"' * 1_000_000, b"1" * 1_000_000])
def test_long_texts_take_little_time(reader, bundle_folder, text):
    (bundle_folder / "dfmeta.json").write_bytes(text)
    assert refusal(reader, bundle_folder) in ("too-deep", "not-json", "number-out-of-range")
