"""Other programs that quantize ONNX files, with real images to calibrate on."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from dfmeta.compress._ends import first_and_last
from dfmeta.compress._operators import Operator, operators
from dfmeta.graph.folding import without_batch_norm

if TYPE_CHECKING:
    from closed_form_networks import Network

IMAGES = 500
METHODS = {method.name: method for method in CalibrationMethod}
# What is measured of each. NNCF writes 8 bits of values and weights only; `closed_form_peer.py` runs both.
NAMES: Mapping[str, Sequence[str]] = {
    "onnxruntime MinMax": ("w8a8", "w4a8"),
    "onnxruntime Percentile": ("w8a8", "w4a8"),
    "onnxruntime Entropy": ("w8a8", "w4a8"),
    "NNCF": ("w8a8",),
    "AIMET-ONNX": ("w8a8", "w4a8", "w4a4"),
}
PACKAGES = {"NNCF": ["nncf", "onnx", "onnxruntime"], "AIMET-ONNX": ["aimet-onnx", "onnxruntime"]}


@dataclass
class Environments:
    """Where peers that do not live with us are installed.

    Attributes:
        folder: of their virtual environments, one each; None for none.
    """

    folder: Path | None = None

    def python(self, name: str) -> Path | None:
        """The interpreter of a peer's environment, made on the first call; None without a folder."""
        if self.folder is None:
            return None
        place = self.folder / name.lower().split("-")[0]
        if not (place / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            subprocess.run([str(place / "bin" / "pip"), "install", "-q", *PACKAGES[name]], check=True)
            (place / "installed").touch()
        return place / "bin" / "python"


ENVIRONMENTS = Environments()


class Absent(Exception):
    """A peer that there is no environment for."""


def peer(network: Network, name: str, bits: str) -> tuple[bytes, float]:
    """A quantized model, and the seconds that its making took.

    Raises:
        Absent: no folder for its environment.
        RuntimeError: it failed; the text is its own.
    """
    images = network.images("train", IMAGES)[0]
    graph = without_batch_norm(network.graph)
    found = operators(graph)
    labels = first_and_last(graph, found)
    ends = [one for one in found if one.label in labels and bits != "w8a8"]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        # The same function, in fewer operators: NNCF finds no shapes in the constants that normalisation came with.
        (folder / "model.onnx").write_bytes(graph.raw)
        if name.startswith("onnxruntime"):
            seconds = _onnxruntime(network, folder, images, METHODS[name.split()[1]], bits, ends)
        else:
            names = [text for one in ends for text in (one.entry.weight, one.entry.value)]
            (folder / "wide.json").write_text(json.dumps(names))
            seconds = _elsewhere(folder, images, name, bits)
        return (folder / "out.onnx").read_bytes(), seconds


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, images: np.ndarray) -> None:
        self._batches: Iterator[dict[str, np.ndarray]] = iter(
            [{name: images[start : start + 50]} for start in range(0, len(images), 50)]
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch; None after the last."""
        return next(self._batches, None)


def _onnxruntime(
    network: Network,
    folder: Path,
    images: np.ndarray,
    method: CalibrationMethod,
    bits: str,
    ends: Sequence[Operator],
) -> float:
    """Per channel; weights of the ends in 8 bits, as ours are."""
    started = time.monotonic()
    # Its symbolic shapes fail on constants that are no tensors, such as lists of integers.
    quant_pre_process(str(folder / "model.onnx"), str(folder / "ready.onnx"), skip_symbolic_shape=True)
    wide = {one.entry.weight: [{"quant_type": QuantType.QInt8, "axis": one.axis}] for one in ends}
    quantize_static(
        folder / "ready.onnx",
        folder / "out.onnx",
        _Reader(network.graph.inputs[0].name, images),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8 if bits == "w8a8" else QuantType.QInt4,
        calibrate_method=method,
        extra_options={"TensorQuantOverrides": wide} if wide else None,
    )
    return time.monotonic() - started


def _elsewhere(folder: Path, images: np.ndarray, name: str, bits: str) -> float:
    python = ENVIRONMENTS.python(name)
    if python is None:
        raise Absent(f"{name} wants --peers FOLDER")
    np.savez(folder / "images.npz", x=images)
    script = Path(__file__).with_name("closed_form_peer.py")
    done = subprocess.run([python, script, name, bits, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])
