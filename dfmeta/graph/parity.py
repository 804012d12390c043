"""Does a graph compute what its source computes? The measurement, and the refusal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dfmeta.errors import ExportError
from dfmeta.graph.load import Graph
from dfmeta.graph.ort import OrtGraph

Reference = nn.Module | Callable[..., torch.Tensor | Sequence[torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two networks' outputs are apart on the same inputs.

    Attributes:
        max_abs: largest absolute difference over all outputs.
        max_rel: the difference over the largest expected magnitude of its output, infinite where that is
            zero; the worst output counts.
        argmax_agreement: share of places, 0 to 1, where the first output's largest entry along its last axis
            is the same; 1 for an output without axes.
    """

    max_abs: float
    max_rel: float
    argmax_agreement: float


def check_parity(
    graph: Graph, reference: Reference, inputs: Sequence[torch.Tensor], atol: float, rtol: float
) -> Parity:
    """Run a graph in onnxruntime and its source in torch, and refuse a difference beyond the tolerance.

    Args:
        graph: the exported graph.
        reference: its source; a module is run in eval mode and its training flags are put back.
        inputs: one tensor for each of ``graph.inputs``, in that order.
        atol: absolute tolerance.
        rtol: tolerance relative to the expected value; entries may differ by ``atol + rtol * |expected|``.

    Raises:
        ExportError: outputs differ in number, shape or value, or are not finite; the text has the difference.
        TypeError: the reference gives something else than tensors.
    """
    expected = arrays(reference, inputs)
    feed = {value.name: tensor.detach().cpu().numpy() for value, tensor in zip(graph.inputs, inputs, strict=True)}
    results = OrtGraph(graph).run(feed)
    found = [results[value.name] for value in graph.outputs]
    return compare(found, expected, atol, rtol, graph.where)


def arrays(reference: Reference, inputs: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """The outputs of one call in eval mode and without gradients, as arrays in order.

    Raises:
        TypeError: something else than tensors came out.
    """
    with evaluating(reference), torch.no_grad():
        outputs = reference(*inputs)
    several = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    if not isinstance(several, list | tuple) or not all(isinstance(one, torch.Tensor) for one in several):
        raise TypeError(f"output of type {type(outputs).__name__} is neither a tensor nor a tuple of tensors")
    return [output.detach().cpu().numpy() for output in several]


def compare(
    found: Sequence[np.ndarray], expected: Sequence[np.ndarray], atol: float, rtol: float, where: str
) -> Parity:
    """Measure the difference of two lists of outputs.

    Raises:
        ExportError: see :func:`check_parity`.
    """
    if [array.shape for array in found] != [array.shape for array in expected]:
        raise ExportError(
            where,
            f"outputs of shapes {[array.shape for array in found]}",
            f"those of its source, {[array.shape for array in expected]}",
            "A size may have become a constant while exporting: is the batch meant to be dynamic?",
        )
    max_abs = max_rel = 0.0
    for one, other in zip(found, expected, strict=True):
        gap = difference(one, other)
        size = np.abs(other.astype(np.float64))
        worst = float(gap.max(initial=0.0))
        if not (gap <= atol + rtol * size).all():
            raise ExportError(
                where,
                f"a largest absolute difference of {worst:.3g} between its outputs and its source's",
                f"at most {atol:g} + {rtol:g} x |expected|",
                "Does the network behave differently from call to call, or depend on its inputs' values?",
            )
        max_abs = max(max_abs, worst)
        max_rel = max(max_rel, _ratio(worst, float(size.max(initial=0.0))))
    return Parity(max_abs, max_rel, _agreement(found[0], expected[0]))


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Elementwise absolute difference as float64; not a number where either side is not finite."""
    with np.errstate(invalid="ignore"):
        gap: np.ndarray = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return np.where(np.isfinite(gap), gap, np.nan)


def _ratio(difference: float, size: float) -> float:
    if size == 0.0:
        return math.inf if difference else 0.0
    return difference / size


def _agreement(found: np.ndarray, expected: np.ndarray) -> float:
    if found.ndim == 0 or found.size == 0:
        return 1.0
    return float((found.argmax(axis=-1) == expected.argmax(axis=-1)).mean())


@contextmanager
def evaluating(reference: object) -> Iterator[None]:
    """Eval mode inside the block; each submodule's own training flag afterwards."""
    modules = list(reference.modules()) if isinstance(reference, nn.Module) else []
    flags = [module.training for module in modules]
    try:
        if isinstance(reference, nn.Module):
            reference.eval()
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
