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
from dfmeta.compress.recipe import common
from dfmeta.graph import Graph
from dfmeta.pipeline.compressing import compress
from dfmeta.records import PublishedRecords

NONE = PublishedRecords(())
# Nothing known, noise in place of data, the records in two sizes, and the slow reference that has the data.
# Of the bundle `synthetic` inputs are made too.
SOURCES = ("none", "noise", "full", "toeplitz", "synthetic", "real")
# Steps of fine-tuning.
TUNED = 300


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
    sources: tuple[str, ...] = tuple(source for source in SOURCES if source != "synthetic")


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


def pruning(channels: float) -> Row:
    """A fraction of the inner channels stays."""
    config = prune.Config(channels=channels)

    def row(network: Network, source: str) -> Made:
        if source == "real":
            return Made(pruned(network, config))
        if source == "none":
            return Made(prune.run(network.graph, NONE, replace(config, fallback="norms")).graph)
        return Made(prune.run(network.graph, network.records(source), config).graph)

    return Row(row)


def factorizing(params: float) -> Row:
    """A fraction of the weights' elements stays."""
    config = factorize.Config(params=params)

    def row(network: Network, source: str) -> Made:
        if source == "real":
            return Made(factorized(network, config))
        if source == "none":
            return Made(factorize.run(network.graph, NONE, replace(config, fallback="plain")).graph)
        return Made(factorize.run(network.graph, network.records(source), config).graph)

    return Row(row)


def tuning(**flags: Any) -> Row:
    """What `dfmeta compress` does with a few flags: inputs made from the bundle, and the student taught on them."""

    def row(network: Network, source: str) -> Made:
        with tempfile.TemporaryDirectory() as folder:
            done = compress(network.bundle(source), Path(folder) / "out", common(finetune=TUNED, **flags))
            return Made(Graph.from_bytes(done.model.read_bytes(), done.model.name))

    return Row(row, ("synthetic",))


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
    "w2, tuned": tuning(bits="w2"),
    "prune 50 %, tuned": tuning(prune=0.5),
    "low rank 0.5, tuned": tuning(factorize=0.5),
    **{f"{name}, {bits}": other(name, bits) for name, widths in NAMES.items() for bits in widths},
}
