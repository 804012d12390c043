"""``dfmeta merge``: add shards up, and publish the sum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta.cli import options, output, progress, publishing

if TYPE_CHECKING:
    from dfmeta.pipeline import Published, ShardWritten


def merge(
    *,
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
    seed: options.Seed = 0,
    release: publishing.Options,
    as_json: options.Json = False,
) -> None:
    """Merge private shards and publish the sum.

    The order of the shards does not matter. Classes that are too small are judged by all shards together. Example:

        dfmeta merge north south east --out release --name classifier

    With --shard the sum is a larger shard, to be merged further; nothing is published then.
    """
    options.require_new(out)
    presets = options.names("--preset", preset) if preset is not None else None
    if shard is not None:
        options.shard_name(shard)
        release.refuse()
        if presets is not None:
            raise typer.BadParameter("a shard holds all of what its parts hold.", param_hint="'--preset'")
    with progress.shown() as report:
        from dfmeta import pipeline

        done: Published | ShardWritten
        if shard is not None:
            done = pipeline.merge_into_shard(
                shards, out, name=shard, allow_duplicates=allow_duplicates, progress=report
            )
        else:
            done = pipeline.merge_with(
                shards,
                out,
                release.publishing(),
                presets=presets,
                budget_bytes=release.budget,
                dp_rho=release.dp_rho,
                allow_duplicates=allow_duplicates,
                seed=seed,
                progress=report,
            )
    output.result({**output.plain(done), "shards": len(shards)}, [publishing.written(done)], as_json=as_json)
