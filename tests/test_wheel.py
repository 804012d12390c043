"""The wheel, in an environment that holds nothing else, from a folder that knows no checkout.

Building and installing need the package index, and 900 MB of room for a while.
"""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import dfmeta

# What would let the checkout, or the environment that runs this test, into the empty one.
LEAKS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")
EXTRAS = {"digits", "images", "plots", "privacy", "imatrix", "demo", "testing", "all"}


@dataclass(frozen=True)
class Environment:
    """An environment with the wheel in it.

    Attributes:
        programs: its folder of programs.
        folder: where commands run: outside the checkout.
        demo_without_extra: how the demo ended before its extra was installed.
    """

    programs: Path
    folder: Path
    demo_without_extra: subprocess.CompletedProcess[str]

    def run(self, program: str, *words: object) -> subprocess.CompletedProcess[str]:
        """Run one of its programs."""
        return outside(self.folder, self.programs / program, *words)


def outside(folder: Path, *command: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder`` with nothing of ours in its environment."""
    kept = {name: value for name, value in os.environ.items() if name not in LEAKS}
    words = [str(word) for word in command]
    environment = {**kept, **more}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600)


def must(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, f"{done.args}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="session")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, so that this one is complete too."""
    folder = tmp_path_factory.mktemp("dist")
    constraints = str(repository / "tools" / "constraints.txt")
    # pip builds in an environment of its own, which older and newer versions constrain by different names.
    pins = {"PIP_CONSTRAINT": constraints, "PIP_BUILD_CONSTRAINT": constraints}
    must(outside(folder, sys.executable, "-m", "build", "--outdir", folder, repository, **pins))
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """An empty environment: first the wheel alone, then its extra ``demo``."""
    folder = tmp_path_factory.mktemp("outside")
    place = tmp_path_factory.mktemp("environment")
    must(outside(folder, sys.executable, "-m", "venv", place))
    programs = place / ("Scripts" if os.name == "nt" else "bin")
    # Compiling all of torch would take longer than running what we run of it.
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    pip += ["-c", repository / "tools" / "constraints.txt"]
    must(outside(folder, *pip, wheel))
    without = outside(folder, programs / "dfmeta", "demo", "--quick", "--json")
    must(outside(folder, *pip, f"{wheel}[demo]"))
    yield Environment(programs, folder, without)
    shutil.rmtree(place)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path, repository: Path) -> None:
    ours = {
        path.relative_to(repository).as_posix()
        for path in (repository / "dfmeta").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = set(zipfile.ZipFile(wheel).namelist())
    described = {name for name in held if ".dist-info/" in name}
    assert held - described == ours
    assert "dfmeta/py.typed" in held
    assert any(name.endswith("/licenses/LICENSE") for name in described)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    said = email.message_from_bytes(archive.read(name))
    assert (said["Name"], said["Version"]) == ("dfmeta", dfmeta.__version__)
    assert said["License-Expression"] == "Apache-2.0"
    assert set(said.get_all("Provides-Extra", [])) == EXTRAS
    assert said["Requires-Python"] == ">=3.11"


def test_nothing_of_the_checkout_is_there(installed: Environment, repository: Path) -> None:
    program = "import dfmeta, json, sys; print(json.dumps([dfmeta.__file__, *sys.path]))"
    found = json.loads(must(installed.run("python", "-c", program)).stdout)
    assert [place for place in found if str(repository) in place] == []
    assert Path(found[0]).is_relative_to(installed.programs.parent)


def test_help_and_version(installed: Environment) -> None:
    assert "Usage: dfmeta" in must(installed.run("dfmeta", "--help")).stdout
    assert must(installed.run("dfmeta", "--version")).stdout == f"dfmeta {dfmeta.__version__}\n"


def test_validate(installed: Environment, repository: Path) -> None:
    shutil.copytree(repository / "examples" / "lenet5-mnist", installed.folder / "bundle")
    assert json.loads(must(installed.run("dfmeta", "validate", "bundle", "--json")).stdout)["valid"] is True


def test_the_demo_without_its_extra_says_how_to_get_it(installed: Environment) -> None:
    done = installed.demo_without_extra
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "MissingExtra"
    assert error["fix"] == "Run: pip install 'dfmeta[demo]'"
    assert error["fix"] in done.stderr
    assert not (installed.folder / "demo").exists()


def test_the_demo(installed: Environment) -> None:
    done = must(installed.run("dfmeta", "demo", "--quick", "--json", "--out", "shown"))
    shown = json.loads(done.stdout)
    names = [row["name"] for row in shown["rows"]]
    assert (names[0], len(names)) == ("teacher", 4)
    for made in ("bundle", "student", "picture"):
        assert (installed.folder / shown[made]).exists()
