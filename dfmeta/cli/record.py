"""``dfmeta record``: take records over a data set and publish them with the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dfmeta.cli import options, output, progress, publishing

if TYPE_CHECKING:
    import numpy as np

    from dfmeta.data import DataSource
    from dfmeta.pipeline import Published, ShardWritten
    from dfmeta.records import Features
    from dfmeta.schema import v1


def record(
    model: Annotated[str, typer.Option(metavar="FILE.onnx|module:callable", help="The model that will ship.")],
    data: options.DataOrNone = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The bundle's folder; must not exist yet.")] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="State dict for module:callable.")
    ] = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    preset: Annotated[
        str,
        typer.Option(
            metavar="NAME[,NAME]",
            help="What to record: top-layer, all-layers, spectral, spectral-pairs, calibration.",
        ),
    ] = "all-layers,spectral",
    at: Annotated[
        list[str] | None,
        typer.Option("--at", metavar="SITE", help="Record there only: a value name or label of the graph; repeatable."),
    ] = None,
    rank: Annotated[int, typer.Option(metavar="N", min=1, help="Eigenpairs that each spectrum keeps.")] = 32,
    features: Annotated[
        str | None, typer.Option(metavar="flattened|channel", help="What the features of a site are; by its size.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of second moments: full, toeplitz, kronecker, diagonal; toeplitz."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of second moments: float32, float16, int8; float32.")
    ] = None,
    budget_bytes: publishing.BudgetBytes = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be recorded, and its size; record nothing.")
    ] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Sum in float64 throughout; slower.")] = False,
    min_units: publishing.MinUnits = None,
    suppress_small: publishing.SuppressSmall = False,
    no_classes: Annotated[
        bool, typer.Option("--no-classes", help="Record over all units only; needs no labels.")
    ] = False,
    batch_size: options.BatchSize = 256,
    resize: options.Resize = None,
    scale: options.Scale = None,
    mean: options.Mean = None,
    std: options.Std = None,
    pad: options.Pad = None,
    pad_value: options.PadValue = "0",
    preprocessing: options.Preprocessing = None,
    name: publishing.Name = None,
    release_version: publishing.ReleaseVersion = None,
    title: publishing.Title = None,
    description: publishing.Description = None,
    dataset_name: publishing.DatasetName = None,
    unit: publishing.Unit = None,
    personal_data: publishing.Personal = None,
    license: publishing.License = None,
    dp_rho: publishing.DpRho = None,
    dp_clip: Annotated[
        list[str] | None,
        typer.Option(
            "--dp-clip",
            metavar="[SITE=]NORM",
            help="Scale each unit down to this root mean square, at all sites or at one; repeatable.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write a private shard of that name, for dfmeta merge, and no bundle."),
    ] = None,
    part: Annotated[
        str | None, typer.Option(metavar="I/N", help="With --shard: only the I-th of N parts of the data.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the state there; the same command then goes on from it.")
    ] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(metavar="N", min=0, help="Least time between two writings; 0 for every batch.")
    ] = 60.0,
    device: Annotated[str, typer.Option(metavar="cpu|cuda[:N]", help="Where the model runs.")] = "cpu",
    timeout: Annotated[
        float, typer.Option(metavar="N", min=1, help="Under torchrun: seconds to wait for another process.")
    ] = 1800.0,
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
        options.require_new(out)
    ops = options.preprocessing(scale, mean, std, pad, pad_value, resize, preprocessing)
    presets = options.names("--preset", preset)
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
    if shard is not None:
        options.shard_name(shard)
        publishing.refuse_publishing({**about, "budget_bytes": budget_bytes})
    elif part is not None:
        raise typer.BadParameter("a part of the data is a shard: name it with --shard.", param_hint="'--part'")
    cut = options.shard_part(part)
    with progress.shown() as report:
        from dfmeta import pipeline
        from dfmeta.data import open_data
        from dfmeta.records import parse_bytes

        source = open_data(data, limit=limit, seed=seed) if data is not None else None
        options.find_own_code(model)
        example = _example(model, source, ops) if source is not None else None
        graph = pipeline.load_model(model, weights=weights, example=example)
        gathering = pipeline.Gathering(
            presets=presets,
            preprocessing=ops,
            by_class=not no_classes,
            rank=rank,
            at=at,
            batch_size=batch_size,
            seed=seed,
            limit=limit,
            device=device,
            features=cast("Features | None", features),
            form=form,
            storage=storage,
            budget_bytes=parse_bytes(budget_bytes) if budget_bytes is not None else None,
            exact=exact,
            clip=publishing.clip_of(dp_clip),
        )
        done: Published | ShardWritten
        running = pipeline.Running(checkpoint, checkpoint_seconds, distributed, timeout, report)
        if plan or out is None or source is None:
            planned = pipeline.plan_facts(graph, gathering)
        elif shard is not None:
            done = pipeline.record_shard(graph, source, out, name=shard, gathering=gathering, part=cut, running=running)
        else:
            said = {key: value for key, value in about.items() if key != "dp_rho"}
            if dp_rho is not None:
                said["privacy"] = pipeline.DifferentialPrivacy(dp_rho, gathering.clip, batch_size)
            done = pipeline.record_with(graph, source, out, gathering, publishing.publishing(said), running)
    if own_rank == 0:
        # Not before the progress display has gone, which turns all that is printed to stderr.
        if plan:
            _print_plan(planned, as_json=as_json)
        else:
            _print(done, ops, as_json=as_json)


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
