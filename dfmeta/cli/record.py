"""``dfmeta record``: take records over a data set and publish them with the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dfmeta.cli import groups, options, output, progress, publishing

if TYPE_CHECKING:
    import numpy as np

    from dfmeta.data import DataSource
    from dfmeta.pipeline import Gathering, Published, Publishing, ShardWritten
    from dfmeta.records import Features
    from dfmeta.schema import v1


@dataclass(frozen=True, slots=True)
class What:
    """What is taken of the data, and in what pieces."""

    preset: Annotated[
        str,
        typer.Option(
            metavar="NAME[,NAME]",
            help="What to record: top-layer, all-layers, spectral, spectral-pairs, calibration. At one site alone: "
            "NAME@SITE.",
        ),
    ] = "all-layers,spectral"
    at: Annotated[
        list[str] | None,
        typer.Option("--at", metavar="SITE", help="Record there only: a value name or label of the graph; repeatable."),
    ] = None
    rank: Annotated[int, typer.Option(metavar="N", min=1, help="Eigenpairs that each spectrum keeps.")] = 32
    features: Annotated[
        str | None, typer.Option(metavar="flattened|channel", help="What the features of a site are; by its size.")
    ] = None
    form: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of second moments: full, toeplitz, kronecker, diagonal; toeplitz."),
    ] = None
    storage: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of second moments: float32, float16, int8; float32.")
    ] = None
    exact: Annotated[bool, typer.Option("--exact", help="Sum in float64 throughout; slower.")] = False
    no_classes: Annotated[bool, typer.Option("--no-classes", help="Record over all units only; needs no labels.")] = (
        False
    )
    batch_size: options.BatchSize = 256
    device: Annotated[str, typer.Option(metavar="cpu|cuda[:N]", help="Where the model runs.")] = "cpu"
    dp_clip: Annotated[
        list[str] | None,
        typer.Option(
            "--dp-clip",
            metavar="[SITE=]NORM",
            help="Scale each unit down to this root mean square, at all sites or at one; repeatable.",
        ),
    ] = None

    def gathering(self, ops: list[v1.Op], seed: int, limit: int | None, budget: int | None) -> Gathering:
        """The same for the functions that record."""
        from dfmeta import pipeline

        return pipeline.Gathering(
            presets=options.names("--preset", self.preset),
            preprocessing=ops,
            by_class=not self.no_classes,
            rank=self.rank,
            at=self.at,
            batch_size=self.batch_size,
            seed=seed,
            limit=limit,
            device=self.device,
            features=cast("Features | None", self.features),
            form=self.form,
            storage=self.storage,
            budget_bytes=budget,
            exact=self.exact,
            clip=publishing.clip_of(self.dp_clip),
        )


@dataclass(frozen=True, slots=True)
class How:
    """How a long pass over data is done; nothing of it changes the result."""

    checkpoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the state there; the same command then goes on from it.")
    ] = None
    checkpoint_seconds: Annotated[
        float, typer.Option(metavar="N", min=0, help="Least time between two writings; 0 for every batch.")
    ] = 60.0
    timeout: Annotated[
        float, typer.Option(metavar="N", min=1, help="Under torchrun: seconds to wait for another process.")
    ] = 1800.0


def record(
    *,
    model: Annotated[str, typer.Option(metavar="FILE.onnx|module:callable", help="The model that will ship.")],
    data: options.DataOrNone = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The bundle's folder; must not exist yet.")] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="State dict for module:callable.")
    ] = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be recorded, and its size; record nothing.")
    ] = False,
    what: What,
    images: groups.Preprocessing,
    release: publishing.Options,
    shard: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write a private shard of that name, for dfmeta merge, and no bundle."),
    ] = None,
    part: Annotated[
        str | None, typer.Option(metavar="I/N", help="With --shard: only the I-th of N parts of the data.")
    ] = None,
    how: How,
    as_json: options.Json = False,
) -> None:
    """Record a model's statistics over data and publish them.

    Writes a bundle: the model, its records and a manifest. Nothing of the data itself goes in. Example:

        dfmeta record --model model.onnx --data images.npz:train --scale 1/255 --out release

    With --shard it keeps everything that was gathered in a private folder instead, to be merged with others. Under
    torchrun the processes share the data, and the first one writes.
    """
    distributed, own_rank = options.torchrun()
    if not plan:
        _require({"--data": data, "--out": out})
    if out is not None and own_rank == 0:
        _require_new(out, how.checkpoint)
    ops = images.operations()
    cut = _part(shard, part, release)
    with progress.shown() as report:
        from dfmeta import pipeline
        from dfmeta.data import open_data

        gathering = what.gathering(ops, seed, limit, release.budget)
        source = open_data(data, limit=limit, seed=seed) if data is not None else None
        options.find_own_code(model)
        example = _example(model, source, ops) if source is not None else None
        graph = pipeline.load_model(model, weights=weights, example=example)
        running = pipeline.Running(how.checkpoint, how.checkpoint_seconds, distributed, how.timeout, report)
        done: Published | ShardWritten
        if plan or out is None or source is None:
            planned = pipeline.plan_facts(graph, gathering)
        elif shard is not None:
            done = pipeline.record_shard(graph, source, out, name=shard, gathering=gathering, part=cut, running=running)
        else:
            done = pipeline.record_with(graph, source, out, gathering, _publishing(release, gathering), running)
    if own_rank == 0:
        # Not before the progress display has gone, which turns all that is printed to stderr.
        if plan:
            _print_plan(planned, as_json=as_json)
        else:
            _print(done, ops, as_json=as_json)


def _require_new(out: Path, checkpoint: Path | None) -> None:
    if checkpoint is not None:
        # What it finds there may be the very result that the checkpoint was for.
        from dfmeta.pipeline.outputs import require_free

        require_free(out, checkpoint)
    options.require_new(out)


def _part(shard: str | None, part: str | None, release: publishing.Options) -> tuple[int, int]:
    """Which part of the data to take, once shards and what is published are known not to contradict each other."""
    if shard is not None:
        options.shard_name(shard)
        release.refuse()
    elif part is not None:
        raise typer.BadParameter("a part of the data is a shard: name it with --shard.", param_hint="'--part'")
    return options.shard_part(part)


def _publishing(release: publishing.Options, gathering: Gathering) -> Publishing:
    from dfmeta import pipeline

    if release.dp_rho is None:
        return release.publishing()
    return release.publishing(pipeline.DifferentialPrivacy(release.dp_rho, gathering.clip, gathering.batch_size))


def _require(given: dict[str, object]) -> None:
    for option, value in given.items():
        if value is None:
            raise typer.BadParameter("needed, unless --plan is given.", param_hint=repr(option))


def _example(model: str, source: DataSource, ops: list[v1.Op]) -> np.ndarray | None:
    """The first unit as the model will read it: an exported module takes its shapes from it."""
    if ":" not in model or Path(model).exists():
        return None
    from dfmeta.data import preprocess
    from dfmeta.errors import DataError

    if len(source.columns) != 1:
        found = f"inputs {', '.join(source.columns)}"
        raise DataError(source.name, found, "one input for a module", "Export the module to ONNX first.")
    first = next(iter(next(source.batches(1)).inputs.values()))
    return preprocess(first, ops) if source.raw else first


def _print_plan(facts: dict[str, Any], *, as_json: bool) -> None:
    from dfmeta.report import plan_tables

    output.result(facts, plan_tables(facts), as_json=as_json)


def _print(done: Published | ShardWritten, ops: list[v1.Op], *, as_json: bool) -> None:
    from dfmeta.data import describe

    facts = {**output.plain(done), "preprocessing": [op.model_dump(mode="json") for op in ops]}
    table = publishing.written(done, ("preprocessing", describe(ops)))
    output.result(facts, [table], as_json=as_json)
