"""``dfmeta reconstruct``: make inputs from a bundle's records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfmeta.cli import options, output, progress


def reconstruct(
    bundle: options.BundleFolder,
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="File to write: x, and labels y.")],
    method: options.Method = None,
    count: Annotated[int, typer.Option(metavar="N", min=1, help="How many inputs to make.")] = 1000,
    seed: options.Seed = 0,
    settings: options.Settings = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A[,B]", help="Numbers or names of the only classes to make. Without: all of them."),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.onnx",
            help="For a method that learns from a student: a trained one, or one to train beside it.",
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="PATH[:SPLIT]", help="For a method that draws from data.")] = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Make inputs from a bundle's records, without any data.

    The file is a data set that distill and evaluate take with --data. Example:

        dfmeta reconstruct release --count 2000 --set iterations=300 --out made.safetensors
    """
    options.require_new(out, ".safetensors")
    chosen = options.settings(settings)
    if student is not None and not student.endswith(".onnx"):
        options.find_own_code(student)
    with progress.shown() as report:
        from dfmeta import pipeline
        from dfmeta.report import facts_table, integer, size

        method = pipeline.method_name(bundle, method, data)
        path = pipeline.reconstruct(
            bundle,
            out,
            method=method,
            count=count,
            seed=seed,
            settings=chosen,
            classes=options.names("--classes", classes) if classes is not None else None,
            student=student,
            data=data,
            device=device,
            progress=report,
        )
    bytes_written = path.stat().st_size
    facts = {"path": path, "method": method, "count": count, "seed": seed, "settings": chosen}
    rows = [
        ("inputs", str(path)),
        ("count", integer(count)),
        ("method", method),
        ("seed", str(seed)),
        ("size", size(bytes_written)),
    ]
    output.result({**facts, "bytes": bytes_written}, [facts_table(rows)], as_json=as_json)
