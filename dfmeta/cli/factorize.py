"""``dfmeta factorize``: operators as chains of smaller ones, from the records alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta.cli import options, output, progress

if TYPE_CHECKING:
    from dfmeta.pipeline.factorizing import Factorized


def factorize(
    bundle: options.BundleFolder,
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="File to write; must not exist yet.")],
    params: Annotated[
        float | None, typer.Option(metavar="X", help="Share of the weights' elements that is left (0.75).")
    ] = None,
    macs: Annotated[
        float | None, typer.Option(metavar="X", help="Share of the multiply-accumulates that is left, instead.")
    ] = None,
    forms: Annotated[
        str | None,
        typer.Option(metavar="NAME[,NAME]", help="Forms to choose from: svd, tucker, rows, columns; all of them."),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="OPERATOR", help="Leave this operator whole; may be given many times.")
    ] = None,
    least_rank: Annotated[int, typer.Option(metavar="N", min=1, help="The smallest rank.")] = 1,
    damping: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Ridge on moments, as a share of each feature's own (0.01; 0.1 for compact ones)."
        ),
    ] = None,
    affine: Annotated[bool, typer.Option(help="Refit biases by the recorded means.")] = True,
    fallback: Annotated[
        str, typer.Option(metavar="none|plain", help="Where nothing is recorded: refuse, or go by the numbers alone.")
    ] = "none",
    data: options.DataOrNone = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Write layers as chains of smaller ones without data.

    Ranks and forms come from one budget and from what the recorded second moments say each of them would lose. With
    --data the result is measured as well; the data changes nothing in it. Example:

        dfmeta factorize release --params 0.75 --out student.onnx
    """
    options.require_new(out, ".onnx")
    with progress.shown() as report:
        from dfmeta.pipeline import factorizing

        config = factorizing.Config(
            params=0.75 if params is None and macs is None else params,
            macs=macs,
            forms=tuple(options.names("--forms", forms)) if forms is not None else factorizing.Config().forms,
            least_rank=least_rank,
            affine=affine,
            damping=damping,
            keep=tuple(keep or ()),
            fallback=fallback,  # type: ignore[arg-type]  # looked up by name
        )
        done = factorizing.factorize(bundle, out, config=config, data=data, limit=limit, seed=seed, progress=report)
    _print(done, as_json=as_json)


def _print(done: Factorized, *, as_json: bool) -> None:
    from dfmeta.report import columns_table, facts_table, integer, models_table

    written = done.written
    columns = ["operator", "form", "ranks", "parameters", "before", "error", "damping", "why whole"]
    cells = [
        [
            one.label,
            one.form,
            " x ".join(map(str, one.ranks)) or "-",
            integer(one.parameters),
            integer(one.parameters_before),
            f"{one.error:.2%}" if one.form != "whole" else "-",
            f"{one.damping:g}" if one.record else "-",
            one.reason or "-",
        ]
        for one in done.operators
    ]
    facts = [
        ("model", str(written.path)),
        ("weights", f"{integer(done.parameters)} of {integer(done.parameters_before)} elements"),
        *((f"not factorized: {label}", reason) for label, reason in done.left),
        ("source", written.source),
    ]
    tables = [
        models_table(written.rows("factorized")),
        columns_table(columns, cells, numbers=("parameters", "before", "error", "damping")),
        facts_table(facts),
    ]
    output.result(output.plain(done), tables, as_json=as_json)
