"""A model as C, compiled for this machine: written by emx-onnx-cgen, run through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfmeta.graph import Graph

SOURCES = Path(__file__).resolve().parent / "embedded"
# Contraction of a product and a sum to one rounding would give other numbers on machines that have it than elsewhere.
FLAGS = ("-O2", "-std=gnu11", "-ffp-contract=off", "-Wall", "-Wno-unused", f"-I{SOURCES}")

Floats = NDArray[np.float32]


class Absent(RuntimeError):
    """A program or package that is not installed, and how to get it."""


@dataclass(frozen=True)
class Generated:
    """The C of one model.

    Attributes:
        path: the file.
        inputs, outputs: elements of its one input and of its one output, at batch 1.
    """

    path: Path
    inputs: int
    outputs: int

    @property
    def definitions(self) -> tuple[str, ...]:
        """What the C beside it wants to know."""
        return (
            f'-DMODEL_SOURCE="{self.path}"',
            f"-DMODEL_INPUTS={self.inputs}",
            f"-DMODEL_OUTPUTS={self.outputs}",
        )

    @property
    def empty(self) -> tuple[str, ...]:
        """The same for a model that does nothing."""
        return self.definitions[1:]


def generate(model: Path, folder: Path) -> Generated:
    """Write a model as C, all its weights as constants and all its values on the stack.

    Args:
        model: ONNX file with one input and one output of float32 and fixed sizes, but for a batch that may be free.
        folder: where the C goes.

    Raises:
        Absent: emx-onnx-cgen is not installed.
        RuntimeError: it cannot write this model.
    """
    graph = Graph.from_file(model)
    sizes = [_elements(value.shape) for value in (graph.inputs[0], graph.outputs[0])]
    source = (folder / f"{model.stem}.c").resolve()
    words = ["--large-weight-threshold", "0", "--large-temp-threshold", "0", "--model-name", "model"]
    free = graph.inputs[0].shape[0]
    if not isinstance(free, int):
        words += ["--input-dim", f"{graph.inputs[0].name}:0=1"]
    done = run([sys.executable, "-m", "emx_onnx_cgen", "compile", str(model), str(source), *words], check=False)
    if "No module named" in done.stderr:
        raise Absent("emx-onnx-cgen is not installed: pip install emx-onnx-cgen")
    if done.returncode or not source.exists():
        raise RuntimeError(f"{model.name}: emx-onnx-cgen: {(done.stdout + done.stderr).strip()[-500:]}")
    return Generated(source, *sizes)


def _elements(shape: Sequence[int | str | None]) -> int:
    return int(np.prod([size for size in shape[1:] if isinstance(size, int)]))


@dataclass(frozen=True)
class HostProgram:
    """The generated C as a library of this machine.

    Attributes:
        file: the shared object.
        generated: its source.
    """

    file: Path
    generated: Generated

    @cached_property
    def _model(self) -> ctypes._NamedFuncPointer:
        found = ctypes.CDLL(str(self.file)).model_run
        found.restype = None
        return found

    def __call__(self, inputs: Floats) -> Floats:
        """``[n, ...]`` to ``[n, outputs]``."""
        given = np.ascontiguousarray(inputs, np.float32).reshape(len(inputs), self.generated.inputs)
        outputs = np.empty((len(given), self.generated.outputs), np.float32)
        for one, out in zip(given, outputs, strict=True):
            self._model(one.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p))
        return outputs


def build_for_host(generated: Generated, folder: Path) -> HostProgram:
    """Compile with gcc.

    Raises:
        Absent: there is no gcc.
        RuntimeError: the code does not compile.
    """
    library = folder / f"{generated.path.stem}.so"
    gcc = program("gcc", "gcc")
    words = ["-shared", "-fPIC", *FLAGS, *generated.definitions, str(SOURCES / "model.c"), "-o", str(library), "-lm"]
    run([gcc, *words])
    return HostProgram(library, generated)


def program(name: str, package: str) -> str:
    """The path of a program.

    Raises:
        Absent: with the Debian package that has it.
    """
    found = shutil.which(name)
    if found is None:
        raise Absent(f"{name} is not installed: apt-get install {package}")
    return found


def run(words: Sequence[str], *, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program and keep what it says.

    Raises:
        RuntimeError: it failed, and ``check``; the text has the end of what it said.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd)
    if check and done.returncode:
        raise RuntimeError(f"{words[0]} failed ({done.returncode}): {(done.stdout + done.stderr).strip()[-1000:]}")
    return done
