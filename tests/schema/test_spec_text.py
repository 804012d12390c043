"""The specification's text against the code: tables, examples, codes, clauses and names cannot drift apart."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from dfmeta._catalog import KINDS
from dfmeta.bundle import parse_header
from dfmeta.records.privacy_ledger import Entry
from dfmeta.records.privacy_ledger import ledger as written
from dfmeta.schema import load_manifest, v1
from dfmeta.testing.conformance import index

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "spec"
TEXT = (SPEC / "dfmeta-1.md").read_text(encoding="utf-8")
CODES = (SPEC / "error-codes.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^#{2,4} (?:([0-9.]+) )?(.*)$", re.MULTILINE)
BLOCK = re.compile(r"^```(\w*) ?(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NODES = {name: getattr(v1, name) for name in v1.__all__ if isinstance(getattr(v1, name), type)}
DESCRIBED = sorted(NODES.keys() - {"Node", "UnknownAddress", "UnknownOp"})
CASES = index(SPEC / "vectors" / "1.0")
# Which positional argument of these calls is a problem's code; graph errors have it by name.
CODE_ARGUMENTS = {
    **dict.fromkeys(("Problem", "_head", "Grammar", "_MemberPath", "report", "digest_problem", "_repeated"), 1),
    **dict.fromkeys(("_tensor",), 1),
    **dict.fromkeys(("_Bad", "PydanticCustomError"), 0),
}
# Codes of which no file of a repository can be an example, or which one reader has and another need not.
NO_VECTOR = {
    "changed-while-read": "a file that changes while it is read",
    "no-folder": "a path that is no folder",
    "symlink": "a link",
    "unreadable": "a permission",
    "unknown-member": "strict validation only",
    "noncharacter": "the vector is acceptable",
    "graph": "a graph that passes the gate and that one runtime does not run",
    "graph-too-large": "files of a hundred thousand nodes",
    "memory-limit": "what one machine allows",
    "time-limit": "what one machine allows",
}


def sections() -> dict[str, str]:
    parts = list(HEADING.finditer(TEXT))
    ends = [part.start() for part in parts[1:]] + [len(TEXT)]
    return {part[2]: TEXT[part.end() : end] for part, end in zip(parts, ends, strict=True)}


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def table() -> dict[str, list[str]]:
    return {row[0].strip("`"): row for row in rows(CODES)}


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


@pytest.mark.parametrize("name", DESCRIBED)
def test_each_example_of_a_table_is_a_value_of_its_member(name):
    fields = {field.alias or key: field for key, field in NODES[name].model_fields.items()}
    for member, *_, example in rows(sections()[name]):
        if example == "below":
            continue
        # Digests are cut short in the tables.
        text = example.strip("`").replace('"0123456789abcdef…"', json.dumps("0123456789abcdef" * 4))
        field = fields[member.strip("`")]
        kind = TypeAdapter(field.rebuild_annotation())
        kind.validate_python(json.loads(text), strict=True)


def blocks(text: str = TEXT) -> list[tuple[str, str]]:
    """Every fenced block of a text: what it is, and its contents."""
    found = [(match[1], match[2], match[3]) for match in BLOCK.finditer(text)]
    assert {language for language, _, _ in found} == {"json"}
    assert 2 * len(found) == text.count("```")
    return [(name, body) for _, name, body in found]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("number", range(len(blocks())))
def test_every_block_is_valid_by_both_schemas(number, strict):
    name, body = blocks()[number]
    document = json.loads(body)
    if name == "Header":
        raw = body.encode()
        size = 8 + len(raw) + max(entry["data_offsets"][1] for key, entry in document.items() if key[0] != "_")
        assert len(parse_header(raw, size).tensors) == len(document) - 1
        return
    schema = json.loads((SPEC / "schema" / f"dfmeta-1.0{'.strict' * strict}.schema.json").read_bytes())
    if name == "Manifest":
        load_manifest(body.encode(), strict=strict)
    else:
        schema = {"$schema": schema["$schema"], "$ref": f"#/$defs/{name}", "$defs": schema["$defs"]}
    Draft202012Validator(schema).validate(document)


def test_a_block_that_is_wrong_would_be_seen():
    schema = json.loads((SPEC / "schema" / "dfmeta-1.0.schema.json").read_bytes())
    record = json.loads(next(body for name, body in blocks() if name == "Record"))
    one = Draft202012Validator({"$ref": "#/$defs/Record", "$defs": schema["$defs"]})
    assert one.is_valid(record)
    assert not one.is_valid(record | {"mergeable": "no"})
    assert {name for name, _ in blocks()} >= {"Manifest", "Record", "Site", "Privacy", "Header"}


def codes_in_source() -> set[str]:
    found = {"unsupported-version", "unsupported-feature"}
    sources = [*ROOT.glob("dfmeta/schema/**/*.py"), *ROOT.glob("dfmeta/bundle/*.py"), *ROOT.glob("dfmeta/kinds/*.py")]
    sources += [*ROOT.glob("dfmeta/kinds/*/spec.py")]
    names = (
        "errors.py",
        "pipeline/check.py",
        "pipeline/fit.py",
        "records/probe.py",
        "graph/gate.py",
        "graph/gate_attributes.py",
        "graph/inference.py",
        "cli/isolation.py",
        "cli/bounds.py",
    )
    sources += [ROOT / "dfmeta" / name for name in names]
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_CODES":
                found |= {value.value for value in getattr(node.value, "values", []) if isinstance(value, ast.Constant)}
            found |= named_codes(node)
    found |= {"hole", "overlap", "graph"}  # chosen in an expression, and the default of a graph's error
    return {code for code in found if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)}


def named_codes(node: ast.AST) -> set[str]:
    arguments: list[ast.expr] = []
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        place = CODE_ARGUMENTS.get(name)
        arguments += node.args[place : place + 1] if place is not None else []
        arguments += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
    if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code":
        arguments.append(node.value)
    parts = (part for argument in arguments for part in ast.walk(argument) if isinstance(part, ast.Constant))
    return {part.value for part in parts if isinstance(part.value, str)}


def test_every_code_is_in_the_table_and_every_row_is_a_code():
    assert codes_in_source() == table().keys() - {"noncharacter"}


def test_the_search_for_codes_finds_those_that_are_there():
    found = codes_in_source()
    assert {"bad-id", "wrong-type", "not-finite", "graph-wiring", "graph-text", "site-differs", "not-a-moment"} <= found


def test_every_code_has_a_vector_or_a_reason():
    used = {case["code"] for case in CASES if case["verdict"] == "invalid"}
    assert used | NO_VECTOR.keys() == table().keys()
    assert not used & NO_VECTOR.keys()


def test_every_clause_that_is_cited_exists():
    clauses = {part[1] for part in HEADING.finditer(TEXT) if part[1]}
    cited = {row[2] for row in table().values()} | {case["clause"] for case in CASES}
    assert cited <= clauses


def test_a_code_of_the_graph_is_of_a_vector_of_the_graph():
    for case in CASES:
        if case["verdict"] == "invalid":
            assert (table()[case["code"]][3] == "graph") == (case["level"] == "graph"), case["id"]


def test_every_rule_of_the_gate_is_in_the_text():
    rules = sections()["The gate"]
    gates = {code for code in table() if code.startswith("graph-")}
    assert set(re.findall(r"`(graph-[a-z0-9-]+)`", rules)) == gates


def test_every_kind_has_a_page_that_says_what_its_code_says():
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (SPEC / "record-kinds").glob("*.md")}
    assert pages.keys() == set(KINDS.names())
    for kind, text in pages.items():
        spec = KINDS.load(kind, "spec")
        assert text.startswith(f"# Kind `{kind}`, version {spec.VERSION}\n")
        for convention, value in spec.CONVENTIONS.items():
            assert f"`{convention}: {value}`" in text, kind
        assert f"`mergeable: {'true' if spec.MERGEABLE else 'false'}`" in text, kind
        for heading in (
            "Tensors",
            "Configuration",
            "Example",
            "Conventions",
            "Merging",
            "Validation",
            "Serves",
            "References",
        ):
            assert f"\n## {heading}\n" in text, (kind, heading)


def page(kind: str) -> str:
    return (SPEC / "record-kinds" / f"{kind}.md").read_text(encoding="utf-8")


def under(text: str, heading: str) -> str:
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", KINDS.names())
def test_the_record_of_each_kinds_page_is_one_of_that_kind(kind, strict):
    schema = json.loads((SPEC / "schema" / f"dfmeta-1.0{'.strict' * strict}.schema.json").read_bytes())
    validator = Draft202012Validator({"$ref": "#/$defs/Record", "$defs": schema["$defs"]})
    assert blocks(page(kind))
    for name, body in blocks(page(kind)):
        assert name == "Record"
        document = json.loads(body)
        validator.validate(document)
        record = v1.Record.model_validate(document)
        spec = KINDS.load(kind, "spec")
        layout = spec.layout(record.feature_count, None, record.configuration)
        assert (record.kind, record.kind_version, record.mergeable) == (kind, spec.VERSION, spec.MERGEABLE)
        assert record.conventions == spec.CONVENTIONS
        assert record.tensors.keys() == layout.keys()
        assert (record.paired_site is not None) == getattr(spec, "PAIRED", False)


@pytest.mark.parametrize("kind", KINDS.names())
def test_each_member_of_a_configuration_has_a_row_with_an_example(kind):
    table = {row[0].strip("`"): row for row in rows(under(page(kind), "Configuration"))}
    (record,) = (json.loads(body) for _, body in blocks(page(kind)))
    assert record["configuration"].keys() <= table.keys()
    optional = table.keys() - {name for name, row in table.items() if row[2] in ("yes", "with a window")}
    assert table.keys() - record["configuration"].keys() <= optional
    examples = {name: json.loads(row[5].strip("`")) for name, row in table.items()}
    layout = KINDS.load(kind, "spec").layout
    layout(record["feature_count"], None, examples)
    # A reader asks for what the table calls required, and knows each member: a wrong one is refused.
    for name in table.keys() - optional:
        with pytest.raises(ValueError, match=r"."):
            layout(record["feature_count"], None, {key: value for key, value in examples.items() if key != name})
    for name in table:
        with pytest.raises(ValueError, match=r"."):
            layout(record["feature_count"], None, examples | {name: {}})


def test_the_tables_of_the_ledger_say_what_a_writer_writes_and_what_the_example_has():
    example = next(json.loads(body) for name, body in blocks() if name == "Privacy")["differential_privacy"]
    ledger, mechanism = ({row[0].strip("`"): row for row in rows(sections()[name])} for name in ("Ledger", "Mechanism"))
    entry = Entry("mean", 0.5, 4.0, "gaussian", "s3", "channel", True, ("moments",), 4.0)
    assert list(ledger) == list(written(0.5, [entry], [])) == list(example)
    assert list(mechanism) == list(entry.plain())
    assert {name for name, row in mechanism.items() if row[2] == "SHOULD"} <= example["mechanisms"][0].keys()
    for table, values in ((ledger, example), (mechanism, entry.plain())):
        for name, row in table.items():
            assert type(json.loads(row[5].strip("`"))) is type(values[name]), name


def test_every_code_of_a_kind_is_on_its_page():
    for kind in KINDS.names():
        text = (SPEC / "record-kinds" / f"{kind}.md").read_text(encoding="utf-8")
        source = (ROOT / "dfmeta" / "kinds" / kind.replace("-", "_") / "spec.py").read_text(encoding="utf-8")
        own = {code for node in ast.walk(ast.parse(source)) for code in named_codes(node)}
        assert {code for code in own if code in table()} <= set(re.findall(r"\(`([a-z-]+)`\)", text)), kind


def test_every_test_that_the_list_of_attacks_names_exists():
    text = (SPEC / "attacks" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[^`]+)`", text))
    assert len(named) >= 6
    assert {name for name in named if not (ROOT / name).is_file()} == set()
