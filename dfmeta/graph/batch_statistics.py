"""A graph whose BatchNormalization normalises by the batch that it is given, as it did in training.

:class:`~dfmeta.graph.executor.TorchGraph` has the semantics of evaluation. Inputs that are far from the data, such as
noise, then meet statistics that are not theirs, and what a deep network says of them is nearly constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta.errors import GraphError
from dfmeta.graph.executor import TorchGraph
from dfmeta.graph.ops import Node
from dfmeta.graph.plan import Plan, Step


class BatchStatisticsGraph(TorchGraph):
    """Runs a graph; every BatchNormalization uses mean and (population) variance of the batch's own channels.

    Stored statistics are read by nothing and stay as they are. All else is as for :class:`TorchGraph`; a graph without
    BatchNormalization computes the same as there.

    Raises:
        GraphError: when run: a batch with one value a channel, whose variance says nothing; or a graph of a fixed batch
            that can only be run item by item, so that items never meet.
    """

    def _plan(self, values: tuple[str, ...], real: torch.dtype | None, freed: bool) -> Plan:
        chosen = super()._plan(values, real, freed)
        return dataclasses.replace(chosen, steps=tuple(map(_by_batch, chosen.steps)))

    def _each(self, chosen: Plan, given: Mapping[str, Tensor], names: Sequence[str], groups: int) -> dict[str, Tensor]:
        if not any(step.node.op == "BatchNormalization" for step in chosen.steps):
            return super()._each(chosen, given, names, groups)
        raise GraphError(
            self.graph.where,
            f"a fixed batch of {self._batch} that cannot be freed",
            "items that are normalised together",
            "Export the graph with a dynamic batch.",
        )


def _by_batch(step: Step) -> Step:
    if step.node.op != "BatchNormalization":
        return step
    return dataclasses.replace(step, operator=dataclasses.replace(step.operator, function=_batch_normalization))


def _batch_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Scale (x - mean of x) / sqrt(variance of x + epsilon) + bias, by channel of [n, c, ...]."""
    del mean, var
    return F.batch_norm(x, None, None, scale, bias, True, 0.0, node.float("epsilon", 1e-5))
