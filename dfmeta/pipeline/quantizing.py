"""Quantizing a bundle's model from its records: the verb ``quantize``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dfmeta.compress import quantize as step
from dfmeta.errors import UnknownName
from dfmeta.export.matmul_nbits import matmul_nbits_model
from dfmeta.export.qoperator import integer_graph
from dfmeta.pipeline.closed_form import ROUNDED, Progress, Written, finish, open_source, stages

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
    """

    written: Written
    form: str
    layers: tuple[step.Layer, ...]
    weight_bytes: int
    nominal_bytes: int
    float_bytes: int
    notes: tuple[str, ...] = ()


def quantize(
    bundle: str | Path,
    out: str | Path,
    *,
    config: step.Config | None = None,
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
    config = config or step.Config()
    step.check(config)
    if form not in FORMS:
        raise UnknownName("form", form, FORMS)
    config = step.settled(config)
    _, value_bits = step.widths(config)
    source = open_source(bundle, out)
    found = step.run(source.graph, source.records, config, stages(progress))
    graph = integer_graph(found.model) if form == "qoperator" else found.graph

    def for_onnxruntime(properties: Mapping[str, str]) -> bytes:
        return matmul_nbits_model(found.model, properties)

    written = finish(
        source,
        graph,
        out,
        {"quantize": asdict(config), "form": form},
        data=data,
        limit=limit,
        seed=seed,
        tolerance=ROUNDED[value_bits or 8],
        raw=for_onnxruntime if form == "matmulnbits" else None,
        progress=progress,
    )
    layers = found.layers
    return Quantized(
        written,
        form,
        layers,
        sum(layer.bytes for layer in layers),
        sum(layer.nominal_bytes for layer in layers),
        4 * sum(layer.parameters for layer in layers),
        (*step.notes(layers, config), *_of_form(form)),
    )


def _of_form(form: str) -> tuple[str, ...]:
    if form != "matmulnbits":
        return ()
    return ("what was measured is the same model in form qdq; only onnxruntime reads this file",)
