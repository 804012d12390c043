"""Ranges of values as onnxruntime's static quantiser reads them in place of calibration data.

``quantize_static(..., None, calibration_cache_path=FILE)`` takes the file that ``save_tensors_data`` writes: a range
for each value by its name in the model that is quantised (after ``quant_pre_process``, which folds
BatchNormalization).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from dfmeta.errors import ExportError

# What the call must name too. The method says what an entry holds, a range and nothing more; how the ranges were
# chosen is not its business.
METHOD = "CalibrationMethod.MinMax"


def calibration_cache(ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """The file.

    Args:
        ranges: name of a value to its least and largest number.

    Raises:
        ExportError: no ranges, or one that is empty, upside down or not finite in float32.
    """
    if not ranges:
        raise ExportError("calibration cache", "no ranges", "one or more")
    return json.dumps(
        {
            "CLS": "TensorsData",
            "data": {name: _entry(name, *ends) for name, ends in sorted(ranges.items())},
            "calibration_method": {"CLS": "CalibrationMethod", "value": METHOD},
            "smooth_quant": False,
        },
        allow_nan=False,
    ).encode()


def _entry(name: str, low: float, high: float) -> dict[str, object]:
    with np.errstate(over="ignore"):
        ends = np.array([low, high], np.float32)
    if not np.isfinite(ends).all() or ends[0] > ends[1]:
        raise ExportError(f"range of {name!r}", f"{low:g} to {high:g}", "finite ends in order")
    return {"lowest": _scalar(float(ends[0])), "highest": _scalar(float(ends[1])), "CLS": "TensorData"}


def _scalar(value: float) -> dict[str, object]:
    return {"data": value, "dtype": "float32", "CLS": "numpy.array"}
