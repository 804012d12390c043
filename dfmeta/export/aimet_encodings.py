"""Scales and offsets as AIMET and Qualcomm's tools read them, in format 1.0.0.

An integer q of ``bw`` bits from 0 stands for ``scale * (q + offset)``. Values have one scale, weights one for each
output channel; a symmetric encoding has the offset ``-2^(bw - 1)``, so that q around the middle are numbers around 0.
The lowest q, which our own weights leave out, is one of its integers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from dfmeta.errors import ExportError
from dfmeta.export.quantized import QuantizedValue, QuantizedWeight

VERSION = "1.0.0"


def aimet_encodings(values: Sequence[QuantizedValue], weights: Sequence[QuantizedWeight]) -> bytes:
    """The file.

    Args:
        values: the graph's values and their integers.
        weights: the graph's initializers; only their scales and bits are written.

    Raises:
        ExportError: nothing to write, or a scale that is not above 0.
    """
    if not values and not weights:
        raise ExportError("encodings", "no value and no weight", "one or more")
    document = {
        "version": VERSION,
        "activation_encodings": [_value(value) for value in values],
        "param_encodings": [_weight(weight) for weight in weights],
        "excluded_layers": [],
    }
    return json.dumps(document, indent=1, allow_nan=False).encode()


def _value(value: QuantizedValue) -> dict[str, object]:
    signed = value.dtype.startswith("int")
    bits = int(value.dtype[-1])
    # Codes here are those of the type; there they count from 0.
    offset = -(1 << (bits - 1)) - value.zero if signed else -value.zero
    return _entry(value.value, bits, [value.scale], offset, per_channel=False, symmetric=signed)


def _weight(weight: QuantizedWeight) -> dict[str, object]:
    scales = np.asarray(weight.scales, np.float64).tolist()
    return _entry(weight.tensor, weight.bits, scales, -(1 << (weight.bits - 1)), per_channel=True, symmetric=True)


def _entry(
    name: str, bits: int, scales: Sequence[float], offset: int, *, per_channel: bool, symmetric: bool
) -> dict[str, object]:
    if not scales or not all(np.isfinite(scale) and scale > 0 for scale in scales):
        raise ExportError(f"encoding of {name!r}", "a scale that is not above 0", "scales above 0")
    return {
        "name": name,
        "enc_type": "PER_CHANNEL" if per_channel else "PER_TENSOR",
        "dtype": "INT",
        "bw": bits,
        "is_sym": symmetric,
        "scale": list(scales),
        "offset": [offset] * len(scales),
    }
