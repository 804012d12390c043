"""``dfmeta evaluate``: how good a model is on labelled data, and how far it agrees with its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta.cli import groups, options, output, progress

if TYPE_CHECKING:
    from dfmeta.pipeline import Evaluation


def evaluate(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model to examine.")],
    data: options.Data,
    bundle: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Its release: gives preprocessing and teacher.")
    ] = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 256,
    images: groups.Preprocessing,
    as_json: options.Json = False,
) -> None:
    """Measure accuracy, agreement with the teacher, and costs.

    Images are preprocessed as the bundle says, unless flags say otherwise. Example:

        dfmeta evaluate student.onnx --data images.npz:test --bundle release
    """
    ops = images.operations()
    with progress.shown() as report:
        from dfmeta import pipeline
        from dfmeta.data import describe

        found = pipeline.evaluate(
            model,
            data,
            bundle=bundle,
            preprocessing=ops if ops or bundle is None else None,
            limit=limit,
            seed=seed,
            batch_size=batch_size,
            progress=report,
        )
    described = describe(ops) if ops or bundle is None else f"as in {bundle}"
    _print(found, described, seed if limit else None, as_json=as_json)


def _print(found: Evaluation, preprocessing: str, seed: int | None, *, as_json: bool) -> None:
    from dfmeta.report import ModelRow, facts_table, integer, models_table

    mine, teacher = found.costs, found.teacher_costs
    rows = [ModelRow.of(found.model, mine, found.accuracy, found.agreement)]
    if teacher is not None:
        rows.append(ModelRow.of("teacher", teacher, found.teacher_accuracy))
    drawn = "" if seed is None else f", drawn with seed {seed}"
    facts = [("data", f"{found.data}: {integer(found.count)} units{drawn}"), ("preprocessing", preprocessing)]
    document = {key: value for key, value in output.plain(found).items() if key != "costs"}
    document |= {**output.plain(mine), "preprocessing": preprocessing}
    output.result(document, [models_table(rows), facts_table(facts)], as_json=as_json)
