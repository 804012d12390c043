"""Reading a bundle needs neither torch nor onnx: they take seconds to import, and can be attacked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "compat" / "0.1.0" / "moments"
HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "sklearn", "PIL")
READ = f"""
import dfmeta.schema, dfmeta.bundle
bundle = dfmeta.bundle.Bundle.open({str(KEPT)!r})
bundle.record_tensors("r0"), bundle.probe_tensors(), bundle.graph_bytes()
assert dfmeta.bundle.validate({str(KEPT)!r}).valid
"""

BLOCK = """
import socket
def refuse(*a, **k): raise RuntimeError("network")
socket.socket = socket.getaddrinfo = refuse
"""


def heavy_modules_after(code: str) -> str:
    ask = f"\nimport sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    command = [sys.executable, "-c", code + ask]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)})
    return done.stdout.strip()


def test_reading_and_validating_a_bundle_imports_nothing_heavy():
    assert heavy_modules_after(READ) == "[]"


def test_the_check_can_fail():
    pytest.importorskip("onnx")
    assert heavy_modules_after(f"{READ}\nimport onnx") == "['onnx']"


def test_validation_opens_no_connection():
    assert heavy_modules_after(BLOCK + READ) == "[]"
    with pytest.raises(subprocess.CalledProcessError):
        heavy_modules_after(f"{BLOCK}\nsocket.create_connection(('localhost', 9))")
