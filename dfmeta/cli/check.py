"""``dfmeta check``: does a model fit a runtime or chip, and what does it cost there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta.cli import options, output, progress

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dfmeta.export.targets import Checked, Violation


def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model to examine.")],
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="c-codegen, cortex-m, esp-dl, ethos-u55, float-any, onnxruntime-int8, openvino-int8 or tensorrt-int8.",
        ),
    ],
    board: options.Board = "",
    ram: options.Ram = None,
    flash: options.Flash = None,
    fpu: options.Fpu = None,
    as_json: options.Json = False,
) -> None:
    """Check a model against a target; exit 1 if it does not fit.

    Every rule that is broken, with the node, the rule's source and what to do; parameters, multiply-accumulates, and
    bytes in flash and RAM. Flash is constants, and code where the target's profile predicts it. Example:

        dfmeta check student.onnx --target cortex-m --ram 256K --flash 1M
    """
    budget = {"ram": options.size("--ram", ram), "flash": options.size("--flash", flash)}
    with progress.shown():
        from dfmeta import pipeline

        found = pipeline.check_target(model, target, board=board, fpu=fpu, **budget)
    _print(model, found, as_json=as_json)
    if not found.fits:
        raise typer.Exit(1)


def _print(model: Path, found: Checked, *, as_json: bool) -> None:
    document = {"model": str(model), **found.as_dict()}
    output.result(document, [_costs(model, found), *_lists(found)], as_json=as_json)


def _costs(model: Path, found: Checked) -> RenderableType:
    from dfmeta.report import facts_table, integer

    count = len(found.violations)
    verdict = "fits" if found.fits else f"does not fit: {count} violation{'s' if count != 1 else ''}"
    place = f"{found.target} on {found.board}" if found.board else found.target
    rows = [("model", str(model)), ("target", place), ("verdict", verdict)]
    if found.costs is not None and found.ram_bytes is not None:
        costs = found.costs
        rows += [
            ("parameters", integer(costs.parameters)),
            ("MACs", integer(costs.macs)),
            ("constants", f"{integer(costs.constant_bytes)} B"),
            ("code", _code(costs.code_bytes, fpu=found.fpu)),
            ("flash", _of(costs.flash_bytes, found.flash)),
            ("RAM", _of(found.ram_bytes, found.ram)),
            ("arena", f"{integer(costs.arena_bytes)} B ({integer(costs.live_bytes)} B at least)"),
            ("all temporaries", f"{integer(costs.temporaries_bytes)} B"),
        ]
    else:
        rows.append(("costs", "unknown: sizes are not fixed"))
    return facts_table(rows)


def _code(predicted: int | None, *, fpu: bool) -> str:
    from dfmeta.report import integer

    if predicted is None:
        return "not predicted for this target"
    return f"{integer(predicted)} B, predicted for a core {'with' if fpu else 'without'} a floating-point unit"


def _of(needed: int, budget: int | None) -> str:
    from dfmeta.report import integer

    if budget is None:
        return f"{integer(needed)} B"
    return f"{integer(needed)} of {integer(budget)} B ({100 * needed / budget:.0f} %)"


def _lists(found: Checked) -> list[RenderableType]:
    from dfmeta.report import facts_table

    named = (("violation", found.violations), ("advice", found.advice))
    return [facts_table([row for one in several for row in _rows(name, one)]) for name, several in named if several]


def _rows(name: str, one: Violation) -> list[tuple[str, str]]:
    source = one.source
    rows = [(name, f"{one} [{one.rule}]")]
    if source is not None:
        rows.append(("", f"{source.title}, {source.version}, {source.date} ({source.evidence}): {source.url}"))
    return rows
