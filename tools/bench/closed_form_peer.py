"""Run by `closed_form_peers.py` with the interpreter of a peer's own environment: nothing of ours is there.

python closed_form_peer.py NAME BITS FOLDER reads FOLDER/model.onnx, images.npz and wide.json (tensors of 8 bits,
whatever the others have), writes FOLDER/out.onnx, and prints the seconds that it took as JSON, importing not counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx


def nncf_model(model: onnx.ModelProto, images: np.ndarray, bits: str, wide: list[str]) -> tuple[onnx.ModelProto, float]:
    """NNCF's post-training quantization of 8 bits, with its fast bias correction."""
    import nncf  # type: ignore[import-not-found]

    name = model.graph.input[0].name
    started = time.monotonic()
    data = nncf.Dataset([image[None] for image in images], lambda image: {name: image})
    found = nncf.quantize(model, data, subset_size=len(images), preset=nncf.QuantizationPreset.MIXED)
    return found, time.monotonic() - started


def aimet_model(
    model: onnx.ModelProto, images: np.ndarray, bits: str, wide: list[str]
) -> tuple[onnx.ModelProto, float]:
    """AIMET's simulation model with ranges of its scheme min_max, written as QDQ."""
    import aimet_onnx  # type: ignore[import-not-found]
    from aimet_onnx.quantsim import QuantizationSimModel  # type: ignore[import-not-found]

    name = model.graph.input[0].name
    types = {"8": aimet_onnx.int8, "4": aimet_onnx.int4}
    started = time.monotonic()
    simulated = QuantizationSimModel(
        model, param_type=types[bits[1]], activation_type=types[bits[3]], quant_scheme="min_max"
    )
    for tensor in wide:
        if tensor in simulated.qc_quantize_op_dict:
            simulated.qc_quantize_op_dict[tensor].set_bitwidth(8)
    simulated.compute_encodings([{name: images[start : start + 50]} for start in range(0, len(images), 50)])
    return simulated.to_onnx_qdq(), time.monotonic() - started


def main() -> None:
    """Quantize one model."""
    peer, bits, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    model, images = onnx.load(folder / "model.onnx"), np.load(folder / "images.npz")["x"]
    wide = json.loads((folder / "wide.json").read_text())
    found, seconds = {"NNCF": nncf_model, "AIMET-ONNX": aimet_model}[peer](model, images, bits, wide)
    onnx.save(found, folder / "out.onnx")
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
