"""What `closed_form.py` does to each network, and from what."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from closed_form_networks import Network
from closed_form_peers import NAMES, peer
from closed_form_real import factorized, pruned, quantized

from dfmeta.compress import factorize, prune, quantize
from dfmeta.compress.recipe import parse
from dfmeta.graph import Graph
from dfmeta.pipeline.compressing import compress
from dfmeta.records import PublishedRecords

NONE = PublishedRecords(())
# Nothing known, noise in place of data, the records in two sizes, and the slow reference that has the data.
# Of three bundles inputs are made too.
SYNTHETIC = ("synthetic", "synthetic toeplitz", "compact")
SOURCES = ("none", "noise", "full", "toeplitz", *SYNTHETIC, "real")


@dataclass(frozen=True)
class Made:
    """A compressed graph.

    Attributes:
        graph: of it, or its bytes where only onnxruntime shall read them.
        seconds: that it took where the maker knows better, such as in a process of its own; None for the caller's.
    """

    graph: Graph | bytes
    seconds: float | None = None


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        make: network and source to a graph.
        sources: from which there is such a thing; nothing is recorded for the others.
    """

    make: Callable[[Network, str], Made]
    sources: tuple[str, ...] = tuple(source for source in SOURCES if source not in SYNTHETIC)


def quantizing(bits: str, **settings: Any) -> Row:
    """Weights, and values where ``bits`` says so."""
    config, values = quantize.Config(bits, **settings), "a" in bits

    def row(network: Network, source: str) -> Made:
        if source == "real":
            return Made(quantized(network, config))
        if source == "none":
            bare = replace(config, rounding="nearest", scales="grid", bias_correction=False, fallback="nearest")
            return Made(quantize.run(network.graph, NONE, bare).model.graph)
        found = quantize.run(network.graph, network.records(source), config)
        # Where values stay as they are, the graph of the values that codes stand for is the same function, and faster.
        return Made(found.graph if values else found.model.graph)

    # Without records values have no ranges; real ones are those of other programs, below.
    return Row(row, ("noise", "full", "toeplitz") if values else Row.sources)


def cutting(step: Any, config: Any, fallback: str, reference: Callable[[Network, Any], Graph]) -> Row:
    """A fraction of the channels or of the weights' elements stays.

    Args:
        step: :mod:`dfmeta.compress.prune` or :mod:`dfmeta.compress.factorize`.
        config: its settings.
        fallback: what it does without records.
        reference: the same from the data itself.
    """

    def row(network: Network, source: str) -> Made:
        if source == "real":
            return Made(reference(network, config))
        if source == "none":
            return Made(step.run(network.graph, NONE, replace(config, fallback=fallback)).graph)
        return Made(step.run(network.graph, network.records(source), config).graph)

    return Row(row)


def pruning(channels: float) -> Row:
    """A fraction of the inner channels stays."""
    return cutting(prune, prune.Config(channels=channels), "norms", pruned)


def factorizing(params: float) -> Row:
    """A fraction of the weights' elements stays."""
    return cutting(factorize, factorize.Config(params=params), "plain", factorized)


def tuning(**step: Any) -> Row:
    """What `dfmeta compress` does with a recipe: a step, and the student taught on inputs made from the bundle."""

    def row(network: Network, source: str) -> Made:
        recipe = parse({"step": [step, {"name": "finetune", **network.tuning}]})
        with tempfile.TemporaryDirectory() as folder:
            done = compress(network.bundle(source), Path(folder) / "out", recipe)
            return Made(Graph.from_bytes(done.model.read_bytes(), done.model.name))

    return Row(row, SYNTHETIC)


def as_it_is(network: Network, source: str) -> Made:
    """The float network."""
    return Made(network.graph)


def other(name: str, bits: str) -> Row:
    """Another program, with real images to calibrate on."""

    def row(network: Network, source: str) -> Made:
        raw, seconds = peer(network, name, bits)
        return Made(raw, seconds)

    return Row(row, ("real",))


ROWS: Mapping[str, Row] = {
    "float": Row(as_it_is, ("none",)),
    **{bits: quantizing(bits) for bits in ("w8a8", "w4", "w3", "w2", "w4a8", "w4a4")},
    "prune 25 %": pruning(0.75),
    "prune 50 %": pruning(0.5),
    "low rank 0.75": factorizing(0.75),
    "low rank 0.5": factorizing(0.5),
    "w2, tuned": tuning(name="quantize", bits="w2"),
    "prune 50 %, tuned": tuning(name="prune", channels=0.5),
    "low rank 0.5, tuned": tuning(name="factorize", params=0.5),
    **{f"{name}, {bits}": other(name, bits) for name, widths in NAMES.items() for bits in widths},
}
