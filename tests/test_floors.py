"""Who may import whom: the contracts of pyproject.toml hold, and a violation would be seen."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript")
KEPT = "tests/compat/0.1.0/moments"
LIGHT = (
    "import dfmeta",
    "import dfmeta; dir(dfmeta); dfmeta.__version__; dfmeta.DfmetaError",
    "from dfmeta import Manifest",
    "from dfmeta import Bundle; from dfmeta.bundle import validate",
    "import dfmeta.schema, dfmeta.bundle, dfmeta.numerics",
    "from dfmeta._catalog import KINDS; [KINDS.load(name, 'spec') for name in KINDS.names()]",
    "import dfmeta.pipeline, dfmeta.records, dfmeta.report; dir(dfmeta.pipeline); dfmeta.pipeline.validate",
    "from dfmeta.cli import main; main(['--help'])",
    "from dfmeta.cli import main; [main([verb, '--help']) for verb in ('record', 'merge', 'validate', 'show')]",
    f"from dfmeta.cli import main; assert main(['show', {KEPT!r}]) == 0",
    "from dfmeta.cli import main; assert main(['validate', '.']) == 1",
)
# Checking a graph needs onnx, and its probe onnxruntime; nothing here needs torch.
CHECKING = f"from dfmeta.cli import main; assert main(['validate', {KEPT!r}]) == 0"


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    command = [str(program), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def heavy_after(code: str, folder: Path) -> list[str]:
    """Which heavy packages a fresh interpreter has imported after running ``code``."""
    code = f"{code}\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()[-1].split()


@pytest.fixture
def copy(tmp_path: Path, repository: Path) -> Path:
    """A copy of the package and its contracts, to plant violations in."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(repository / "dfmeta", tmp_path / "dfmeta", ignore=ignore)
    shutil.copy(repository / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_hold(repository: Path) -> None:
    run = lint_imports(repository)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("module", "violation", "contract"),
    [
        ("bundle/planted.py", "import torch", "reading a bundle needs neither torch nor onnx"),
        ("schema/planted.py", "import dfmeta.graph", "floors: arrows only downward"),
        ("students/planted.py", "import dfmeta.synthesis", "floors: arrows only downward"),
        ("kinds/moments/spec.py", "import torch", "kind specs stand on the schema floor"),
        (
            "kinds/moments/planted.py",
            "import dfmeta.report",
            "kinds stand below everything that uses records",
        ),
    ],
)
def test_a_planted_violation_is_seen(copy: Path, module: str, violation: str, contract: str) -> None:
    with (copy / "dfmeta" / module).open("a") as file:
        file.write(f"\n{violation}\n")
    run = lint_imports(copy)
    assert run.returncode == 1, run.stdout + run.stderr
    broken = [line for line in run.stdout.splitlines() if " BROKEN" in line]
    assert any(line.startswith(contract) for line in broken), run.stdout


@pytest.mark.parametrize("code", LIGHT)
def test_reading_imports_nothing_heavy(code: str, repository: Path) -> None:
    assert heavy_after(code, repository) == []


def test_checking_a_bundle_needs_no_torch(repository: Path) -> None:
    assert heavy_after(CHECKING, repository) == ["onnx", "onnxruntime"]


def test_a_heavy_import_would_be_seen(copy: Path) -> None:
    with (copy / "dfmeta" / "errors.py").open("a") as file:
        file.write("\nimport onnx\n")
    assert heavy_after("import dfmeta.errors", copy) == ["onnx"]
