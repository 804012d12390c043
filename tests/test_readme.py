"""Every command and every table of the README is run or compared: none can be false for long."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path

import pytest

import dfmeta
from dfmeta import errors, students, synthesis
from dfmeta._catalog import KINDS, STUDENTS, SYNTHESIS
from dfmeta.cli import failures
from dfmeta.cli.app import VERBS
from dfmeta.graph.gate import OPSETS
from dfmeta.graph.ops.registry import entries
from dfmeta.pipeline import method_name
from dfmeta.records import DEFAULT_MIN_UNITS, PRESETS

README = Path(__file__).resolve().parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
RUNNERS = {"python": [sys.executable, "-c"], "bash": ["bash", "-euo", "pipefail", "-c"]}


@dataclass(frozen=True)
class Block:
    """A fenced block: what it is in, what it says, and why it is not run, if it is not."""

    language: str
    code: str
    reason: str | None


def blocks(text: str) -> list[Block]:
    """All fenced blocks, in order."""
    return [Block(found["language"], found["code"], found["reason"]) for found in FENCE.finditer(text)]


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block as a reader would who stands in a fresh checkout, with dfmeta installed."""
    root = README.parent
    programs = folder / "programs"
    programs.mkdir()
    for name, words in (("dfmeta", [sys.executable, "-m", "dfmeta"]), ("python", [sys.executable])):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (programs / name).chmod(0o755)
    checkout = folder / "checkout"
    shutil.copytree(root / "examples", checkout / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(root)}
    command = [*RUNNERS[block.language], block.code]
    return subprocess.run(
        command, cwd=checkout, env={**os.environ, **path}, capture_output=True, text=True, check=False, timeout=900
    )


RUN = [block for block in blocks(TEXT) if block.language in RUNNERS and block.reason is None]


@pytest.mark.parametrize("block", RUN, ids=[block.code.split("\n")[-2][:40] for block in RUN])
def test_every_block_runs_as_it_stands(block: Block, tmp_path: Path) -> None:
    done = run(block, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "warning" not in done.stderr.lower()


def test_no_block_escapes() -> None:
    found = blocks(TEXT)
    assert TEXT.count("\n```") == 2 * len(found)
    assert {block.language for block in found} == {"python", "bash", "text"}
    assert len(RUN) >= 5


@pytest.mark.parametrize(
    ("text", "stdout", "code"),
    [
        ("```bash\nfalse\necho on\n```\n", "", 1),
        ("```python\nraise SystemExit(7)\n```\n", "", 7),
        ("```bash\nls examples/digits-cnn.onnx\n```\n", "examples/digits-cnn.onnx\n", 0),
    ],
)
def test_the_check_of_blocks_can_fail(tmp_path: Path, text: str, stdout: str, code: int) -> None:
    (block,) = blocks(text)
    done = run(block, tmp_path)
    assert (done.returncode, done.stdout) == (code, stdout)


def test_only_a_reason_excuses_a_block() -> None:
    excused, bare = blocks("<!-- not run: it installs -->\n```bash\na\n```\n<!-- not run: -->\n```bash\nb\n```\n")
    assert (excused.reason, bare.reason) == ("it installs", None)


def table(header: str) -> list[list[str]]:
    """The cells of the rows below the one table whose header starts so."""
    (below,) = re.findall(rf"^\| {re.escape(header)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT, re.M)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in below.splitlines()]


def column(header: str) -> list[str]:
    return [row[0].strip("`") for row in table(header)]


def test_the_names_in_the_tables_are_the_names_there_are() -> None:
    assert column("verb") == [verb.__name__ for verb in VERBS]
    assert set(column("preset")) == set(PRESETS)
    assert set(column("method")) == set(synthesis.names())
    derived = set(re.findall(r"`(\w+):[\w.]+`,? (?:its|the)", TEXT[TEXT.index("Two kinds of student") :]))
    assert {*column("student"), *derived} == set(students.names())
    assert set(re.findall(r"\(spec/record-kinds/(.*?)\.md\)", TEXT)) == set(KINDS.names())


@pytest.mark.parametrize("row", table("student"), ids=column("student"))
def test_students_have_the_parameters_that_the_table_says(row: list[str]) -> None:
    name, shape, parameters, _ = (cell.strip("`") for cell in row)
    built = students.build(name, tuple(int(size) for size in shape.strip("[]").split(",")), 10, 0)
    assert f"{sum(prod(one.shape) for one in built.parameters()):,}" == parameters


def test_the_default_method_and_presets_are_the_defaults() -> None:
    (default,) = [row[0].strip("`") for row in table("method") if row[1].startswith("the default")]
    assert default == method_name(README.parent / "examples" / "lenet5-mnist")
    presets = inspect.signature(dfmeta.record).parameters["presets"].default
    assert f"without `--preset` it is `{','.join(presets)}`" in TEXT
    assert f"fewer than {DEFAULT_MIN_UNITS} units (`--min-units`)" in TEXT


def test_exit_codes_are_those_of_the_errors() -> None:
    raised = {kind.exit_code for kind in vars(errors).values() if inspect.isclass(kind) and hasattr(kind, "exit_code")}
    assert column("code") == [str(code) for code in sorted({0, failures.OUR_BUG, *raised})]


def test_the_operators_are_those_of_the_executor() -> None:
    names = sorted({entry.name for entry in entries()})
    (listed,) = re.findall(r"<!-- operators -->\n(.*?)\n<!-- /operators -->", TEXT, re.S)
    assert " ".join(listed.split()) == ", ".join(names)
    prose = " ".join(TEXT.split())
    assert f"knows {len(names)} operators" in prose
    assert f"{OPSETS.start} to {OPSETS.stop - 1}." in prose


def test_outsiders_are_told_the_groups_that_are_looked_up() -> None:
    for catalogue in (KINDS, SYNTHESIS, STUDENTS):
        assert f"`{catalogue.package}`" in TEXT


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "spec/CHANGELOG.md", "examples/lenet5-mnist/README.md"])
def test_every_link_leads_somewhere(repository: Path, name: str) -> None:
    page = repository / name
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_change_log_has_this_version(repository: Path) -> None:
    versions = re.findall(r"^## ([0-9.]+)", (repository / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert versions[0] == dfmeta.__version__
