"""What quantizing did, layer by layer: plain facts, ready for JSON; and what of them a reader should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dfmeta.compress._quantize_settings import Config, widths


@dataclass(frozen=True, slots=True)
class Layer:
    """What became of one weight operator.

    Attributes:
        label: of the operator.
        op: the operator.
        weight: its initializer.
        bits: of the weight's codes; 32 where it stays as it is.
        value_bits: of what it reads; 32 where that stays as it is.
        rounding: ``gptq``, ``nearest``, or empty where it stays as it is.
        form: of the second moment that was read; empty without one.
        count: samples of that record.
        damping: that the factorisation needed, in units of the mean of E[x^2].
        error: expected squared change of its output for exact inputs, over its mean square; of the weight itself where
            there is no record.
        bias_corrected: whether the bias took up the mean error.
        parameters: elements of the weight.
        bytes: of codes and scales as stored.
        nominal_bytes: the same packed to the very bit.
        note: why it stays as it is, or was not rounded as asked.
    """

    label: str
    op: str
    weight: str
    bits: int
    value_bits: int
    rounding: str
    form: str
    count: int
    damping: float
    error: float
    bias_corrected: bool
    parameters: int
    bytes: int
    nominal_bytes: int
    note: str = ""


def notes(layers: Sequence[Layer], config: Config) -> tuple[str, ...]:
    """What a reader should know, in sentences: what is not quite as asked, and in which layers."""
    _, value_bits = widths(config)
    narrow = [layer for layer in layers if layer.bits <= 4]
    said = []
    if narrow and not config.int4:
        said.append("codes of at most 4 bits are stored in INT8, at twice the bytes of INT4")
    if any(layer.bits < 4 for layer in narrow):
        said.append("ONNX has no type of 2 or 3 bits: INT4 or INT8 holds those codes")
    rounded = [layer for layer in layers if layer.bits < 32]
    named = {
        "second moments that were not positive definite were damped more": [
            layer.label for layer in layers if layer.damping > config.damping
        ],
        "rounded to nearest, without records": [layer.label for layer in rounded if not layer.form],
        "values left in floating point, without histograms": [
            layer.label for layer in rounded if value_bits is not None and layer.value_bits == 32
        ],
        "left in floating point": [f"{layer.label} ({layer.note})" for layer in layers if layer.bits == 32],
    }
    return (*said, *(f"{sentence}: {', '.join(labels)}" for sentence, labels in named.items() if labels))
