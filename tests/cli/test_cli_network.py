"""No verb that reads a bundle or a model asks the network for anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "compat" / "0.1.0" / "every-kind"
# What Python tells of every use of a socket, before it happens.
NOTICE = """
import os, sys

def heard(event, arguments):
    if event.startswith("socket.") and event not in ("socket.gethostname", "socket.__new__"):
        os.write(2, f"network: {event}\\n".encode())
        os._exit(99)

sys.addaudithook(heard)
"""


def offline(folder: Path, *words: object) -> tuple[int, str]:
    (folder / "sitecustomize.py").write_text(NOTICE)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    return done.returncode, done.stderr


def test_a_use_of_the_network_would_be_seen(tmp_path: Path) -> None:
    ask = "import socket; socket.create_connection(('127.0.0.1', 9))"
    code, said = offline(tmp_path, "-c", ask)
    assert (code, said) == (99, "network: socket.getaddrinfo\n")


@pytest.mark.parametrize("verb", ["validate", "show", "evaluate", "reconstruct"])
def test_verbs_stay_at_home(tmp_path: Path, verb: str) -> None:
    model = KEPT / "model.onnx"
    np.savez(tmp_path / "d.npz", x=np.zeros((4, *shape()), np.float32), y=np.zeros(4, np.int64))
    words = {
        "validate": ("validate", KEPT),
        "show": ("show", KEPT),
        "evaluate": ("evaluate", model, "--data", tmp_path / "d.npz", "--bundle", KEPT),
        "reconstruct": (
            *("reconstruct", KEPT, "--method", "noise", "--count", 8),
            *("--out", tmp_path / "made.safetensors"),
        ),
    }
    code, said = offline(tmp_path, "-m", "dfmeta", *words[verb])
    assert code == 0, said


def shape() -> tuple[int, ...]:
    from dfmeta.bundle import Bundle

    sizes = Bundle.open(KEPT).manifest.model.inputs[0].shape[1:]
    return tuple(int(size) for size in sizes)
