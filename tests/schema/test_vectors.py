"""Every conformance vector, through the validator, the reader and the published JSON Schemas."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dfmeta.bundle import Report
from dfmeta.errors import SchemaError
from dfmeta.pipeline import validate
from dfmeta.schema import load_manifest
from dfmeta.testing.conformance import Answer, index, judge

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "spec" / "vectors" / "1.0"
CASES = index(VECTORS)
AREAS = {"json", "schema", "paths", "references", "digests", "safetensors", "numbers", "graph", "future"}
UNSUPPORTED = {"unsupported-version", "unsupported-feature"}


def folder(case: dict[str, Any]) -> Path:
    return VECTORS / case["folder"] / case["id"]


def schema(name: str) -> Draft202012Validator:
    document = json.loads((ROOT / "spec" / "schema" / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


OPEN, STRICT = schema("dfmeta-1.0.schema.json"), schema("dfmeta-1.0.strict.schema.json")


def answer(report: Report) -> Answer:
    codes = tuple(problem.code for problem in report.problems)
    code = 0 if report.valid else 3 if UNSUPPORTED & set(codes) else 1
    return Answer(code, report.valid, codes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_validation_agrees(case):
    report = validate(folder(case))
    result = judge(case, answer(report))
    assert result.outcome == "agrees", [str(problem) for problem in report.problems]
    if case["verdict"] != "invalid":
        assert bool(report.warnings) is case["warns"], report.warnings


@pytest.mark.parametrize("case", [case for case in CASES if case["schema"] != "unparsed"], ids=lambda case: case["id"])
def test_the_json_schemas_agree(case):
    document = json.loads((folder(case) / "dfmeta.json").read_bytes())
    assert OPEN.is_valid(document) == (case["schema"] == "valid")
    if "strict_schema" in case:
        assert STRICT.is_valid(document) == (case["strict_schema"] == "valid")


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.get("strict_schema") == "invalid"], ids=lambda case: case["id"]
)
def test_authors_are_told_what_readers_pass_over(case):
    with pytest.raises(SchemaError) as caught:
        load_manifest((folder(case) / "dfmeta.json").read_bytes(), strict=True)
    assert {problem.code for problem in caught.value.problems} <= {"unknown-member", "unknown-value"}


def test_there_are_as_many_as_were_promised():
    verdicts = Counter(case["verdict"] for case in CASES)
    assert verdicts["valid"] >= 30
    assert verdicts["invalid"] >= 120
    assert {case["area"] for case in CASES} == AREAS
    assert {case["level"] for case in CASES} == {"bundle", "graph"}
    assert len({case["id"] for case in CASES}) == len(CASES)


def test_the_folders_are_those_of_the_index():
    there = {path.relative_to(VECTORS).as_posix() for path in VECTORS.glob("*/*") if path.is_dir()}
    assert there == {f"{case['folder']}/{case['id']}" for case in CASES}


def test_each_folder_holds_its_verdict():
    for case in CASES:
        allowed = {"valid": ("valid", "acceptable"), "invalid": ("invalid",), "compat": ("valid",)}[case["folder"]]
        assert case["verdict"] in allowed, case["id"]
        assert ("code" in case) == (case["verdict"] != "valid"), case["id"]


def test_the_digests_are_those_of_the_files():
    for case in CASES:
        files = sorted(path for path in folder(case).rglob("*") if path.is_file())
        pairs = sorted((path.relative_to(folder(case)).as_posix(), path.read_bytes()) for path in files)
        lines = "".join(f"{hashlib.sha256(raw).hexdigest()}  {name}\n" for name, raw in pairs)
        assert hashlib.sha256(lines.encode()).hexdigest() == case["sha256"], case["id"]


def test_they_stay_small():
    assert sum(path.stat().st_size for path in VECTORS.rglob("*") if path.is_file()) < 2 * 2**20


@pytest.mark.parametrize("tool", ["make_schema.py", "make_vectors.py"])
def test_what_is_generated_is_fresh(tool):
    command = [sys.executable, str(ROOT / "tools" / tool), "--check"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("damage", ["changed", "extra", "missing"])
def test_stale_vectors_fail_the_check(tmp_path, damage):
    """The freshness check can fail: run from a copy of the tool, with one file that is not what it would write."""
    tools = ROOT / "tools"
    for source in [tools / "make_vectors.py", *(tools / "vectors").glob("*.py")]:
        target = tmp_path / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    command = [sys.executable, str(tmp_path / "tools" / "make_vectors.py")]
    subprocess.run(command, capture_output=True, check=True)
    kept = tmp_path / "spec" / "vectors" / "1.0" / "valid" / "minimal" / "dfmeta.json"
    assert kept.read_bytes() == (VECTORS / "valid" / "minimal" / "dfmeta.json").read_bytes()
    if damage == "changed":
        kept.write_bytes(kept.read_bytes() + b" ")
    elif damage == "extra":
        kept.with_name("more.json").write_bytes(b"{}")
    else:
        kept.unlink()
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "valid/minimal/" in done.stderr


def test_a_stale_schema_fails_the_check(tmp_path):
    """The freshness check itself can fail: run from a copy of the tool with nothing beside it."""
    (tmp_path / "tools").mkdir()
    copy = tmp_path / "tools" / "make_schema.py"
    copy.write_bytes((ROOT / "tools" / "make_schema.py").read_bytes())
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(copy), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert "stale" in done.stderr
