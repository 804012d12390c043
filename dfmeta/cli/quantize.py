"""``dfmeta quantize``: weights and values as integers, from the records alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta.cli import options, output, progress

if TYPE_CHECKING:
    from rich.table import Table

    from dfmeta.pipeline.quantizing import Quantized
    from dfmeta.report import ModelRow

# Settings with a flag of their own.
_FLAGS = {
    "bits": "--bits",
    "rounding": "--rounding",
    "ranges": "--ranges",
    "first_last_bits": "--first-last-bits",
    "budget_bytes": "--budget-bytes",
    "int4": "--no-int4",
    "fallback": "--fallback",
}


def quantize(
    bundle: options.BundleFolder,
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="File to write; must not exist yet.")],
    bits: Annotated[
        str | None,
        typer.Option(
            metavar="wN[aM]",
            help="Bits of weights (2 to 8) and values (4 or 8; none for float); w8a8. With a budget, the fewest.",
        ),
    ] = None,
    rounding: Annotated[
        str, typer.Option(metavar="NAME", help="gptq, from second moments; or nearest, without.")
    ] = "gptq",
    ranges: Annotated[str, typer.Option(metavar="NAME", help="Of values: minmax, percentile, mse or entropy.")] = "mse",
    first_last_bits: Annotated[
        int, typer.Option(metavar="N", min=0, max=8, help="Least bits of the first and last layers; 0 for none.")
    ] = 8,
    budget_bytes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Mixed precision: all weights within so many bytes.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="qdq; qoperator, for code generators; or matmulnbits, for onnxruntime."),
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="NAME", help="Write what this runtime or chip takes, such as cortex-m; see check.")
    ] = "",
    no_int4: Annotated[
        bool, typer.Option("--no-int4", help="Store codes of few bits in INT8, for targets without INT4.")
    ] = False,
    fallback: Annotated[
        str | None,
        typer.Option(
            metavar="nearest", help="Round layers without records to nearest, and leave such values in float."
        ),
    ] = None,
    equalize: Annotated[bool, typer.Option("--equalize", help="First even out the weights of neighbours.")] = False,
    settings: options.Settings = None,
    data: options.DataOrNone = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Round a model's weights and values without data.

    Weights are rounded by GPTQ from recorded second moments, ranges come from recorded histograms. With --data the
    result is measured; nothing else looks at it. Example:

        dfmeta quantize release --bits w4a8 --out small.onnx
    """
    options.require_new(out, ".onnx")
    given = options.settings(settings, flags=_FLAGS)
    given |= {"rounding": rounding, "ranges": ranges, "first_last_bits": str(first_last_bits)}
    given |= {"int4": str(not no_int4).lower()}
    optional = {"bits": bits, "budget_bytes": budget_bytes, "fallback": fallback}
    given |= {name: str(value) for name, value in optional.items() if value is not None}
    with progress.shown() as report:
        from dfmeta.compress import equalize as equalizing
        from dfmeta.compress._quantize_settings import configured
        from dfmeta.compress.quantize import Config
        from dfmeta.pipeline.quantizing import quantize as run

        done = run(
            bundle,
            out,
            config=configured(Config(), given),
            equalize=equalizing.Config() if equalize else None,
            form=form,  # type: ignore[arg-type]  # looked up by name
            target=target,
            data=data,
            limit=limit,
            seed=seed,
            progress=report,
        )
    output.warn(done.notes)
    _print(done, as_json=as_json)


def _print(done: Quantized, *, as_json: bool) -> None:
    from dfmeta.report import facts_table, integer, models_table, size

    written, found = done.written, done.written.evaluation
    sizes = (size(each) for each in (done.weight_bytes, done.nominal_bytes, done.float_bytes))
    facts = [
        ("model", str(written.path)),
        ("form", done.form),
        *([("equalized", f"{len(done.pairs)} pairs of layers")] if done.pairs else []),
        ("weights", "{} stored, {} packed, {} before".format(*sizes)),
        ("units", integer(found.count) if found else "none measured: give --data"),
        ("source", written.source),
    ]
    tables = [models_table(_models(done)), _layers(done), facts_table(facts)]
    checked = None if done.checked is None else done.checked.as_dict()
    output.result({**output.plain(replace(done, checked=None)), "checked": checked}, tables, as_json=as_json)


def _models(done: Quantized) -> list[ModelRow]:
    """A quantized weight is no parameter of the file: the table counts those of the teacher."""
    teacher, student = done.written.rows(done.written.path.name)
    return [teacher, replace(student, parameters=teacher.parameters, bytes=done.written.bytes)]


def _layers(done: Quantized) -> Table:
    from dfmeta.report import columns_table, size

    columns = ["layer", "operator", "weight", "values", "rounding", "record", "damping", "error", "size"]
    rows = [
        [
            layer.label,
            layer.op,
            _bits(layer.bits),
            _bits(layer.value_bits),
            layer.rounding or "-",
            layer.form or "-",
            f"{layer.damping:g}" if layer.rounding == "gptq" else "-",
            f"{layer.error:.2e}",
            size(layer.bytes),
        ]
        for layer in done.layers
    ]
    return columns_table(columns, rows, numbers=columns[2:4] + columns[6:])


def _bits(bits: int) -> str:
    return "float" if bits == 32 else str(bits)
