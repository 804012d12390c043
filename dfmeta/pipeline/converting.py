"""Records in other tools' formats: the half of the verb ``convert`` that begins with a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from dfmeta.bundle import write_file
from dfmeta.compress import quantize as step
from dfmeta.compress._ranges import affine
from dfmeta.compress.value_ranges import ValueRanges, value_ranges
from dfmeta.errors import DataError, StepError, UnknownName
from dfmeta.export.aimet_encodings import aimet_encodings
from dfmeta.export.imatrix import Importance, dat_bytes, gguf_bytes
from dfmeta.export.ort_calibration import calibration_cache
from dfmeta.export.quantized import QuantizedValue
from dfmeta.graph import Graph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.graph.operator_inputs import operator_inputs
from dfmeta.numerics.packed import packed_diagonal
from dfmeta.pipeline.closed_form import Source, open_source
from dfmeta.records.foreign_moments import LeftOut
from dfmeta.records.foreign_names import llama_names, read_map
from dfmeta.records.operator_moments import moment_record
from dfmeta.records.published import Statistic

To = Literal["ort-calibration", "aimet-encodings", "imatrix"]
NAMINGS = ("graph", "llama.cpp")


@dataclass(frozen=True, slots=True)
class Converted:
    """What :func:`convert_to` wrote.

    Attributes:
        path: the file.
        format: of it.
        bytes: its size.
        values: entries for values of the graph.
        weights: entries for weights.
        source: sha256 of the bundle's manifest.
        left_out: what is not in the file, and why.
        exclude: nodes that the other tool has to leave in floating point, as it would ask for what was left out; an
            empty name stands for all nodes without one.
        notes: what a reader should know, in sentences.
    """

    path: Path
    format: str
    bytes: int
    values: int
    weights: int
    source: str
    left_out: tuple[LeftOut, ...] = ()
    exclude: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Written:
    raw: bytes
    values: int
    weights: int
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    exclude: tuple[str, ...] = ()


def convert_to(
    bundle: str | Path,
    out: str | Path,
    to: To,
    *,
    config: step.Config | None = None,
    naming: str = "graph",
    names: str | None = None,
) -> Converted:
    """Write what a bundle's records say as a file of another tool, or write nothing.

    Args:
        bundle: its folder.
        out: file to write; must not exist. For ``imatrix`` its ending chooses the format: ``.dat``, or GGUF.
        to: ``ort-calibration``, ranges for onnxruntime's static quantiser; ``aimet-encodings``, scales and offsets in
            AIMET's format 1.0.0; ``imatrix``, sums of squares for llama.cpp.
        config: of ``quantize``: bits, and how ranges and scales are chosen. Rounding does not matter here.
        naming: of weights in an ``imatrix``: ``graph``, as they are called there, or ``llama.cpp``.
        names: file with a map from such names to the graph's weights, for an ``imatrix``.

    Raises:
        OutputExists: ``out`` is taken.
        UnknownName: another format or naming, or a weight in the map that the graph does not have.
        StepError: records that the format needs, and that are not there.
        MissingExtra: ``llama.cpp``'s names without the package that has them.
        DataError, BundleError, GraphError, SchemaError, ExportError: see :mod:`dfmeta.errors`.
    """
    if to not in WRITERS:
        raise UnknownName("format", to, WRITERS)
    if naming not in NAMINGS:
        raise UnknownName("naming", naming, NAMINGS)
    if to != "imatrix" and (names is not None or naming != "graph"):
        raise DataError(f"--to {to}", "names of weights", "none", "Only an imatrix is written under other names.")
    config = config or step.Config()
    step.check(config)
    source = open_source(bundle, out)
    settings = _Settings(config, naming, names, Path(out).suffix == ".dat")
    made = WRITERS[to](source, settings)
    write_file(out, made.raw)
    identity, told = source.opened.bundle.identity, (made.left_out, made.exclude, made.notes)
    return Converted(Path(out), to, len(made.raw), made.values, made.weights, identity, *told)


def ranges_of(source: Source, to: To) -> tuple[bytes, tuple[LeftOut, ...]]:
    """What records say of a graph as a file of another tool, at 8 bits, with the defaults of :func:`convert_to`.

    Args:
        source: a graph with its own records.
        to: ``ort-calibration`` or ``aimet-encodings``.

    Returns:
        The file, and what is not in it.

    Raises:
        StepError: records that the format needs, and that are not there.
    """
    made = WRITERS[to](source, _Settings(step.Config(), NAMINGS[0], None, short=False))
    return made.raw, made.left_out


@dataclass(frozen=True, slots=True)
class _Settings:
    config: step.Config
    naming: str
    names: str | None
    short: bool


def _ranges(source: Source, graph: Graph, settings: _Settings, bits: int) -> ValueRanges:
    found = value_ranges(graph, source.records, settings.config.ranges, bits, settings.config.percentile)
    if not any(one.origin == "recorded" for one in found.known):
        fix = "Use a bundle recorded with the preset 'calibration'."
        raise StepError("histograms", f"none in {source.path}", "one for each value", fix)
    return found


def _unknown(found: ValueRanges) -> tuple[LeftOut, ...]:
    return tuple(LeftOut(name, "nothing is recorded of it or of what it is made from") for name in found.unknown)


def _origins(found: ValueRanges) -> tuple[str, ...]:
    notes = []
    for origin, words in (
        ("derived", "from what they are made from or become"),
        ("moments", "from second moments, as if normal"),
    ):
        names = [one.value for one in found.known if one.origin == origin]
        if names:
            notes.append(f"ranges {words}: {', '.join(names)}")
    return tuple(notes)


def _to_ort(source: Source, settings: _Settings) -> _Written:
    """Of the graph as it is and with BatchNormalization folded: both kinds of names, for either model."""
    plain = _ranges(source, without_batch_norm(source.graph), settings, 8)
    whole = _ranges(source, source.graph, settings, 8)
    ends = {one.value: (one.low, one.high) for found in (whole, plain) for one in found.known}
    notes = (
        "give it to quantize_static(..., None, calibration_cache_path=FILE) with calibrate_method MinMax, which is the "
        "default, whatever policy chose the ranges",
        *_origins(plain),
    )
    exclude = _touching(source.graph, set(whole.unknown) | set(plain.unknown))
    if exclude:
        rest = "; '' are all nodes without a name: name them, and list those alone" if "" in exclude else ""
        notes = (*notes, f"of what is left out it has no range: add nodes_to_exclude={list(exclude)}{rest}")
    return _Written(calibration_cache(ends), len(ends), 0, _unknown(plain), notes, exclude)


def _touching(graph: Graph, values: set[str]) -> tuple[str, ...]:
    """Names of the nodes that make or read any of these values, each once."""
    nodes = (node for node in graph.model.graph.node if values & {*node.input, *node.output})
    return tuple(dict.fromkeys(node.name for node in nodes))


def _to_aimet(source: Source, settings: _Settings) -> _Written:
    config = replace(settings.config, rounding="nearest", bias_correction=False)
    made = step.run(source.graph, source.records, config)
    _, bits = step.widths(config)
    values = {value.value: value for value in made.model.values}
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = (
        "encodings speak of the graph with BatchNormalization folded: fold it before the simulation is made",
    )
    if bits is not None:
        found = _ranges(source, without_batch_norm(source.graph), settings, bits)
        left_out, notes = _unknown(found), (*notes, *_origins(found))
        for one in found.known:
            chosen = affine(one.low, one.high, bits, symmetric=config.values == "int8")
            values.setdefault(one.value, QuantizedValue(one.value, chosen.scale, chosen.zero, chosen.dtype))
    raw = aimet_encodings(tuple(values.values()), made.model.weights)
    return _Written(raw, len(values), len(made.model.weights), left_out, notes)


def _to_imatrix(source: Source, settings: _Settings) -> _Written:
    named, left_out = _names(source.graph, settings)
    pooled: dict[str, list[tuple[int, np.ndarray, np.ndarray | None]]] = {}
    units = 1
    by_id = {record.id: record for record in source.opened.bundle.manifest.records}
    for read in operator_inputs(source.graph):
        statistic = moment_record(source.records, read)
        count = int(statistic.tensors["count"].min()) if statistic is not None else 0
        reason = _unusable(read.op, read.window is not None, read.left_out, count, recorded=statistic is not None)
        if reason or statistic is None:
            left_out.append(LeftOut(read.label, reason))
        elif read.weight in named:
            pooled.setdefault(read.weight, []).append((count, *_diagonal(statistic)))
            units = max(units, by_id[statistic.record].unit_count)
    if not pooled:
        fix = "Use a bundle recorded with the preset 'calibration', or name its weights with --map."
        raise StepError("second moments", "none of a matrix product with a name", "one or more", fix)
    entries = tuple(_importance(named[weight], several) for weight, several in pooled.items())
    datasets = [dataset.name for dataset in source.opened.bundle.manifest.datasets]
    rows = max(1, round(max(entry.count for entry in entries) / units))
    raw = dat_bytes(entries, datasets, units) if settings.short else gguf_bytes(entries, datasets, units, rows)
    notes = ("the .dat format holds no means",) if settings.short else ()
    return _Written(raw, 0, len(entries), tuple(left_out), notes)


def _unusable(op: str, window: bool, left_out: str, count: int, *, recorded: bool) -> str:
    """Why an operator has no place in an importance matrix; empty where it has."""
    if window or op not in ("MatMul", "Gemm"):
        return f"a {op} is no matrix product, which is all that the format knows"
    if not recorded:
        return left_out or "no second moment of its input is recorded"
    return "" if count > 0 else "nothing was observed of its input"


def _names(graph: Graph, settings: _Settings) -> tuple[dict[str, str], list[LeftOut]]:
    """Weight to its name in the file, and weights without one."""
    reads = operator_inputs(graph)
    found = {read.weight: read.weight for read in reads} if settings.naming == "graph" else llama_names(reads)
    if settings.names is not None:
        known = {name: read.weight for read in reads for name in (read.weight, read.label)}
        for foreign, weights in read_map(settings.names).items():
            for weight in weights:
                if weight not in known:
                    raise UnknownName("weight in the map", weight, known)
                found[known[weight]] = foreign
    products = dict.fromkeys(read.weight for read in reads if read.op in ("MatMul", "Gemm"))
    return found, [LeftOut(name, "llama.cpp has no name for it") for name in products if name not in found]


def _diagonal(statistic: Statistic) -> tuple[np.ndarray, np.ndarray | None]:
    """E[x^2] and E[x], without the matrix that the first may be a part of."""
    tensors = {name: tensor.numpy()[0].astype(np.float64) for name, tensor in statistic.tensors.items()}
    squares = tensors["diagonal"] if "diagonal" in tensors else packed_diagonal(tensors["matrix"])
    observed = statistic.configuration.get("mean_observed", True)
    return squares, tensors["mean"] if observed else None


def _importance(name: str, several: Sequence[tuple[int, np.ndarray, np.ndarray | None]]) -> Importance:
    """One weight's entry; of one that several operators share, over all that they read."""
    total = sum(count for count, _, _ in several)
    squares = sum(count / total * values for count, values, _ in several)
    means = [count / total * mean for count, _, mean in several if mean is not None]
    return Importance(name, total, np.asarray(squares), np.sum(means, axis=0) if len(means) == len(several) else None)


WRITERS: Mapping[str, Callable[[Source, _Settings], _Written]] = {
    "ort-calibration": _to_ort,
    "aimet-encodings": _to_aimet,
    "imatrix": _to_imatrix,
}
