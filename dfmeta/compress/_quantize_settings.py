"""Settings of ``quantize``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from dfmeta import _settings
from dfmeta._settings import Range, weight, within
from dfmeta.compress._ranges import PERCENTILE, Policy
from dfmeta.errors import DataError

# What mixed precision chooses among; INT4 holds 2 and 3 bits too, so that stored bytes only tell 4 from 8.
CHOICES: Mapping[str, tuple[int, ...]] = {"stored": (8, 4), "nominal": (8, 6, 5, 4, 3, 2)}


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the step.

    Attributes:
        bits: ``w`` and 2 to 8 bits of weights, then nothing or ``a`` and 4 or 8 bits of values: ``w8a8``, ``w4``. None
            for ``w8a8``, and with a budget for the fewest bits of weights that it chooses among, and 8 of values.
        rounding: ``gptq``, with error feedback; or ``nearest``, which needs no second moments.
        scales: of weights, one for each channel: ``search``, of least error after rounding with feedback; ``weighted``,
            of least error of rounding to nearest weighed by E[x^2] (also what ``search`` takes for more than 6 bits and
            for very large layers); ``grid``, the same unweighed; ``largest``, the smallest that cut nothing off.
        damping: ridge of the factorisation, in units of the mean of E[x^2]; more where it does not go through.
        activation_order: round columns of large E[x^2] first.
        bias_correction: let biases take up the mean error.
        centre: whether errors are weighed by the covariance of what a layer reads, which is what counts once a bias has
            taken up the mean error, or by its moment about 0: ``auto``, by the covariance where the record is ``full``
            and float32. A compact record is off by a small share of the moment, which is a large one of the covariance.
        ranges: of values: ``minmax``, ``percentile``, ``mse`` or ``entropy``.
        percentile: of that policy.
        values: ``uint8`` with any zero, or ``int8`` with zero 0 (in four bits, ``uint4`` and ``int4`` alike).
        first_last_bits: least bits of weights and values of the layers that read no other layer's result, and of those
            whose result no other layer reads.
        budget_bytes: mixed precision: all weights within so many bytes, each of them of the bits of ``bits`` at least;
            None without.
        budget_of: whether bytes count as ``stored`` (INT4 and INT8), or ``nominal``, packed to the very bit.
        int4: store codes of at most 4 bits as INT4, and not as INT8.
        fallback: ``nearest`` rounds layers without records to nearest and leaves values without records in floating
            point; empty for an error.
    """

    bits: str | None = None
    rounding: Literal["gptq", "nearest"] = "gptq"
    scales: Literal["search", "weighted", "grid", "largest"] = "search"
    damping: float = weight(0.01)
    activation_order: bool = True
    bias_correction: bool = True
    centre: Literal["auto", "always", "never"] = "auto"
    ranges: Policy = "mse"
    percentile: float = within(PERCENTILE, Range(above=50, below=100))
    values: Literal["uint8", "int8"] = "uint8"
    first_last_bits: int = within(8, Range())
    budget_bytes: int | None = None
    budget_of: Literal["stored", "nominal"] = "stored"
    int4: bool = True
    fallback: Literal["", "nearest"] = ""


def settled(config: Config) -> Config:
    """The same with ``bits`` written out."""
    if config.bits is not None:
        return config
    fewest = 8 if config.budget_bytes is None else min(CHOICES[config.budget_of])
    return replace(config, bits=f"w{fewest}a8")


def widths(config: Config) -> tuple[int, int | None]:
    """Bits of weights, and of values (None for floating point).

    Raises:
        DataError: text that is not ``w`` and 2 to 8, with or without ``a`` and 4 or 8.
    """
    bits = settled(config).bits or ""
    found = re.fullmatch(r"w([2-8])(?:a([48]))?", bits)
    if found is None:
        raise DataError("--bits", repr(bits), "w2 to w8, alone or with a4 or a8, such as w4a8")
    return int(found[1]), int(found[2]) if found[2] else None


def configured(config: Config, given: Mapping[str, str]) -> Config:
    """``config`` with some fields given as text.

    Raises:
        UnknownName: no such field, or no such choice.
        DataError: text that is no value of the field's type, or a number out of range.
    """
    return _settings.from_text(config, given, "quantize")


def check(config: Config) -> None:
    """Refuse settings out of range, with the errors of ``run``.

    Raises:
        UnknownName: a choice that is none.
        DataError: the text names the setting.
    """
    _settings.check(config, "quantize")
    widths(config)
    if config.first_last_bits != 0 and not 2 <= config.first_last_bits <= 8:
        raise DataError("first_last_bits", str(config.first_last_bits), "2 to 8, or 0 for no difference")
