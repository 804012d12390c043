"""One model at another operator set."""

from __future__ import annotations

import onnx
from onnx import version_converter

from dfmeta.errors import ExportError
from dfmeta.graph.gate import DOMAINS
from dfmeta.graph.inference import first_line


def at_opset(model: onnx.ModelProto, opset: int, ir_version: int, where: str) -> onnx.ModelProto:
    """The model at an operator set, or at its own where that is later and nothing leads back.

    Args:
        model: valid; stays as it is.
        opset: of the default domain.
        ir_version: of the container; a later operator set keeps its own.
        where: how to name the model in messages.

    Raises:
        ExportError: operators that this operator set does not have.
    """
    now = max(entry.version for entry in model.opset_import if entry.domain in DOMAINS)
    if now == opset:
        converted = onnx.ModelProto()
        converted.CopyFrom(model)
    else:
        try:
            converted = version_converter.convert_version(model, opset)
        except Exception as error:  # the converter is native code that raises RuntimeError and more
            if now < opset:
                found = first_line(error)
                raise ExportError(where, found, f"operators that opset {opset} has", "Export it anew.") from error
            converted = onnx.ModelProto()
            converted.CopyFrom(model)
            ir_version = max(ir_version, model.ir_version)
    converted.ir_version = ir_version
    return converted
