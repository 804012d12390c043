"""How far two runtimes may differ, and what a device is predicted to need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from embedded_c import Floats

from dfmeta.export import targets
from dfmeta.export.device_costs import DeviceCosts
from dfmeta.graph import Graph


@dataclass(frozen=True)
class Agreement:
    """One runtime beside the file run node by node in onnxruntime.

    Attributes:
        images: how many.
        steps: largest difference of a logit, in steps of the quantized logits.
        allowed: most steps.
        differing: images on which the two name another class.
        excused: of them, those whose two best logits differ by no more than ``allowed`` steps.
    """

    images: int
    steps: float
    allowed: int
    differing: int
    excused: int

    @property
    def holds(self) -> bool:
        """Whether the difference is allowed."""
        # A hundredth of a step is what float32 makes of a number between its steps.
        return self.steps <= self.allowed + 0.01 and self.differing == self.excused


def agreement(found: Floats, reference: Floats, step: float, allowed: int) -> Agreement:
    """Compare ``[n, classes]`` logits.

    Args:
        found: of a runtime.
        reference: of the file, node by node.
        step: of the quantized logits.
        allowed: most steps of difference.
    """
    best = np.sort(reference.astype(np.float64), axis=1)
    close = best[:, -1] - best[:, -2] <= allowed * step * 1.01
    other = found.argmax(1) != reference.argmax(1)
    largest = float(np.abs(found.astype(np.float64) - reference).max(initial=0.0)) / step
    return Agreement(len(found), largest, allowed, int(other.sum()), int((other & close).sum()))


def output_step(model: Path) -> float:
    """The step of the logits of a model in integer operators, whose last node makes numbers of integers."""
    graph = Graph.from_file(model)
    last = next(node for node in graph.model.graph.node if graph.outputs[0].name in node.output)
    if last.op_type != "DequantizeLinear":
        raise RuntimeError(f"{model.name}: the output comes from {last.op_type}, not from DequantizeLinear")
    return float(graph.initializers[last.input[1]])


def predicted(model: Path, *, soft_float: bool = False) -> DeviceCosts:
    """What ``dfmeta check --target c-codegen`` predicts: its ``temporaries_bytes`` are the stack.

    Args:
        model: with fixed sizes.
        soft_float: for a core without a floating-point unit.

    Raises:
        RuntimeError: sizes that are not known.
    """
    costs = targets.check(Graph.from_file(model), "c-codegen", fpu=not soft_float).costs
    if costs is None:
        raise RuntimeError(f"{model.name}: sizes are not fixed")
    return costs
