"""The steps that a recipe may name: their settings, what checks them before anything runs, and what each reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dfmeta.compress import distill, equalize, factorize, finetune, prune, quantize


@dataclass(frozen=True, slots=True)
class Distillation(distill.Config):
    """Settings of a student that takes the graph's place: those of its training, and which one it is.

    Attributes:
        student: its name, as ``dfmeta distill`` takes it.
    """

    student: str = "scaled:0.5"


def _as_given(config: Any) -> Any:
    return config


@dataclass(frozen=True, slots=True)
class Kind:
    """A step that a recipe may name.

    Attributes:
        config: its settings.
        check: refuses settings that are out of range.
        requires: kinds of records that it reads, by its settings.
        trains: whether it works on synthetic inputs.
        settled: its settings with those written out that follow from others.
    """

    config: type
    check: Callable[[Any], object]
    requires: Callable[[Any], tuple[str, ...]]
    trains: bool = False
    settled: Callable[[Any], Any] = _as_given


def _nothing(config: object) -> tuple[str, ...]:
    return ()


def _read_by_quantize(config: quantize.Config) -> tuple[str, ...]:
    _, value_bits = quantize.widths(config)
    moments = config.rounding == "gptq" or config.bias_correction
    return (*(("second-moment",) if moments else ()), *(("histogram",) if value_bits is not None else ()))


KINDS: Mapping[str, Kind] = {
    "equalize": Kind(equalize.Config, equalize.check, _nothing),
    "prune": Kind(prune.Config, prune.check, lambda _: prune.REQUIRES),
    "factorize": Kind(factorize.Config, factorize.check, lambda _: factorize.REQUIRES),
    "distill": Kind(Distillation, distill.check, _nothing, trains=True),
    "finetune": Kind(finetune.Config, finetune.check, _nothing, trains=True),
    "quantize": Kind(quantize.Config, quantize.check, _read_by_quantize, settled=quantize.settled),
}
