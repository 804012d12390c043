"""A model held against a target: the verb ``check``, and what ``quantize`` makes of a target's rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from dfmeta.compress.quantize import Config
from dfmeta.errors import DataError
from dfmeta.export import targets
from dfmeta.export.targets import Checked, Target
from dfmeta.graph import Graph

__all__ = [
    "Checked",
    "check_target",
    "form_for",
    "integer_bias",
    "integer_target",
    "profile_for",
    "reads_integers",
    "settings_for",
]

IntegerForm = Literal["qdq", "qoperator"]


def check_target(
    model: str | Path,
    target: str,
    *,
    ram: int | None = None,
    flash: int | None = None,
    board: str = "",
    fpu: bool | None = None,
) -> Checked:
    """Does an ONNX file fit a runtime or chip.

    Args:
        model: the file.
        target: name of a profile of :mod:`dfmeta.export.targets`.
        ram: bytes for what changes while it runs; None takes the board's, or no limit.
        flash: bytes for constants, and for code where the target's profile predicts it; likewise.
        board: one of the target's.
        fpu: whether the core has a floating-point unit, for that code; None takes the board's word, or yes.

    Raises:
        UnknownName: no such target or board; the text offers a near match.
        DataError: ``fpu`` for a target that predicts no code.
        GraphError: a file that the gate refuses.
    """
    profile = profile_for(target, board, fpu)
    return targets.check(Graph.from_file(model), profile, ram=ram, flash=flash, board=board, fpu=fpu)


def profile_for(target: str, board: str = "", fpu: bool | None = None) -> Target:
    """The profile of a target, for a board and a core.

    Args:
        target: name of the profile.
        board: one of the target's; empty for none.
        fpu: whether the core has a floating-point unit; None where nothing is said of it.

    Raises:
        UnknownName: no such target or board; the text offers a near match.
        DataError: ``fpu`` for a target that predicts no code.
    """
    profile = targets.load(target)
    if board:
        targets.board(profile, board)
    if fpu is not None and profile.code is None:
        known = " or ".join(name for name in targets.names() if targets.load(name).code is not None)
        option = "--fpu" if fpu else "--no-fpu"
        raise DataError(option, f"target {target!r}", f"one whose code is predicted: {known}", "Leave it out.")
    return profile


def reads_integers(target: Target) -> bool:
    """Whether a target reads a quantized model; others want the float model, or quantize it themselves."""
    return bool(_forms(target))


def integer_target(name: str) -> Target:
    """The profile of a target that reads a quantized model.

    Raises:
        UnknownName: no such target.
        DataError: a target that wants the float model.
    """
    target = targets.load(name)
    if not _forms(target):
        raise DataError(
            "--target",
            f"{name!r}, which reads a float model",
            "a target that reads integers",
            "Its own tool quantizes: give it the float model, and ranges of `dfmeta convert`.",
        )
    return target


def form_for(target: Target, form: str | None) -> str:
    """How to write integers: what is asked for, or the first form that the target takes.

    Raises:
        DataError: a form that it does not take.
    """
    taken = _forms(target)
    if form is not None and form not in taken:
        raise DataError("--form", f"{form!r}", f"{' or '.join(taken)} for {target.name}", "Leave --form out.")
    return form or taken[0]


def settings_for(target: Target, config: Config) -> Config:
    """The settings, with the types that the target takes in place of others; fewer bits are stored as INT8."""
    taken = {dtype for rule in _rules(target, "values") if not rule.advice for dtype in rule.dtypes}
    values: Any = config.values if config.values in taken or not taken else sorted(taken)[0]
    int4 = config.int4 and any("int4" in rule.dtypes for rule in _rules(target, "weights"))
    return replace(config, values=values, int4=int4)


def integer_bias(target: Target) -> bool:
    """Whether biases are INT32 there."""
    return all(rule.dtype == "int32" for rule in _rules(target, "bias"))


def _forms(target: Target) -> list[str]:
    return [form for rule in _rules(target, "form") for form in rule.allowed if form != "none"]


def _rules(target: Target, name: str) -> list[Any]:
    return [rule for rule in target.rules if rule.rule == name]
