"""What only a process of its own can show: start-up, imports, streams, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

DFMETA = (sys.executable, "-m", "dfmeta")


def process(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*DFMETA, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def test_help_is_quick() -> None:
    """Little more than starting Python with what draws the help; the best of some, since others use the machine too."""

    def took(*words: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        return time.perf_counter() - begun

    bare = ("-c", "import typer, rich.console, rich.table, rich.panel, rich.markdown")
    pairs = [(took("-m", "dfmeta", "--help"), took(*bare)) for _ in range(5)]
    assert min(mine for mine, _ in pairs) < 2.5 * min(theirs for _, theirs in pairs)


def imported(*words: object) -> set[str]:
    """The top-level packages that a command brings in."""
    done = process(*words, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


HEAVY = {"torch", "onnx", "onnxruntime", "onnxscript"}


def test_help_and_show_import_no_torch(release: Path) -> None:
    assert not imported("record", "--help") & {*HEAVY, "numpy"}
    shown = imported("show", release)
    assert "pydantic" in shown
    assert not shown & HEAVY


def test_the_check_for_imports_can_fail(release: Path) -> None:
    assert imported("validate", release) & HEAVY == {"onnx", "onnxruntime"}


def test_one_document_on_stdout_even_for_errors(release: Path, tmp_path: Path) -> None:
    good = process("validate", release, "--json")
    assert (good.returncode, json.loads(good.stdout)["valid"]) == (0, True)
    bad = process("show", tmp_path / "nowhere", "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["error"]["type"] == "BundleError"
    assert "Traceback" not in bad.stderr


def test_a_missing_extra_in_a_process_without_it(release: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\n\nsys.modules['sklearn'] = None\n")
    words = ("evaluate", release / "model.onnx", "--data", "digits:test")
    done = process(*words, PYTHONPATH=str(tmp_path))
    assert done.returncode == 3
    assert "pip install 'dfmeta[digits]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_reads_on(release: Path) -> None:
    """The reader is gone before anything is written."""
    with subprocess.Popen(
        [*DFMETA, "show", str(release)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        running.stdout.close()
        running.stdout = None
        _, errors = running.communicate(timeout=60)
    assert errors == ""
    assert running.returncode == 141


def test_interrupted_while_it_works(release: Path, tmp_path: Path) -> None:
    method = ["--method", "matched-generator", "--set", "iterations=2000", "--set", "batch=100"]
    words = [*method, "--out", str(tmp_path / "x.safetensors")]
    with subprocess.Popen(
        [*DFMETA, "reconstruct", str(release), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background hands down that it ignores Ctrl-C; a user's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith("synthesise: ")
        running.send_signal(signal.SIGINT)
        out, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in errors
    assert out == ""
    assert list(tmp_path.iterdir()) == []
