"""Quantizing a bundle's model from its records: the verb ``quantize``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dfmeta.compress import equalize as equalizing
from dfmeta.compress import quantize as step
from dfmeta.compress._expected_histograms import with_expected_histograms
from dfmeta.errors import UnknownName
from dfmeta.export.matmul_nbits import matmul_nbits_model
from dfmeta.export.qoperator import integer_graph
from dfmeta.graph import Graph
from dfmeta.pipeline.closed_form import ROUNDED, Progress, Source, Watch, Written, finish, open_source, stages
from dfmeta.records import PublishedRecords

FORMS = ("qdq", "qoperator", "matmulnbits")
Form = Literal["qdq", "qoperator", "matmulnbits"]


@dataclass(frozen=True, slots=True)
class Quantized:
    """What :func:`quantize` wrote.

    Attributes:
        written: the file, its costs and what was measured.
        form: how it is written.
        layers: one for each weight operator.
        weight_bytes: of all codes and scales as stored.
        nominal_bytes: the same packed to the very bit.
        float_bytes: of the same weights in float32.
        pairs: operators whose weights were made alike first; empty where that was not asked for.
        expected: values that were scaled by it, whose ranges come from second moments.
        notes: what a reader should know, in sentences.
    """

    written: Written
    form: str
    layers: tuple[step.Layer, ...]
    weight_bytes: int
    nominal_bytes: int
    float_bytes: int
    pairs: tuple[equalizing.Pair, ...] = ()
    expected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def quantize(
    bundle: str | Path,
    out: str | Path,
    *,
    config: step.Config | None = None,
    equalize: equalizing.Config | None = None,
    form: Form = "qdq",
    data: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Quantized:
    """Quantize a bundle's model from its records alone, and write it, or write nothing.

    Args:
        bundle: its folder.
        out: ONNX file to write; must not exist.
        config: settings of the step.
        equalize: first even out the weights of neighbouring layers, with these settings; None for not.
        form: ``qdq``, which any runtime reads; ``qoperator``, integer operators for code generators, 8 bits only; or
            ``matmulnbits``, onnxruntime's operator for matrix products with 4-bit weights.
        data: measure on it (what ``--data`` takes); nothing else looks at it.
        limit: on that many units of it, drawn with ``seed``.
        seed: of ``limit``.
        progress: called with stage, steps done, steps in all, and 0.

    Raises:
        OutputExists: ``out`` is taken.
        UnknownName: another form or range policy.
        DataError, BundleError, GraphError, StepError, ExportError: see :mod:`dfmeta.errors`.
    """
    config = _checked(config or step.Config(), equalize, form)
    source = open_source(bundle, out)
    start = _start(source, equalize, config, stages(progress))
    found = step.run(start.graph, start.records, config, stages(progress))
    recipe = {"quantize": asdict(config), "form": form}
    recipe |= {"equalize": asdict(equalize)} if equalize is not None else {}
    graph, raw = _in_form(found, form)
    bits = step.widths(config)[1] or 8
    measured: dict[str, Any] = {"data": data, "limit": limit, "seed": seed, "progress": progress}
    written = finish(source, graph, out, recipe, tolerance=ROUNDED[bits], raw=raw, **measured)
    notes = (*step.notes(found.layers, config), *start.notes, *_of_form(form))
    return Quantized(written, form, found.layers, *_sizes(found.layers), start.pairs, start.expected, notes)


def _checked(config: step.Config, equalize: equalizing.Config | None, form: str) -> step.Config:
    """The settings with defaults written out, before anything is opened."""
    step.check(config)
    if equalize is not None:
        equalizing.check(equalize)
    if form not in FORMS:
        raise UnknownName("form", form, FORMS)
    return step.settled(config)


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """What is quantized: a graph with its records, and as of :class:`Quantized` how it came about."""

    graph: Graph
    records: PublishedRecords
    pairs: tuple[equalizing.Pair, ...] = ()
    expected: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        if not self.expected:
            return ()
        return (f"ranges of scaled values from second moments, as if normal: {', '.join(self.expected)}",)


def _start(source: Source, equalize: equalizing.Config | None, config: step.Config, watch: Watch) -> _Start:
    """The bundle's graph, equalized where that was asked for; the records go along exactly, but for histograms."""
    if equalize is None:
        return _Start(source.graph, source.records)
    equal = equalizing.run(source.graph, source.records, equalize, watch)
    if step.widths(config)[1] is None:
        return _Start(equal.graph, equal.records, equal.pairs)
    records, expected = with_expected_histograms(source.records, equal)
    return _Start(equal.graph, records, equal.pairs, expected)


def _in_form(found: step.Result, form: str) -> tuple[Graph, Callable[[Mapping[str, str]], bytes] | None]:
    """The graph that is measured, and what makes other bytes of it."""
    if form == "qoperator":
        return integer_graph(found.model), None
    if form == "matmulnbits":
        return found.graph, lambda properties: matmul_nbits_model(found.model, properties)
    return found.graph, None


def _sizes(layers: Sequence[step.Layer]) -> tuple[int, int, int]:
    """Bytes of all weights: as stored, packed, and before."""
    stored, packed = sum(layer.bytes for layer in layers), sum(layer.nominal_bytes for layer in layers)
    return stored, packed, 4 * sum(layer.parameters for layer in layers)


def _of_form(form: str) -> tuple[str, ...]:
    if form != "matmulnbits":
        return ()
    return ("what was measured is the same model in form qdq; only onnxruntime reads this file",)
