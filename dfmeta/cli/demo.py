"""``dfmeta demo``: the whole way, on real handwritten digits, in about a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfmeta.cli import options, output, progress


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; must not exist yet.")] = Path("demo"),
    seed: options.Seed = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps: shows the way, not the figures.")] = False,
    as_json: options.Json = False,
) -> None:
    """Go the whole way on real handwritten digits.

    Trains a teacher, publishes its records, then makes a small student without the digits. Example:

        dfmeta demo --out demo
    """
    options.require_new(out)
    with progress.shown() as report:
        from dfmeta.pipeline.demo import run_demo
        from dfmeta.report import facts_table, models_table, seconds

        done = run_demo(out, seed=seed, progress=report, quick=quick)
    facts = [
        ("bundle", str(done.bundle)),
        ("student", str(done.student)),
        ("picture", str(done.picture)),
        ("seed", str(seed)),
        ("time", seconds(done.seconds)),
    ]
    document = {**output.plain(done), "seed": seed, "quick": quick}
    output.result(document, [models_table(done.rows), facts_table(facts)], as_json=as_json)
