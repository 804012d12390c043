"""``dfmeta distill``: train a small student on what the records give, and export it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta.cli import options, output, progress

if TYPE_CHECKING:
    from dfmeta.pipeline import Distilled


def distill(
    bundle: options.BundleFolder,
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="File to write; must not exist yet.")],
    student: options.Student = "scaled:0.5",
    method: options.Method = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH[:SPLIT]",
            help="Train on these inputs: from reconstruct, or real ones to compare (method data, or alternative).",
        ),
    ] = None,
    seed: options.Seed = 0,
    steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Training steps (4000); some methods have their own.")
    ] = None,
    batch: Annotated[int | None, typer.Option(metavar="N", min=2, help="Inputs in a step (256).")] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="X", min=1e-9, max=10.0, help="Peak of the learning rate (0.004).")
    ] = None,
    shift: Annotated[
        float | None,
        typer.Option(metavar="X", min=0.0, max=0.5, help="Move images by up to this share of their size (0.03)."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="X", min=1.0, help="Let the whole take no longer than this, of which making inputs half at most."
        ),
    ] = None,
    settings: options.Settings = None,
    train: Annotated[
        list[str] | None,
        typer.Option("--train", metavar="KEY=VALUE", help="Another setting of the training: loss=kl, ema=0.99, ..."),
    ] = None,
    device: options.Device = "cpu",
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Export with a free batch axis, not batch 1.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train a small student without data and export it as ONNX.

    Its inputs are made from the bundle's records, its answers are the teacher's. Methods of a paper bring the paper's
    training; what is given here goes before it. Example:

        dfmeta distill release --student lenet5-half --out student.onnx
    """
    options.require_new(out, ".onnx")
    short = {"steps": steps, "batch": batch, "lr": lr, "shift": shift, "seconds": seconds}
    chosen = options.settings(settings)
    given = options.settings(train, "--train", {name: f"--{name}" for name in short})
    given |= {name: str(value) for name, value in short.items() if value is not None}
    options.find_own_code(student)
    with progress.shown() as report:
        from dfmeta import pipeline

        config = pipeline.training_config(pipeline.method_name(bundle, method, data), given)
        done = pipeline.distill(
            bundle,
            out,
            student=student,
            method=method,
            data=data,
            seed=seed,
            config=config,
            settings=chosen,
            device=device,
            dynamic_batch=dynamic_batch,
            progress=report,
        )
    _print(done, as_json=as_json)


def _print(done: Distilled, *, as_json: bool) -> None:
    from dfmeta.report import ModelRow, facts_table, integer, models_table

    rows = [
        ModelRow.of("teacher", done.teacher_costs),
        ModelRow.of(done.student, done.costs, agreement=done.agreement),
    ]
    facts = [
        ("student", str(done.path)),
        ("inputs from", done.method),
        ("seed", str(done.seed)),
        ("last step", f"{integer(done.steps)}, loss {done.loss:.4g}"),
        ("agreement", "on 1,000 inputs from the same source, not on real data"),
        ("source", done.source),
    ]
    output.result(output.plain(done), [models_table(rows), facts_table(facts)], as_json=as_json)
