"""A trained network, its records, and what its layers read of the very same images; and how results are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from reference_data import Layer, layers

from dfmeta.bundle import Bundle
from dfmeta.compress import quantize
from dfmeta.graph import Graph, OrtGraph
from dfmeta.pipeline import Gathering
from dfmeta.pipeline.recording import record_with
from dfmeta.pipeline.release import Publishing
from dfmeta.records import PublishedRecords

SAME_INTEGERS = 0.9999
SAME_LAYERS = 1e-4
SAME_SCALES = 1e-6


@dataclass(frozen=True)
class Case:
    """A trained network, its records, and what its layers read of the very same images.

    Attributes:
        graph: of it.
        data: what was recorded, as ``--data`` takes it.
        how: in what way.
        records: from one pass.
        layers: from the images.
        held_out: other images, preprocessed, and their labels.
    """

    graph: Graph
    data: str
    how: Gathering
    records: PublishedRecords
    layers: list[Layer]
    held_out: tuple[np.ndarray, np.ndarray]

    def published(self, out: Path, **changes: Any) -> PublishedRecords:
        """Records of the same images, in another form."""
        done = record_with(self.graph, self.data, out, replace(self.how, **changes), Publishing())
        return PublishedRecords.read(Bundle.open(done.path))

    def accuracy(self, graph: Graph) -> float:
        """Of a graph in the network's place, in percent."""
        images, labels = self.held_out
        [found] = OrtGraph(graph, threads=1).run({self.graph.inputs[0].name: images}).values()
        return 100 * float((found.argmax(1) == labels).mean())


def made(graph: Graph, data: str, how: Gathering, images: np.ndarray, held_out: Any, out: Path) -> Case:
    """Record a network, and read its layers from the images themselves."""
    case = Case(graph, data, how, PublishedRecords(()), layers(graph.model, images), held_out)
    return Case(graph, data, how, case.published(out / "bundle"), case.layers, held_out)


def matrices(graph: Graph) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, weight ``[o, d]`` and bias of each Conv and Gemm, in the graph's order."""
    found = []
    for node in graph.model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight = graph.initializers[node.input[1]].astype(np.float64)
            turned = node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute)
            weight = weight.T if turned else weight.reshape(len(weight), -1)
            bias = graph.initializers[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(1)
            found.append((node.name, weight, np.broadcast_to(bias, len(weight))))
    return found


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative distance."""
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def codes_of(result: quantize.Result) -> list[tuple[np.ndarray, np.ndarray]]:
    """Codes ``[o, d]`` and scales of each weight."""
    found = []
    for weight in result.model.weights:
        codes = weight.codes if weight.axis == 0 else weight.codes.T
        found.append((codes.reshape(len(weight.scales), -1), weight.scales.astype(np.float64)))
    return found


def equal(found: list[Any], expected: list[Any]) -> float:
    """Share of equal entries."""
    same = [np.equal(ours, theirs).reshape(-1) for ours, theirs in zip(found, expected, strict=True)]
    return float(np.concatenate(same).mean())


def shifted(layer: Layer, bias: np.ndarray) -> float:
    """How large the numbers are that a refitted bias is the sum of."""
    return float((np.abs(bias) + np.abs(layer.weight) @ np.abs(layer.mean)).max())
