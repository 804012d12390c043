"""``dfmeta convert``: records as files of other tools, and files of other tools as records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta.cli import options, output, progress

if TYPE_CHECKING:
    from dfmeta.pipeline.converting import Converted
    from dfmeta.pipeline.importing import Imported
    from dfmeta.pipeline.release import Release

_ENDINGS = {"ort-calibration": (".json",), "aimet-encodings": (".encodings", ".json"), "imatrix": (".gguf", ".dat")}


def convert(
    sources: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE|FILE...", help="A bundle with --to; with --from, the other tool's.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="File (a folder with --from) to write; must not exist yet.")
    ],
    to: Annotated[
        str | None, typer.Option("--to", metavar="NAME", help="ort-calibration, aimet-encodings or imatrix.")
    ] = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="NAME", help="imatrix or flat-hessian.")] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE.onnx", help="With --from: the model that the files speak of.")
    ] = None,
    map_: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE.json", help="An object: the other tool's name to the graph's weight(s)."),
    ] = None,
    names: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of weights in an imatrix: graph, or llama.cpp.")
    ] = None,
    bits: Annotated[
        str | None, typer.Option(metavar="wN[aM]", help="Of aimet-encodings: bits of weights and values; w8a8.")
    ] = None,
    ranges: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of values: minmax, percentile, mse (unless told) or entropy.")
    ] = None,
    settings: options.Settings = None,
    min_units: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="With --from: least chunks or rows to publish; 10.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="With --from: the model's name.")] = None,
    dataset_name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="With --from: what the data set is called.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(metavar="SPDX", help="With --from: licence of model and records.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write records for another tool, or read its own.

    With --from, files of another tool become a bundle. What cannot be converted is named. Examples:

        dfmeta convert release --to ort-calibration --out ranges.json
        dfmeta convert imatrix.gguf --from imatrix --model model.onnx --out release
    """
    if (to is None) == (from_ is None):
        raise typer.BadParameter("one of --to and --from.", param_hint="'--to'")
    about = {"name": name, "dataset": dataset_name, "license": license}
    here = {"--names": names, "--bits": bits, "--ranges": ranges, "--set": settings}
    there = {"--model": model, "--min-units": min_units, "--name": name, "--dataset-name": dataset_name}
    _refuse(there | {"--license": license} if to is not None else here, "--from" if to is not None else "--to")
    if to is not None:
        given = options.settings(settings, flags={"bits": "--bits", "ranges": "--ranges"})
        given |= _given({"bits": bits, "ranges": ranges})
        _to(sources, out, to, names or "graph", map_, given, as_json=as_json)
    elif from_ is not None:
        _from(sources, out, from_, model, map_, min_units, _given(about), as_json=as_json)


def _given(options_: dict[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in options_.items() if value is not None}


def _refuse(given: Mapping[str, object], option: str) -> None:
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter(f"it goes with {option} only.", param_hint=repr(name))


def _to(
    sources: list[Path],
    out: Path,
    to: str,
    names: str,
    map_: Path | None,
    given: dict[str, str],
    *,
    as_json: bool,
) -> None:
    if len(sources) != 1:
        raise typer.BadParameter(f"{len(sources)} of them, expected one bundle.", param_hint="'BUNDLE'")
    options.require_new(out)
    endings = _ENDINGS.get(to, (out.suffix,))
    if out.suffix not in endings:
        raise typer.BadParameter(f"{str(out)!r} does not end in {' or '.join(endings)}.", param_hint="'--out'")
    with progress.shown():
        from dfmeta.compress._quantize_settings import configured
        from dfmeta.compress.quantize import Config
        from dfmeta.pipeline.converting import convert_to

        config = configured(Config(), given)
        done = convert_to(
            sources[0],
            out,
            to,  # type: ignore[arg-type]
            config=config,
            naming=names,
            names=str(map_) if map_ is not None else None,
        )
    output.warn([*done.notes, *(f"left out: {one.name}: {one.reason}" for one in done.left_out)])
    _print_converted(done, as_json=as_json)


def _from(
    sources: list[Path],
    out: Path,
    from_: str,
    model: Path | None,
    map_: Path | None,
    min_units: int | None,
    about: dict[str, str],
    *,
    as_json: bool,
) -> None:
    if model is None:
        raise typer.BadParameter("needed with --from.", param_hint="'--model'")
    options.require_new(out)
    with progress.shown():
        from dfmeta.graph import Graph
        from dfmeta.pipeline.importing import convert_from
        from dfmeta.records import DEFAULT_MIN_UNITS

        done = convert_from(
            sources,
            out,
            from_,  # type: ignore[arg-type]
            model=Graph.from_file(model),
            names=str(map_) if map_ is not None else None,
            release=_release(about),
            min_units=min_units or DEFAULT_MIN_UNITS,
        )
    left_out = [f"left out: {one.name}: {one.reason}" for one in done.left_out]
    bare = [f"without a record: {one.name}: {one.reason}" for one in done.uncovered]
    output.warn([*done.notes, *left_out, *bare])
    _print_imported(done, as_json=as_json)


def _release(about: dict[str, str]) -> Release:
    from dfmeta.pipeline.release import Release

    return Release(**about)  # type: ignore[arg-type]


def _print_converted(done: Converted, *, as_json: bool) -> None:
    from dfmeta.report import facts_table, integer, size

    rows = [
        ("file", str(done.path)),
        ("format", done.format),
        ("values", integer(done.values)),
        ("weights", integer(done.weights)),
        ("size", size(done.bytes)),
        ("source", done.source),
    ]
    output.result(output.plain(done), [facts_table(rows)], as_json=as_json)


def _print_imported(done: Imported, *, as_json: bool) -> None:
    from dfmeta.report import columns_table, facts_table, integer, size

    rows = [[name, ", ".join(labels), done.form] for name, labels in done.used.items()]
    facts = [
        ("bundle", str(done.published.path)),
        ("identity", done.published.identity),
        ("records", integer(done.published.records)),
        ("left out", integer(len(done.left_out))),
        ("operators without", integer(len(done.uncovered))),
        ("sidecar", size(done.published.record_bytes)),
    ]
    tables = [columns_table(["entry", "operators", "form"], rows), facts_table(facts)]
    output.result(output.plain(done), tables, as_json=as_json)
