"""The exception tree is what its docstring draws, and every error reads the same way."""

from __future__ import annotations

import inspect
import json
import re

import pytest

from dfmeta import errors
from dfmeta.errors import (
    DfmetaError,
    GraphError,
    LimitExceeded,
    MissingExtra,
    OutputExists,
    Problem,
    SchemaError,
    UnknownName,
)

CLASSES: dict[str, type[DfmetaError]] = {
    name: item
    for name, item in vars(errors).items()
    if inspect.isclass(item) and issubclass(item, DfmetaError) and item.__module__ == errors.__name__
}
SAMPLES: dict[type[DfmetaError], DfmetaError] = {
    SchemaError: SchemaError("dfmeta.json", [Problem("files", "missing", "nothing", "a list", "Add it.")]),
    UnknownName: UnknownName("student", "lenet", ["lenet5", "mlp"]),
    OutputExists: OutputExists("out"),
    MissingExtra: MissingExtra("PIL", "images", "decoding images"),
}
# The root's line is also the heading of the columns.
LINE = re.compile(
    r"^    (?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: \((?P<mixin>\w+)\))? +(?P<code>\d|exit code) +\S",
    re.MULTILINE,
)
Tree = dict[str, tuple[str | None, str | None, str]]


def drawn(text: str) -> Tree:
    """The tree of a docstring: name to parent, second base and exit code."""
    tree: Tree = {}
    path: list[str] = []
    for line in LINE.finditer(text):
        depth = len(line["branch"]) // 3
        path[depth:] = [line["name"]]
        tree[line["name"]] = (path[depth - 1] if depth else None, line["mixin"], line["code"])
    return tree


def actual() -> Tree:
    tree: Tree = {"DfmetaError": (None, None, "exit code")}
    for name, item in CLASSES.items():
        first, *others = item.__bases__
        if name not in tree:
            tree[name] = (first.__name__, others[0].__name__ if others else None, str(item.exit_code))
    return tree


def test_the_docstring_draws_the_tree() -> None:
    assert errors.__doc__ is not None
    assert drawn(errors.__doc__) == actual()


def test_the_drawing_is_read_closely() -> None:
    assert errors.__doc__ is not None
    for change in [
        ("MergeError                    2", "MergeError                    1"),
        ("├─ StepError", "│  ├─ StepError"),
    ]:
        assert drawn(errors.__doc__.replace(*change)) != actual()


@pytest.mark.parametrize("item", CLASSES.values(), ids=CLASSES)
def test_text_shape(item: type[DfmetaError]) -> None:
    error = SAMPLES.get(item) or item("model.onnx", "one thing", "another", "Do this.")
    assert isinstance(error, item)
    assert error.exit_code in (1, 2, 3)
    assert str(error).startswith(f"{error.where}: found {error.found}, expected {error.expected}.")
    assert error.fix in str(error)
    facts = json.loads(json.dumps(error.as_dict()))
    assert facts["type"] == item.__name__
    assert facts["where"] == error.where


def test_parts_may_be_left_out() -> None:
    assert str(DfmetaError("a", "b")) == "a: found b."
    assert str(DfmetaError("a", "b", fix="Do c.")) == "a: found b. Do c."


def test_every_problem_of_a_manifest_is_listed() -> None:
    problems = [
        Problem("files[0].id", "duplicate-id", "'a' twice", "unique ids", "Rename one."),
        Problem("model", "missing", "nothing"),
    ]
    error = SchemaError("dfmeta.json", problems)
    assert str(error) == (
        "dfmeta.json: found 2 problems, expected none. They are:\n"
        "  files[0].id: found 'a' twice, expected unique ids. Rename one. [duplicate-id]\n"
        "  model: found nothing. [missing]"
    )
    listed = error.as_dict()["problems"]
    assert isinstance(listed, list)
    assert [problem["code"] for problem in listed] == ["duplicate-id", "missing"]


def test_unknown_names_come_with_the_known_ones() -> None:
    assert str(SAMPLES[UnknownName]) == ("student: found 'lenet', expected one of lenet5, mlp. Did you mean 'lenet5'?")
    assert str(UnknownName("student", "x", [])) == "student: found 'x', expected one of (none)."
    with pytest.raises(LookupError):
        raise UnknownName("student", "x", [])


def test_other_special_texts() -> None:
    assert str(SAMPLES[OutputExists]) == (
        "out: found something already there, expected a path that does not exist yet. "
        "Choose another output path, or move the old one away."
    )
    assert str(SAMPLES[MissingExtra]) == (
        "decoding images: found no package 'PIL', expected it to be installed. Run: pip install 'dfmeta[images]'"
    )
    assert isinstance(SAMPLES[MissingExtra], ImportError)


def test_a_code_is_told_where_there_is_one() -> None:
    assert GraphError("m.onnx", "a loop", code="graph-control-flow").as_dict()["code"] == "graph-control-flow"
    assert LimitExceeded("m.onnx", "9 GiB", code="memory-limit").as_dict()["code"] == "memory-limit"
    assert "code" not in OutputExists("out").as_dict()
