"""The probe: a synthetic input and what it must give, so that a reader can prove its taps.

Names prove nothing: an exporter may fold, fuse or rename. A reader that feeds the probe and finds the recorded
mean and norm at each site knows that its tap is the tensor on which the records were taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dfmeta.bundle import Bundle
from dfmeta.errors import Problem
from dfmeta.graph import Graph, OrtGraph
from dfmeta.records.plan import SitePlan
from dfmeta.schema import v1

UNITS = 4
ATOL, RTOL = 1e-4, 1e-3


@dataclass(frozen=True, slots=True)
class Probe:
    """Tensors of the probe file, and the tolerance for meeting them again.

    Attributes:
        tensors: ``input.<i>``, ``output.<i>`` and for each site ``<id>.mean`` and ``<id>.l2``, float32 scalars;
            integers of any width as int64, booleans as uint8: a file has no others.
        atol: absolute tolerance.
        rtol: relative tolerance.
    """

    tensors: Mapping[str, np.ndarray]
    atol: float = ATOL
    rtol: float = RTOL


def take_probe(
    graph: Graph,
    sites: Sequence[SitePlan],
    bounds: Mapping[str, tuple[np.ndarray, np.ndarray]],
    seed: int = 0,
) -> Probe:
    """Feed uniform noise and write down what comes of it. No real unit is involved.

    Args:
        graph: the graph that ships.
        sites: where records are taken.
        bounds: for each input, least and greatest value, broadcastable to one unit.
        seed: of the noise.
    """
    generator = np.random.default_rng(seed)
    inputs = {}
    for value in graph.inputs:
        shape = (UNITS, *(int(size) for size in value.shape[1:]))
        low, high = bounds.get(value.name, (np.zeros(()), np.ones(())))
        if "int" in value.dtype:
            inputs[value.name] = generator.integers(0, 2, shape).astype(value.dtype)
        else:
            inputs[value.name] = (low + (high - low) * generator.random(shape)).astype(value.dtype)
    found = _summaries(graph, inputs, {site.id: site.value for site in sites})
    return Probe({name: _stored(values) for name, values in found.items()})


def check_probe(graph: Graph, bundle: Bundle) -> list[Problem]:
    """Run a bundle's probe through its graph; one problem for each output or site that disagrees."""
    manifest = bundle.manifest
    if manifest.model.probe is None:
        return []
    expected = bundle.probe_tensors()
    inputs = {
        entry.name: expected[f"input.{index}"].astype(graph.value(entry.name).dtype, copy=False)
        for index, entry in enumerate(manifest.model.inputs)
    }
    sites = {site.id: site.onnx_value() for site in manifest.sites if site.probe is not None}
    found = _summaries(graph, inputs, {key: value for key, value in sites.items() if value is not None})
    problems = []
    for name, values in ((name, _stored(values)) for name, values in found.items()):
        if name in expected and not _close(values, expected[name], manifest.model.probe):
            error = np.abs(values - expected[name]).max() if values.shape == expected[name].shape else "shape"
            problems.append(
                Problem(
                    f"probe {name}",
                    "probe-differs",
                    f"a difference of {error}",
                    f"at most {manifest.model.probe.atol} + {manifest.model.probe.rtol} * |expected|",
                    "The graph is not the one that was recorded, or the runtime computes something else.",
                )
            )
    return problems


def _stored(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "iu" and values.dtype not in (np.int8, np.uint8):
        return values.astype(np.int64)
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def _close(values: np.ndarray, expected: np.ndarray, tolerance: v1.ProbeRef) -> bool:
    near = values.shape == expected.shape and np.allclose(values, expected, rtol=tolerance.rtol, atol=tolerance.atol)
    return bool(near)


def _summaries(graph: Graph, inputs: Mapping[str, np.ndarray], sites: Mapping[str, str]) -> dict[str, np.ndarray]:
    tapped = [value for value in sites.values() if value not in inputs]
    values = {**OrtGraph(graph, tapped, threads=1, dynamic_batch=True).run(inputs), **inputs}
    tensors = {f"input.{index}": inputs[value.name] for index, value in enumerate(graph.inputs)}
    tensors |= {f"output.{index}": values[value.name] for index, value in enumerate(graph.outputs)}
    for site, name in sites.items():
        array = values[name].astype(np.float64)
        tensors[f"{site}.mean"] = np.asarray(array.mean(), np.float32)
        tensors[f"{site}.l2"] = np.asarray(np.sqrt((array * array).sum()), np.float32)
    return tensors
