"""``dfmeta prune``: fewer channels or many zeros, from the records alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta.cli import options, output, progress

if TYPE_CHECKING:
    from rich.table import Table

    from dfmeta.pipeline.pruning import Pruned


def prune(
    bundle: options.BundleFolder,
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="File to write; must not exist yet.")],
    channels: Annotated[
        float | None, typer.Option(metavar="X", help="Fraction of the channels that stays, such as 0.75.")
    ] = None,
    macs: Annotated[
        float | None,
        typer.Option(metavar="X", help="Fraction of the multiply-accumulates that stays, instead."),
    ] = None,
    sparsity: Annotated[
        str, typer.Option(metavar="X|N:M", help="Then set weights to zero: a fraction, 0.5, or a pattern, 2:4.")
    ] = "",
    channel_groups: Annotated[
        str,
        typer.Option(
            "--groups",
            metavar="inner|all",
            help="Which channels may go: those that one weight makes and one reads, or also shared ones.",
        ),
    ] = "inner",
    widths: Annotated[
        str,
        typer.Option(metavar="uniform|overall", help="The same fraction of each group, or what costs least over all."),
    ] = "uniform",
    ranking: Annotated[
        str,
        typer.Option(metavar="surgeon|energy", help="One channel after the other, with repair, or all at once."),
    ] = "surgeon",
    affine: Annotated[bool, typer.Option(help="Refit biases by the recorded means.")] = True,
    variance: Annotated[bool, typer.Option(help="Give the outputs of refitted weights their variance back.")] = True,
    fallback: Annotated[
        str, typer.Option(metavar="none|norms", help="Where nothing is recorded: refuse, or go by the weights' norms.")
    ] = "none",
    data: options.DataOrNone = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Cut channels or set weights to zero, without data.

    What goes is what the recorded second moments say can best be made up for; the weights and biases that are left are
    refitted. With --data the result is measured as well; the data changes nothing in it. Example:

        dfmeta prune release --channels 0.75 --out student.onnx
    """
    options.require_new(out, ".onnx")
    with progress.shown() as report:
        from dfmeta.pipeline import pruning

        config = pruning.Config(
            channels=channels,
            macs=macs,
            sparsity=sparsity,
            groups=channel_groups,  # type: ignore[arg-type]  # looked up by name, as the next three
            widths=widths,  # type: ignore[arg-type]
            ranking=ranking,  # type: ignore[arg-type]
            affine=affine,
            variance=variance,
            fallback=fallback,  # type: ignore[arg-type]
        )
        done = pruning.prune(bundle, out, config=config, data=data, limit=limit, seed=seed, progress=report)
    _print(done, as_json=as_json)


def _print(done: Pruned, *, as_json: bool) -> None:
    from dfmeta.report import facts_table, models_table, size

    written = done.written
    facts = [("model", str(written.path)), ("source", written.source)]
    if done.config.sparsity:
        facts.insert(1, ("changed weights", f"{size(done.dense_bytes)}; {size(done.sparse_bytes)} without their zeros"))
    tables = [models_table(written.rows("pruned")), *_tables(done), facts_table(facts)]
    output.result(output.plain(done), tables, as_json=as_json)


def _tables(done: Pruned) -> list[Table]:
    from dfmeta.report import columns_table, integer, percent

    tables = []
    if done.groups:
        cells = [[one.id, integer(one.size), integer(one.kept), one.left or "-"] for one in done.groups]
        tables.append(
            columns_table(["channels of", "before", "after", "why whole"], cells, numbers=("before", "after"))
        )
    cells = [
        [
            one.label,
            one.form or "-",
            f"{one.error:.2%}",
            f"{max(one.damping, one.sparse_damping):.0e}" if one.damping or one.sparse_damping else "-",
            percent(100 * one.zeros),
            one.dense or "-",
        ]
        for one in done.operators
    ]
    columns = ["operator", "record", "error", "damping", "zeros", "why dense"]
    return [*tables, columns_table(columns, cells, numbers=("error", "damping", "zeros"))]
