"""The specification's text against the code: tables, codes, clauses and file names cannot drift apart."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from dfmeta.schema import v1

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "spec" / "dfmeta-1.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^#{2,4} (?:([0-9.]+) )?(.*)$", re.MULTILINE)
NODES = {name: getattr(v1, name) for name in v1.__all__ if isinstance(getattr(v1, name), type)}
DESCRIBED = sorted(NODES.keys() - {"Node", "UnknownAddress", "UnknownOp"})
# Which positional argument of these calls is a problem's code.
CODE_ARGUMENTS = {
    **dict.fromkeys(("Problem", "_head", "Grammar", "_MemberPath", "report", "digest_problem", "_repeated"), 1),
    **dict.fromkeys(("_Bad", "PydanticCustomError"), 0),
}


def sections() -> dict[str, str]:
    parts = list(HEADING.finditer(TEXT))
    ends = [part.start() for part in parts[1:]] + [len(TEXT)]
    return {part[2]: TEXT[part.end() : end] for part, end in zip(parts, ends, strict=True)}


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("name", DESCRIBED)
def test_each_node_has_a_table_that_says_what_the_model_says(name):
    node = NODES[name]
    said = {row[0].strip("`"): row[2] for row in rows(sections()[name])}
    fields = {field.alias or key: field for key, field in node.model_fields.items()}
    assert list(said) == list(fields)
    for member, field in fields.items():
        # A writer's convenience: these have defaults in the models, and a manifest must hold them.
        needed = field.is_required() or member in ("format", "format_version", "op", "scheme")
        default = field.get_default(call_default_factory=True)
        wanted = "yes" if needed else "-" if default is None else f"`{json.dumps(default)}`"
        assert said[member] == wanted, member


def codes_in_source() -> set[str]:
    found = {"unsupported-version"}
    sources = [*ROOT.glob("dfmeta/schema/**/*.py"), *ROOT.glob("dfmeta/bundle/*.py")]
    sources += [ROOT / "dfmeta" / name for name in ("pipeline/check.py", "pipeline/fit.py", "records/probe.py")]
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_CODES":
                found |= {value.value for value in getattr(node.value, "values", []) if isinstance(value, ast.Constant)}
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            index = CODE_ARGUMENTS.get(name)
            if index is not None and len(node.args) > index:
                argument = node.args[index]
                values = ast.walk(argument)
                found |= {
                    each.value for each in values if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
    return {code for code in found if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)}


def test_every_code_is_in_the_table_and_every_row_is_a_code():
    table = {row[0].strip("`") for row in rows(sections()["Problem codes"])}
    assert codes_in_source() - {"hole", "overlap"} == table - {"hole", "overlap"}
    assert {"hole", "overlap"} <= table


def test_every_clause_that_is_cited_exists():
    clauses = {part[1] for part in HEADING.finditer(TEXT) if part[1]}
    cited = {row[2] for row in rows(sections()["Problem codes"])}
    for path in (ROOT / "spec" / "vectors" / "1.0").glob("*valid/*/expected.json"):
        cited.add(json.loads(path.read_bytes())["clause"])
    assert cited <= clauses


def test_every_vector_cites_the_clause_that_the_table_gives_or_one_inside_it():
    table = {row[0].strip("`"): row[2] for row in rows(sections()["Problem codes"])}
    for path in (ROOT / "spec" / "vectors" / "1.0").glob("invalid/*/expected.json"):
        expected = json.loads(path.read_bytes())
        assert expected["code"] in table, path


def test_every_test_that_the_list_of_attacks_names_exists():
    text = (ROOT / "spec" / "attacks" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[^`]+)`", text))
    assert len(named) >= 6
    assert {name for name in named if not (ROOT / name).is_file()} == set()
