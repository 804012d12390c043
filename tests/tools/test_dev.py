"""The developer's one command, and that nothing skips in CI."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def dev(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/dev.py as a module, whose ``.venv`` lies elsewhere and which runs nothing but records it."""
    spec = importlib.util.spec_from_file_location("dev", repository / "tools" / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "stamp")
    return module


@pytest.fixture
def commands(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have run; the folder that `python -m venv` would make is made."""
    ran: list[list[str]] = []

    def run(command: list[str], *_: object, **__: object) -> int:
        ran.append(command)
        if "venv" in command:
            dev.VENV.mkdir(exist_ok=True)
        return 7 if "fail" in " ".join(command) else 0

    monkeypatch.setattr(dev, "run", run)
    return ran


def test_setup_installs_once_and_again_after_a_change(
    dev: ModuleType, commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dev.main(["setup"]) == 0
    venv, pip = commands
    assert venv[1:3] == ["-m", "venv"]
    assert pip[1:4] == ["-m", "pip", "install"]
    assert pip[pip.index("-e") + 1] == ".[all]"
    assert pip[pip.index("-c") + 1].endswith("constraints.txt")
    assert dev.main(["setup"]) == 0
    assert len(commands) == 2
    changed = tmp_path / "pyproject.toml"
    changed.write_text(dev.PROJECT.read_text() + "\n# changed\n")
    monkeypatch.setattr(dev, "PROJECT", changed)
    assert dev.main(["setup"]) == 0
    assert len(commands) > 2


def test_the_developer_tools_are_pyprojects(dev: ModuleType, repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    assert dev.dev_requirements() == project["dependency-groups"]["dev"]


def test_words_are_passed_on(dev: ModuleType, commands: list[list[str]]) -> None:
    assert dev.main(["demo", "--json"]) == 0
    assert commands[-1][1:3] == ["-m", "dfmeta"]
    assert commands[-1][3:5] == ["demo", "--out"]
    assert commands[-1][5].startswith("demo-")
    assert commands[-1][6:] == ["--json"]
    assert dev.main(["test", "-k", "moments"]) == 0
    assert commands[-1][1:] == ["-m", "pytest", "-n", "auto", "--dist", "loadfile", "-k", "moments"]
    assert dev.main(["test", "fail"]) == 7


def test_check_ends_with_the_tests_and_stops_at_the_first_failure(
    dev: ModuleType,
    commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert dev.main(["check"]) == 0
    names = [Path(command[0]).name for command in commands[2:]]
    assert names[:4] == ["ruff", "ruff", "mypy", "lint-imports"]
    assert commands[-3][1:] == ["tools/make_schema.py", "--check"]
    assert commands[-2][1:] == ["tools/make_vectors.py", "--check"]
    assert commands[-1][1:] == ["tools/dev.py", "test"]
    commands.clear()
    monkeypatch.setattr(dev, "tool", lambda name: f"fail/{name}" if name == "mypy" else name)
    assert dev.main(["check"]) == 7
    assert [command[0] for command in commands] == ["ruff", "ruff", "fail/mypy"]
    assert capsys.readouterr().err.endswith("FAILED (7): fail/mypy\n")


@pytest.mark.parametrize(("words", "code"), [([], 2), (["no-such-verb"], 2), (["setup", "x"], 2), (["--help"], 0)])
def test_wrong_use_shows_the_verbs(
    dev: ModuleType, capsys: pytest.CaptureFixture[str], words: list[str], code: int
) -> None:
    assert dev.main(words) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(verb in shown.err for verb in ("setup", "demo", "test", "check"))


def test_an_old_python_is_told_so(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dev.sys, "version_info", (3, 10, 4, "final", 0))
    assert dev.main(["test"]) == 3
    assert "This is Python 3.10.4, and dfmeta needs 3.11 or later." in capsys.readouterr().err


def test_what_runs_is_shown_on_stderr_only(dev: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    assert dev.run([sys.executable, "-c", "print('hidden from stdout')"]) == 0
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "$ " in shown.err
    assert "hidden from stdout" in shown.err
    assert dev.run([sys.executable, "-c", "print('the verb speaks')"], stdout=None) == 0
    assert capfd.readouterr().out == "the verb speaks\n"


@pytest.mark.parametrize(("setting", "code"), [({"DFMETA_NO_SKIP": "1"}, 1), ({}, 0)])
def test_nothing_may_skip_in_ci(repository: Path, tmp_path: Path, setting: dict[str, str], code: int) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DFMETA_")}
    environment = {**plain, "DFMETA_SHARED": str(tmp_path), **setting}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/data", "-k", "mnist"]
    run = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stdout
    assert "no data sets at" in run.stdout


def test_ci_needs_the_data_sets(repository: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "DFMETA_SHARED": str(tmp_path)}
    run = subprocess.run([repository / ".ci" / "run"], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 3
    assert f"No data sets at {tmp_path}/data" in run.stderr
