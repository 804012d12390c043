"""The runtimes that read ONNX themselves: onnxruntime and OpenVINO, one image at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from embedded_c import Absent, Floats

_KERNELS = ("Convolution", "FullyConnected")


def in_onnxruntime(model: Path, inputs: Floats, *, optimised: bool = True) -> Floats:
    """``[n, ...]`` to ``[n, outputs]``.

    Args:
        model: ONNX file at batch 1.
        inputs: of all images.
        optimised: as it is run every day, with fused integer kernels; or node by node, as the file says.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: one[None]})[0] for one in inputs])


class OpenVino:
    """A model in OpenVINO on the CPU, in float32 wherever it does not say integers.

    Args:
        model: ONNX file at batch 1.

    Raises:
        Absent: OpenVINO is not installed.
    """

    def __init__(self, model: Path) -> None:
        try:
            import openvino
        except ImportError as error:
            raise Absent("OpenVINO is not installed: pip install openvino") from error
        core: Any = openvino.Core()
        # Left alone it takes bfloat16 on processors that have it.
        self._compiled = core.compile_model(core.read_model(str(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def __call__(self, inputs: Floats) -> Floats:
        """``[n, ...]`` to ``[n, outputs]``."""
        return np.concatenate([self._compiled([one[None]])[0] for one in inputs])

    def integer_kernels(self) -> int:
        """How many convolutions and matrix products it runs on integers, by its own word."""
        told = [node.get_rt_info() for node in self._compiled.get_runtime_model().get_ops()]
        kinds = [(one["layerType"].astype(str), one["runtimePrecision"].astype(str)) for one in told]
        return sum(layer in _KERNELS and precision in ("u8", "i8") for layer, precision in kinds)
