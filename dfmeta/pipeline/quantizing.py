"""Quantizing a bundle's model from its records: the verb ``quantize``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from dfmeta.compress import quantize as step
from dfmeta.errors import UnknownName
from dfmeta.export.canonical import canonicalize
from dfmeta.export.matmul_nbits import matmul_nbits_model, stored_bytes
from dfmeta.export.qoperator import integer_graph
from dfmeta.export.quantized import quantized_graph
from dfmeta.export.targets import Checked, Target, check
from dfmeta.graph import Graph
from dfmeta.pipeline.closed_form import ROUNDED, Progress, Written, finish, open_source, stages
from dfmeta.pipeline.targeting import form_for, integer_bias, integer_target, settings_for

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
        notes: what a reader should know, in sentences.
        checked: the file held against the target; None without one.
    """

    written: Written
    form: str
    layers: tuple[step.Layer, ...]
    weight_bytes: int
    nominal_bytes: int
    float_bytes: int
    notes: tuple[str, ...] = ()
    checked: Checked | None = None


def quantize(
    bundle: str | Path,
    out: str | Path,
    *,
    config: step.Config | None = None,
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
    config = config or step.Config()
    if form is not None and form not in FORMS:
        raise UnknownName("form", form, FORMS)
    profile = integer_target(target) if target else None
    chosen = form_for(profile, form) if profile is not None else form or FORMS[0]
    config = settings_for(profile, config) if profile is not None else config
    _, value_bits = step.parsed(config.bits)
    source = open_source(bundle, out)
    teacher = source.graph if profile is None else canonicalize(source.graph, keep_names=True)
    found = step.run(teacher, source.records, config, stages(progress))
    graph = _written(found, chosen, config, profile)

    def for_onnxruntime(properties: Mapping[str, str]) -> bytes:
        return matmul_nbits_model(found.model, properties, int4=config.int4)

    written = finish(
        source,
        graph,
        out,
        {"quantize": asdict(config), "form": chosen, **({"target": target} if target else {})},
        data=data,
        limit=limit,
        seed=seed,
        tolerance=ROUNDED[value_bits or 8],
        raw=for_onnxruntime if chosen == "matmulnbits" else None,
        progress=progress,
    )
    layers = _as_stored(found) if chosen == "matmulnbits" else found.layers
    checked = None if profile is None else check(Graph.from_file(out), profile)
    return Quantized(
        written,
        chosen,
        layers,
        sum(layer.bytes for layer in layers),
        sum(layer.nominal_bytes for layer in layers),
        4 * sum(layer.parameters for layer in layers),
        (*_notes(layers, config, chosen), *_misfits(checked)),
        checked,
    )


def _as_stored(found: step.Result) -> tuple[step.Layer, ...]:
    """The layers with the bytes of blocks, each of which has scales of its own; a weight that is shared counts once."""
    stored = stored_bytes(found.graph, found.model)
    return tuple(
        replace(layer, bytes=stored[layer.weight]) if layer.weight in stored and layer.parameters else layer
        for layer in found.layers
    )


def _written(found: step.Result, form: str, config: step.Config, target: Target | None) -> Graph:
    """The graph in its form."""
    if form == "qoperator":
        return integer_graph(found.model)
    if target is None or integer_bias(target):
        return found.graph
    return quantized_graph(found.model, int4=config.int4, integer_bias=False)


def _misfits(checked: Checked | None) -> tuple[str, ...]:
    """What the target does not take all the same."""
    if checked is None:
        return ()
    return tuple(f"does not fit {checked.target}: {one}" for one in checked.violations)


def _notes(layers: tuple[step.Layer, ...], config: step.Config, form: str) -> tuple[str, ...]:
    """What a reader should know."""
    notes = []
    narrow = [layer for layer in layers if layer.bits <= 4]
    if narrow and not config.int4:
        notes.append("codes of at most 4 bits are stored in INT8, at twice the bytes of INT4")
    if any(layer.bits < 4 for layer in narrow):
        notes.append("ONNX has no type of 2 or 3 bits: INT4 or INT8 holds those codes")
    damped = [layer.label for layer in layers if layer.damping > config.damping]
    if damped:
        notes.append(f"second moments that were not positive definite were damped more: {', '.join(damped)}")
    bare = [layer.label for layer in layers if layer.bits < 32 and not layer.form]
    if bare:
        notes.append(f"rounded to nearest, without records: {', '.join(bare)}")
    left = [f"{layer.label} ({layer.note})" for layer in layers if layer.bits == 32]
    if left:
        notes.append(f"left in floating point: {', '.join(left)}")
    if form == "matmulnbits":
        notes.append("what was measured is the same model in form qdq; only onnxruntime reads this file")
    return tuple(notes)
