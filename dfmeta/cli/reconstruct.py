"""``dfmeta reconstruct``: make inputs from a bundle's records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfmeta.cli import options, output, progress


def reconstruct(
    bundle: options.BundleFolder,
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="File to write: x, and labels y.")],
    method: options.Method = "matched-generator",
    count: Annotated[int, typer.Option(metavar="N", min=1, help="How many inputs to make.")] = 1000,
    seed: options.Seed = 0,
    settings: options.Settings = None,
    as_json: options.Json = False,
) -> None:
    """Make inputs from a bundle's records, without any data.

    The file is a data set that distill and evaluate take with --data. Example:

        dfmeta reconstruct release --count 2000 --set iterations=300 --out made.safetensors
    """
    options.require_new(out, ".safetensors")
    chosen = options.settings(settings)
    with progress.shown() as report:
        from dfmeta import pipeline
        from dfmeta.report import facts_table, integer, size

        path = pipeline.reconstruct(
            bundle, out, method=method, count=count, seed=seed, settings=chosen, progress=report
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
