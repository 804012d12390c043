"""``dfmeta record``: take records over a data set and publish them with the model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfmeta.cli import options, output, progress

if TYPE_CHECKING:
    import numpy as np

    from dfmeta.data import DataSource
    from dfmeta.pipeline import Published
    from dfmeta.schema import v1

_RELEASE = "What to say about the release"
_IMAGES = "Images to inputs"


class PersonalData(StrEnum):
    """What a publisher may say of the data set."""

    YES = "yes"
    NO = "no"
    NO_ASSERTION = "no-assertion"


def record(
    model: Annotated[str, typer.Option(metavar="FILE.onnx|module:callable", help="The model that will ship.")],
    data: options.Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The bundle's folder; must not exist yet.")],
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="State dict for module:callable.")
    ] = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    preset: Annotated[
        str, typer.Option(metavar="NAME[,NAME]", help="What to record: top-layer, all-layers, spectral.")
    ] = "all-layers,spectral",
    at: Annotated[
        list[str] | None,
        typer.Option("--at", metavar="SITE", help="Record there only: a value name or label of the graph; repeatable."),
    ] = None,
    rank: Annotated[int, typer.Option(metavar="N", min=1, help="Eigenpairs that each spectrum keeps.")] = 32,
    min_units: Annotated[int, typer.Option(metavar="N", min=1, help="The smallest class that may be published.")] = 10,
    suppress_small: Annotated[
        bool, typer.Option("--suppress-small", help="Withhold smaller classes instead of refusing.")
    ] = False,
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
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="The model's name.")] = None,
    release_version: Annotated[str | None, typer.Option(metavar="TEXT", help="Version of the release.")] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="One line for people.")] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="A paragraph for people.")] = None,
    dataset_name: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What the data set is called; its file name is not published."),
    ] = None,
    unit: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What privacy counts: image, document, person.")
    ] = None,
    personal_data: Annotated[
        PersonalData | None, typer.Option(help="Whether the data set holds personal data.")
    ] = None,
    license: Annotated[str | None, typer.Option(metavar="SPDX", help="Licence of model and records.")] = None,
    as_json: options.Json = False,
) -> None:
    """Record a model's statistics over data and publish them.

    Writes a bundle: the model, its records and a manifest. Nothing of the data itself goes in. Example:

        dfmeta record --model model.onnx --data images.npz:train --scale 1/255 --out release
    """
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
    }
    with progress.shown() as report:
        from dfmeta import pipeline
        from dfmeta.data import open_data

        source = open_data(data, limit=limit, seed=seed)
        options.find_own_code(model)
        graph = pipeline.load_model(model, weights=weights, example=_example(model, source, ops))
        published = pipeline.record(
            graph,
            source,
            out,
            presets=presets,
            preprocessing=ops,
            release=pipeline.Release(**{key: value for key, value in about.items() if value is not None}),
            by_class=not no_classes,
            rank=rank,
            at=at,
            min_units=min_units,
            suppress=suppress_small,
            batch_size=batch_size,
            seed=seed,
            limit=limit,
            progress=report,
        )
    _print(published, ops, as_json=as_json)


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


def _print(published: Published, ops: list[v1.Op], *, as_json: bool) -> None:
    from dfmeta.data import describe
    from dfmeta.report import facts_table, integer, size

    rows = [
        ("bundle", str(published.path)),
        ("identity", published.identity),
        ("units", integer(published.units)),
        ("records", f"{integer(published.records)} at {integer(published.sites)} sites"),
        ("model", size(published.graph_bytes)),
        ("sidecar", size(published.record_bytes)),
        ("preprocessing", describe(ops)),
    ]
    facts = {**output.plain(published), "preprocessing": [op.model_dump(mode="json") for op in ops]}
    output.result(facts, [facts_table(rows)], as_json=as_json)
