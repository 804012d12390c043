"""``dfmeta compress``: several steps after one another, or a search for what fits, from the records alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta.cli import options, output, progress, searching

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dfmeta.compress.recipe import Recipe
    from dfmeta.pipeline.compressing import Compressed, StepDone


def compress(
    bundle: options.BundleFolder,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; must not exist yet.")],
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="The steps and their settings, in place of the next flags.")
    ] = None,
    equalize: Annotated[bool, typer.Option("--equalize", help="First even out the weights of neighbours.")] = False,
    prune: Annotated[
        float | None, typer.Option(metavar="X", help="Then cut channels: the fraction that stays.")
    ] = None,
    factorize: Annotated[
        float | None, typer.Option(metavar="X", help="Then factorise: the share of the weights that stays.")
    ] = None,
    finetune: Annotated[
        int | None,
        typer.Option(metavar="N", help="Then fine-tune for N steps; of rounded weights where nothing was cut."),
    ] = None,
    bits: Annotated[str | None, typer.Option(metavar="wN[aM]", help="Then quantize, such as w4a8.")] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="In place of such steps, find what fits this runtime or chip; see check."),
    ] = None,
    board: options.Board = "",
    ram: options.Ram = None,
    flash: options.Flash = None,
    fpu: options.Fpu = None,
    candidates: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="For a target: train this many at most (8).")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="For a target: training steps of the last round (1000).")
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="How synthetic inputs are made, if a step needs them.")
    ] = None,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many of them (2048).")] = None,
    settings: options.Settings = None,
    inputs: Annotated[
        str | None, typer.Option(metavar="PATH", help="Synthetic inputs that reconstruct wrote, in place of new ones.")
    ] = None,
    data: options.DataOrNone = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Run several such steps, or find the student for a target.

    The records go along with the model: exactly where that is possible, taken anew on synthetic inputs where it is
    not; the report says which. With --target, students of several kinds and sizes are held against it, those that fit
    are trained without data, the better half for longer, and the best is written for the target. With --data each step
    is measured; the data changes nothing in the student. Examples:

        dfmeta compress release --prune 0.5 --finetune 500 --bits w4a8 --out student
        dfmeta compress release --target cortex-m --ram 32K --flash 64K --out student
    """
    options.require_new(out)
    made = {"method": method, "count": count, "settings": options.settings(settings) or None}
    _refuse_beside(inputs, made)
    flags = {"equalize": equalize or None, "prune": prune, "factorize": factorize, "finetune": finetune, "bits": bits}
    asked = searching.Asked(target, board, ram, flash, fpu, candidates, steps)
    asked.require_alone({"recipe": recipe, **flags})
    if target is not None:
        data_options = {"data": data, "limit": limit, "seed": seed, "device": device, "inputs": inputs}
        searching.search(bundle, out, asked, {**made, **data_options}, as_json=as_json)
        return
    with progress.shown() as report:
        chosen = _recipe(recipe, flags, made)
        from dfmeta.pipeline.compressing import compress as run

        done = run(
            bundle,
            out,
            chosen,
            inputs=inputs,
            data=data,
            limit=limit,
            seed=seed,
            device=device,
            progress=report,
        )
    output.warn([f"{place + 1} {one.name}: {note}" for place, one in enumerate(done.steps) for note in one.notes])
    _print(done, as_json=as_json)


def _recipe(path: Path | None, flags: Mapping[str, object], made: Mapping[str, object]) -> Recipe:
    """The recipe that the options stand for.

    Raises:
        typer.BadParameter: a file and flags for steps at once, or neither.
    """
    from dataclasses import replace

    from dfmeta.compress.recipe import Inputs, common, load

    given = {name: value for name, value in flags.items() if value is not None}
    inputs = {name: value for name, value in made.items() if value is not None}
    if path is not None and given:
        names = ", ".join(f"--{name}" for name in given)
        raise typer.BadParameter(f"a file and {names}: one of the two says what to do.", param_hint="'--recipe'")
    if path is None and not given:
        raise typer.BadParameter("no step: give a file, or --prune, --bits and the like.", param_hint="'--recipe'")
    if path is None:
        return common(**given, inputs=Inputs(**inputs))  # type: ignore[arg-type]
    read = load(path)
    if "settings" in inputs:
        inputs["settings"] = {**read.inputs.settings, **inputs["settings"]}  # type: ignore[dict-item]
    return replace(read, inputs=replace(read.inputs, **inputs))  # type: ignore[arg-type]


def _refuse_beside(inputs: str | None, made: Mapping[str, object]) -> None:
    """How inputs are made says nothing where they are read from a file."""
    given = [{"settings": "--set"}.get(name, f"--{name}") for name, value in made.items() if value is not None]
    if inputs is not None and given:
        raise typer.BadParameter(f"inputs from a file, and {', '.join(given)} to make them.", param_hint="'--inputs'")


def _print(done: Compressed, *, as_json: bool) -> None:
    from dfmeta.report import ModelRow, columns_table, facts_table, integer, models_table

    teacher = done.teacher_costs
    rows = [ModelRow("teacher", done.teacher_accuracy, None, done.teacher_weights, teacher.macs, teacher.bytes)]
    rows += [
        ModelRow(f"{place + 1} {one.name}", one.accuracy, one.agreement, one.weights, one.costs.macs, one.costs.bytes)
        for place, one in enumerate(done.steps)
    ]
    cells = [
        [
            f"{place + 1} {one.name}",
            "-" if one.error is None else f"{one.error:.2%}",
            _records(one),
            f"{one.seconds:.1f}",
        ]
        for place, one in enumerate(done.steps)
    ]
    facts = [
        ("model", str(done.model)),
        ("synthetic inputs", f"{integer(done.inputs)}, {done.inputs_from}" if done.inputs else "none were needed"),
        ("units", integer(done.count) if done.count else "none measured: give --data"),
        ("source", done.source),
    ]
    tables = [
        models_table(rows),
        columns_table(["step", "error", "records", "seconds"], cells, numbers=("error", "seconds")),
        facts_table(facts),
    ]
    output.result(output.plain(done), tables, as_json=as_json)


def _records(step: StepDone) -> str:
    """How many of the records that a step read came from where."""
    return ", ".join(f"{number} {words}" for words, number in _origins(step)) or "none read"


def _origins(step: StepDone) -> Sequence[tuple[str, int]]:
    from collections import Counter

    return Counter(" and ".join((site.origin, *site.transformed)) for site in step.sites).most_common()
