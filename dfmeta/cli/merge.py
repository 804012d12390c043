"""``dfmeta merge``: add shards up, and publish the sum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfmeta.cli import options, output, progress, publishing

if TYPE_CHECKING:
    from dfmeta.pipeline import Published, ShardWritten


def merge(
    shards: Annotated[list[Path], typer.Argument(metavar="SHARD...", help="Folders that record --shard wrote.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The bundle's folder; must not exist yet.")],
    shard: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write a larger private shard of that name instead of a bundle."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME]", help="Publish only these of what the shards hold.")
    ] = None,
    allow_duplicates: Annotated[
        bool, typer.Option("--allow-duplicates", help="Let units pass whose very bytes are in two shards.")
    ] = False,
    budget_bytes: publishing.BudgetBytes = None,
    dp_rho: publishing.DpRho = None,
    seed: options.Seed = 0,
    min_units: publishing.MinUnits = None,
    suppress_small: publishing.SuppressSmall = False,
    name: publishing.Name = None,
    release_version: publishing.ReleaseVersion = None,
    title: publishing.Title = None,
    description: publishing.Description = None,
    dataset_name: publishing.DatasetName = None,
    unit: publishing.Unit = None,
    personal_data: publishing.Personal = None,
    license: publishing.License = None,
    as_json: options.Json = False,
) -> None:
    """Merge private shards and publish the sum.

    The order of the shards does not matter. Classes that are too small are judged by all shards together. Example:

        dfmeta merge north south east --out release --name classifier

    With --shard the sum is a larger shard, to be merged further; nothing is published then.
    """
    options.require_new(out)
    about: dict[str, Any] = {
        "name": name,
        "version": release_version,
        "title": title,
        "description": description,
        "dataset": dataset_name,
        "unit": unit,
        "license": license,
        "contains_personal_data": personal_data.value if personal_data else None,
        "min_units": min_units,
        "suppress": suppress_small,
        "dp_rho": dp_rho,
    }
    presets = options.names("--preset", preset) if preset is not None else None
    if shard is not None:
        options.shard_name(shard)
        publishing.refuse_publishing({**about, "budget_bytes": budget_bytes})
        if presets is not None:
            raise typer.BadParameter("a shard holds all of what its parts hold.", param_hint="'--preset'")
    with progress.shown() as report:
        from dfmeta import pipeline
        from dfmeta.records import parse_bytes

        done: Published | ShardWritten
        if shard is not None:
            done = pipeline.merge_into_shard(
                shards, out, name=shard, allow_duplicates=allow_duplicates, progress=report
            )
        else:
            done = pipeline.merge_with(
                shards,
                out,
                publishing.publishing({key: value for key, value in about.items() if key != "dp_rho"}),
                presets=presets,
                budget_bytes=parse_bytes(budget_bytes) if budget_bytes is not None else None,
                dp_rho=dp_rho,
                allow_duplicates=allow_duplicates,
                seed=seed,
                progress=report,
            )
    output.result({**output.plain(done), "shards": len(shards)}, [publishing.written(done)], as_json=as_json)
