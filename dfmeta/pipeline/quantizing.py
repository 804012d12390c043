"""Quantizing a bundle's model from its records: the verb ``quantize``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dfmeta.compress import equalize as equalizing
from dfmeta.compress import quantize as step
from dfmeta.compress._expected_histograms import with_expected_histograms
from dfmeta.errors import UnknownName
from dfmeta.export.canonical import canonicalize
from dfmeta.export.matmul_nbits import matmul_nbits_model, stored_bytes
from dfmeta.export.qoperator import integer_graph
from dfmeta.export.quantized import quantized_graph
from dfmeta.export.targets import Checked, Target, check
from dfmeta.graph import Graph
from dfmeta.pipeline.closed_form import ROUNDED, Progress, Source, Watch, Written, finish, open_source, stages
from dfmeta.pipeline.targeting import form_for, integer_bias, integer_target, settings_for
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
        checked: the file held against the target; None without one.
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
    checked: Checked | None = None


def quantize(
    bundle: str | Path,
    out: str | Path,
    *,
    config: step.Config | None = None,
    equalize: equalizing.Config | None = None,
    form: Form | None = None,
    target: str = "",
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
            ``matmulnbits``, onnxruntime's operator for matrix products with 4-bit weights. None for the target's, or
            ``qdq``.
        target: write it for this one (:mod:`dfmeta.export.targets`): from the canonical form of the model, in the
            form and the types that it takes, and held against its rules.
        data: measure on it (what ``--data`` takes); nothing else looks at it.
        limit: on that many units of it, drawn with ``seed``.
        seed: of ``limit``.
        progress: called with stage, steps done, steps in all, and 0.

    Raises:
        OutputExists: ``out`` is taken.
        UnknownName: another form, range policy or target.
        DataError, BundleError, GraphError, StepError, ExportError: see :mod:`dfmeta.errors`.
    """
    chosen, profile = _form(form, target)
    config = _checked(config or step.Config(), equalize, profile)
    source = open_source(bundle, out)
    start = _start(source, equalize, config, profile, stages(progress))
    found = step.run(start.graph, start.records, config, stages(progress))
    recipe: dict[str, Any] = {"quantize": asdict(config), "form": chosen, **({"target": target} if target else {})}
    recipe |= {"equalize": asdict(equalize)} if equalize is not None else {}
    graph, raw = in_form(found, chosen, config, profile)
    bits = step.widths(config)[1] or 8
    measured: dict[str, Any] = {"data": data, "limit": limit, "seed": seed, "progress": progress}
    written = finish(source, graph, out, recipe, tolerance=ROUNDED[bits], raw=raw, **measured)
    layers = _as_stored(found) if chosen == "matmulnbits" else found.layers
    checked = None if profile is None else check(Graph.from_file(out), profile)
    notes = (*step.notes(found.layers, config), *start.notes, *_of_form(chosen), *_misfits(checked))
    return Quantized(written, chosen, layers, *_sizes(layers), start.pairs, start.expected, notes, checked)


def _form(form: str | None, target: str) -> tuple[str, Target | None]:
    """How to write it, and the profile of the target; None without one."""
    if form is not None and form not in FORMS:
        raise UnknownName("form", form, FORMS)
    profile = integer_target(target) if target else None
    return form_for(profile, form) if profile is not None else form or FORMS[0], profile


def _checked(config: step.Config, equalize: equalizing.Config | None, target: Target | None) -> step.Config:
    """The settings with defaults and the target's types written out, before anything is opened."""
    step.check(config)
    if equalize is not None:
        equalizing.check(equalize)
    return step.settled(settings_for(target, config) if target is not None else config)


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


def _start(
    source: Source, equalize: equalizing.Config | None, config: step.Config, target: Target | None, watch: Watch
) -> _Start:
    """The bundle's graph, in canonical form for a target, and equalized where that was asked for.

    The records go along exactly, but for histograms of scaled values.
    """
    graph = source.graph if target is None else canonicalize(source.graph, keep_names=True)
    if equalize is None:
        return _Start(graph, source.records)
    equal = equalizing.run(graph, source.records, equalize, watch)
    if step.widths(config)[1] is None:
        return _Start(equal.graph, equal.records, equal.pairs)
    records, expected = with_expected_histograms(source.records, equal)
    return _Start(equal.graph, records, equal.pairs, expected)


def in_form(
    found: step.Result, form: str, config: step.Config, target: Target | None
) -> tuple[Graph, Callable[[Mapping[str, str]], bytes] | None]:
    """The graph that is measured, and what makes other bytes of it; None where it is written as it is.

    Args:
        found: codes and ranges.
        form: one of :data:`FORMS`.
        config: what they were made with.
        target: that it is for; None for none.
    """
    if form == "qoperator":
        return integer_graph(found.model), None
    if form == "matmulnbits":
        return found.graph, lambda properties: matmul_nbits_model(found.model, properties, int4=config.int4)
    if target is None or integer_bias(target):
        return found.graph, None
    return quantized_graph(found.model, int4=config.int4, integer_bias=False), None


def _as_stored(found: step.Result) -> tuple[step.Layer, ...]:
    """The layers with the bytes of blocks, each of which has scales of its own; a weight that is shared counts once."""
    stored = stored_bytes(found.graph, found.model)
    return tuple(
        replace(layer, bytes=stored[layer.weight]) if layer.weight in stored and layer.parameters else layer
        for layer in found.layers
    )


def _misfits(checked: Checked | None) -> tuple[str, ...]:
    """What the target does not take all the same."""
    if checked is None:
        return ()
    return tuple(f"does not fit {checked.target}: {one}" for one in checked.violations)


def _sizes(layers: Sequence[step.Layer]) -> tuple[int, int, int]:
    """Bytes of all weights: as stored, packed, and before."""
    stored, packed = sum(layer.bytes for layer in layers), sum(layer.nominal_bytes for layer in layers)
    return stored, packed, 4 * sum(layer.parameters for layer in layers)


def _of_form(form: str) -> tuple[str, ...]:
    if form != "matmulnbits":
        return ()
    return ("what was measured is the same model in form qdq; only onnxruntime reads this file",)
