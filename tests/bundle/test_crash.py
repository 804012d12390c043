"""What is left when writing is killed, or the disk refuses, at every single operation: nothing, or a whole result."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfmeta.bundle import Bundle, operations, validate, write_bundle, write_file, write_folder
from dfmeta.errors import BundleError

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "compat" / "0.1.0" / "moments"
MEMBERS = {"model.onnx": b"graph", "a/b/report.json": b"{}"}
SIDECAR = (KEPT / "dfmeta" / "records.safetensors").read_bytes()
WHATS = ("bundle", "file", "folder")
REFUSED, UNHARMED = 1, 0


@pytest.fixture(scope="module")
def write():
    """``write(what, path)``."""
    opened = Bundle.open(KEPT)
    members = {file.path: opened.member(file.id) for file in opened.manifest.files}

    def make(what: str, path: Path) -> None:
        if what == "bundle":
            write_bundle(path, opened.manifest, members)
        elif what == "file":
            write_file(path, SIDECAR)
        else:
            write_folder(path, MEMBERS)

    return make


def is_whole(what: str, path: Path) -> bool:
    if what == "bundle":
        return validate(path).valid
    if what == "file":
        return path.read_bytes() == SIDECAR
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in path.rglob("*.*")} == MEMBERS


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("what", WHATS)
def test_killed_at_every_operation(tmp_path, faulty_disk, write, what):
    there = []

    def look(name):
        there.append(os.path.lexists(tmp_path / what))
        assert visible(tmp_path) == [what] * there[-1]
        assert not there[-1] or is_whole(what, tmp_path / what)

    with faulty_disk.dying(look):
        write(what, tmp_path / what)
    assert len(there) == len(faulty_disk.done) + 1
    # Absent, then there, and never absent again; the kills reached both sides of the commit.
    assert there == sorted(there)
    commit = there.index(True)
    assert faulty_disk.done[commit - 1] in ("rename", "link")
    assert {"make_folder" if what != "file" else "create", "create", "write", "sync", "close"} <= set(faulty_disk.done)
    assert faulty_disk.done[-1] == "sync_folder"


@pytest.mark.parametrize("what", WHATS)
def test_a_disk_that_refuses_every_operation(tmp_path, faulty_disk, write, what):
    refused = set()
    for at in range(1, 200):
        folder = tmp_path / str(at)
        folder.mkdir()
        try:
            with faulty_disk.refusing(at):
                write(what, folder / what)
        except BundleError as error:
            name = faulty_disk.done[at - 1]
            refused.add(name)
            judge_refusal(name, str(error), what, folder)
        else:
            assert visible(folder) == [what]
            assert is_whole(what, folder / what)
            if len(faulty_disk.done) < at:
                break
    assert at > len(faulty_disk.done)
    expected = {"create", "write", "sync", "close", "sync_folder"}
    expected |= {"remove_file"} if what == "file" else {"make_folder", "rename"}
    assert expected <= refused


def judge_refusal(name: str, text: str, what: str, folder: Path) -> None:
    assert "no space left on device" in text.lower()
    if name in ("remove_file", "remove_tree"):
        # The hidden name that could not be removed, which the error tells of; the result was in place before.
        assert "Remove it." in text
        return
    if "power failure" in text:
        # Only the last flush of the parent failed: the result is in place, and the error says so.
        assert name == "sync_folder"
        assert is_whole(what, folder / what)
    else:
        assert "Nothing was written" in text
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("what", ["bundle", "file"])
def test_a_real_limit_of_the_kernel(tmp_path, what):
    script = str(Path(__file__).with_name("limited_writer.py"))
    command = [sys.executable, "-W", "error", script, what, str(tmp_path), str(KEPT)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=120)
    statuses = {line["at"]: line["status"] for line in map(json.loads, done.stdout.splitlines())}
    assert statuses[1] == REFUSED
    assert statuses[max(statuses)] == UNHARMED
    for at, status in statuses.items():
        folder = tmp_path / str(at)
        if status == REFUSED:
            assert "file too large" in os.readlink(folder / "error").lower()
            assert list(folder.iterdir()) == [folder / "error"]
        else:
            assert visible(folder) == [what]


CHANGING = {
    *("mkdir", "makedirs", "rename", "renames", "link", "symlink", "symlink_to", "hardlink_to", "unlink", "remove"),
    *("rmdir", "removedirs", "rmtree", "fsync", "truncate", "ftruncate"),
    *("write_bytes", "write_text", "touch", "mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory"),
}
# These write what is nobody's release: a model to be measured, and the folder of the demo. The others: pipes.
ELSEWHERE = {"closed_form.py", "_step_of_recipe.py", "demo.py", "isolation.py", "bounds.py", "app.py"}
WRITERS = [path for path in sorted((ROOT / "dfmeta").rglob("*.py")) if path.name not in ELSEWHERE]


def changes(source: str) -> list[str]:
    """Calls in a module that change a disk and are not of the one module for that."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if node.attr == "remove" and owner != "os":  # of a list
                continue
            changing = owner == "shutil" or node.attr in CHANGING | {"O_CREAT", "O_WRONLY", "O_RDWR"}
            found += [ast.unparse(node)] if changing and owner not in ("operations", "staging") else []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", WRITERS, ids=lambda path: path.name)
def test_nothing_else_changes_a_disk(path):
    found = changes(path.read_text(encoding="utf-8"))
    assert bool(found) == (path.name == "operations.py"), found


def test_what_changes_a_disk_is_found():
    assert changes("import os\nos.rename(a, b)") == ["os.rename"]
    assert changes("Path(a).write_bytes(b)") == ["Path(a).write_bytes"]
    assert changes("shutil.copy(a, b)") == ["shutil.copy"]
    assert changes("open(a, 'w')") == ["open(a, 'w')"]
    assert changes("operations.rename(a, b)") == []
    assert set(operations.__all__) == {name for name, each in vars(operations).items() if _is_own(each)}


def _is_own(value: object) -> bool:
    return getattr(value, "__module__", "") == operations.__name__
