"""The runner of the conformance vectors, held against readers that are right, wrong, broken or slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dfmeta.testing import conformance
from dfmeta.testing.conformance import Answer, answer_of, judge

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "spec" / "vectors" / "1.0"
CASE = {"id": "x", "area": "json", "level": "bundle", "verdict": "invalid", "code": "not-json"}
READER = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[-1])
index = json.loads((folder.parents[1] / "index.json").read_bytes())
(case,) = (case for case in index["cases"] if case["id"] == folder.name)
code = case.get("code")
wrong = case["id"] in sys.argv[1:-1]
valid = (case["verdict"] != "invalid") != wrong
errors = [] if valid else [{"code": "made-up" if wrong else code}]
print(json.dumps({"valid": valid, "errors": errors}))
sys.exit(0 if valid else 3 if code and code.startswith("unsupported-") else 1)
"""
SLEEPER = "import time; time.sleep(30)"


def said(code: int, document: object) -> Answer:
    return answer_of(code, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("case", "answer", "outcome"),
    [
        ({}, Answer(1, False, ("not-json",)), "agrees"),
        ({}, Answer(1, False, ("not-json", "not-json")), "agrees"),
        ({}, Answer(1, False, ("not-json", "not-utf8")), "disagrees"),
        ({}, Answer(1, False, ("not-utf8",)), "disagrees"),
        ({}, Answer(3, False, ("not-json",)), "disagrees"),
        ({}, Answer(0, True), "disagrees"),
        ({}, Answer(0, True, (), ("graph",)), "disagrees"),
        ({"level": "graph"}, Answer(0, True, (), ("graph",)), "not-examined"),
        ({"level": "graph"}, Answer(0, True), "disagrees"),
        ({"level": "graph"}, Answer(1, False, ("not-json",), ("graph",)), "agrees"),
        ({"verdict": "valid"}, Answer(0, True), "agrees"),
        ({"verdict": "valid"}, Answer(1, False, ("not-json",)), "disagrees"),
        ({"verdict": "acceptable"}, Answer(0, True), "agrees"),
        ({"verdict": "acceptable"}, Answer(1, False, ("not-json",)), "agrees"),
        ({"verdict": "acceptable"}, Answer(1, False, ("not-utf8",)), "disagrees"),
        ({"code": "unsupported-version"}, Answer(3, False, ("unsupported-version",)), "agrees"),
        ({"code": "unsupported-version"}, Answer(1, False, ("unsupported-version",)), "disagrees"),
        ({"verdict": "valid"}, Answer(3, False, ("memory-limit",)), "reader-limit"),
        ({"level": "graph"}, Answer(3, False, ("time-limit",)), "reader-limit"),
        ({"verdict": "acceptable"}, Answer(3, False, ("reader-memory",)), "reader-limit"),
        ({"verdict": "valid"}, Answer(1, False, ("memory-limit",)), "disagrees"),
        ({"verdict": "valid"}, Answer(3, False, ("memory-limit", "not-json")), "disagrees"),
        ({"verdict": "valid"}, Answer(3, False, ("unsupported-feature",)), "disagrees"),
        ({"verdict": "valid"}, Answer(4, fault="exit code 4"), "disagrees"),
    ],
)
def test_what_agrees(case, answer, outcome):
    assert judge(CASE | case, answer).outcome == outcome


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (answer_of(4, b"{}"), "exit code 4"),
        (answer_of(-11, b""), "exit code -11"),
        (answer_of(0, b""), "not one JSON document"),
        (answer_of(0, b"[" * 100_000), "not one JSON document"),
        (answer_of(0, b'{"valid": true} {}'), "not one JSON document"),
        (said(0, []), "boolean 'valid'"),
        (said(0, {"valid": 1}), "boolean 'valid'"),
        (said(1, {"valid": False, "errors": ["x"]}), "'errors'"),
        (said(1, {"valid": False, "errors": [{"code": 1}]}), "'errors'"),
        (said(0, {"valid": True, "not_examined": "graph"}), "'not_examined'"),
        (said(1, {"valid": True}), "contradict"),
        (said(0, {"valid": False, "errors": [{"code": "x"}]}), "contradict"),
        (said(1, {"valid": False}), "contradict"),
        (said(0, {"valid": True, "errors": [{"code": "x"}]}), "contradict"),
    ],
)
def test_answers_that_are_none(answer, fault):
    assert fault in answer.fault
    assert judge(CASE, answer).outcome == "disagrees"


def run(capsys, *words: str) -> tuple[int, str]:
    code = conformance.main([str(VECTORS), *words])
    return code, capsys.readouterr().out


def test_a_reader_that_agrees(capsys):
    code, out = run(capsys, "--only", "digests", "--", sys.executable, "-c", READER)
    assert code == 0
    assert out.splitlines()[0].split() == ["area", "cases", *conformance.OUTCOMES]
    assert out.splitlines()[-1].split()[0] == "all"


def test_a_reader_that_does_not(capsys):
    code, out = run(
        capsys, "--only", "path-d", "--json", "--jobs", "2", "--", sys.executable, "-c", READER, "path-drive"
    )
    assert code == 1
    facts = json.loads(out)
    assert facts["agrees"] is False
    (wrong,) = (case for case in facts["cases"] if case["outcome"] == "disagrees")
    assert (wrong["id"], wrong["wanted"]) == ("path-drive", "invalid: unsafe-path")
    assert facts["areas"][-1]["disagrees"] == 1


def test_readers_that_hang_or_are_not_there(capsys):
    code, out = run(capsys, "--only", "path-dot", "--timeout", "0.2", "--", sys.executable, "-c", SLEEPER)
    assert (code, "no answer within 0.2 s" in out) == (1, True)
    code, out = run(capsys, "--only", "path-dot", "--", "no-such-program")
    assert (code, "does not run" in out) == (1, True)


def test_a_limit_of_the_reader_is_shown_as_one_and_is_no_agreement(capsys):
    limited = (
        """import json, sys; print(json.dumps({"valid": False, "errors": [{"code": "memory-limit"}]})); sys.exit(3)"""
    )
    code, out = run(capsys, "--only", "path-dot", "--", sys.executable, "-c", limited)
    assert code == 1
    assert "found memory-limit (exit code 3), expected invalid: unsafe-path. A limit of the reader" in out
    code, out = run(capsys, "--json", "--only", "path-dot", "--", sys.executable, "-c", limited)
    facts = json.loads(out)
    total = facts["areas"][-1]
    assert (code, facts["agrees"], total["reader-limit"], total["disagrees"]) == (1, False, total["cases"], 0)


@pytest.mark.parametrize("words", [[], ["--", "true"], [str(VECTORS)], [str(VECTORS), "--"]])
def test_wrong_use(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        conformance.main(words)
    assert left.value.code == 2


def test_no_vectors(tmp_path):
    with pytest.raises(SystemExit) as left:
        conformance.main([str(tmp_path), "--", "true"])
    assert left.value.code == 2


def test_no_case_of_that_name_is_no_agreement(capsys):
    assert run(capsys, "--only", "no such case", "--", "true")[0] == 1


def test_our_own_command_is_such_a_reader(capsys):
    code, out = run(capsys, "--only", "later-m", "--", sys.executable, "-m", "dfmeta", "validate", "--json")
    assert code == 0, out


def test_the_runner_needs_nothing_of_the_tests():
    """Whoever writes a reader of their own has neither pytest nor hypothesis, nor time for torch."""
    program = (
        "import sys; import dfmeta.testing.conformance\n"
        "print([name for name in ('pytest', 'hypothesis', 'torch', 'onnx', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
