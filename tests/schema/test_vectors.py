"""Every conformance vector, through the reader and through the published JSON Schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from dfmeta.errors import SchemaError, UnsupportedVersion
from dfmeta.schema import load_manifest

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "spec" / "vectors" / "1.0"
CASES = sorted(path.parent for path in VECTORS.glob("*valid/*/expected.json"))
MUST_HAVE = {
    *(
        "minimal",
        "full",
        "unknown-member",
        "higher-minor",
        "unknown-extension",
        "unknown-major",
        "nan",
        "too-deep",
    ),
    *(
        "unknown-required-feature",
        "duplicate-key",
        "path-parent",
        "path-absolute",
        "path-backslash",
        "bad-sha256",
    ),
    *("path-case-twin", "dangling-site", "duplicate-id", "wrong-format"),
}


def name_of(case: Path) -> str:
    return f"{case.parent.name}-{case.name}"


def schema(name: str) -> Draft202012Validator:
    document = json.loads((ROOT / "spec" / "schema" / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


OPEN, STRICT = schema("dfmeta-1.0.schema.json"), schema("dfmeta-1.0.strict.schema.json")


def test_the_vectors_are_all_there():
    assert {case.name for case in CASES} >= MUST_HAVE


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_reader_gives_the_expected_verdict(case):
    expected = json.loads((case / "expected.json").read_text(encoding="utf-8"))
    raw = (case / "dfmeta.json").read_bytes()
    if expected["verdict"] == "valid":
        assert bool(load_manifest(raw).warnings) is expected["warns"]
    elif expected["code"] == "unsupported-version":
        with pytest.raises(UnsupportedVersion) as refused:
            load_manifest(raw)
        assert refused.value.where == f"dfmeta.json: {expected['where']}"
    else:
        with pytest.raises(SchemaError) as caught:
            load_manifest(raw)
        (problem,) = caught.value.problems
        assert problem.code == expected["code"]
        assert problem.where.startswith(expected["where"])
        assert f"[{problem.code}]" in str(caught.value)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_json_schemas_give_the_expected_verdict(case):
    expected = json.loads((case / "expected.json").read_text(encoding="utf-8"))
    if expected["schema"] == "unparsed":
        return
    document = json.loads((case / "dfmeta.json").read_bytes())
    assert OPEN.is_valid(document) is (expected["schema"] == "valid")
    strict = expected.get("strict_schema", expected["schema"])
    assert STRICT.is_valid(document) is (strict == "valid")


@pytest.mark.parametrize("case", [case for case in CASES if case.parent.name == "valid"], ids=name_of)
def test_strict_reading_and_the_strict_schema_agree(case):
    expected = json.loads((case / "expected.json").read_text(encoding="utf-8"))
    # Roles are open in both schemas: a file of another role is legal, and strict reading still points it out.
    wanted = expected["strict_schema"] == "valid" and case.name != "unknown-role"
    raw = (case / "dfmeta.json").read_bytes()
    if wanted:
        load_manifest(raw, strict=True)
        return
    with pytest.raises(SchemaError) as caught:
        load_manifest(raw, strict=True)
    assert {problem.code for problem in caught.value.problems} <= {"unknown-member", "unknown-value"}


@pytest.mark.parametrize("tool", ["make_schema.py", "make_vectors.py"])
def test_what_is_generated_is_fresh(tool):
    command = [sys.executable, str(ROOT / "tools" / tool), "--check"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


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
