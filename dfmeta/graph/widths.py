"""What a group of channels is to the weights that read it, how wide a fraction of it is, and what each entry costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dfmeta.graph.channels import Member
from dfmeta.graph.costs import node_macs
from dfmeta.graph.load import Graph


def width(size: int, fraction: float) -> int:
    """How many of ``size`` channels a fraction, above 0 and up to 1, keeps: rounded up, and one at least."""
    # Nine digits: 0.1 * 30 is above 3 in floating point.
    return max(1, math.ceil(round(fraction * size, 9)))


def columns(member: Member, taps: int) -> NDArray[np.int64]:
    """Which columns of a weight as a matrix read each channel of a group.

    Args:
        member: a consumer.
        taps: kernel positions of a convolution, which are features of their own; 1 elsewhere.

    Returns:
        ``[size, block * taps]``, columns in the order (channel, tap).
    """
    found: NDArray[np.int64] = member.positions[:, :, None] * taps + np.arange(taps)
    return found.reshape(len(member.positions), -1)


def macs_per_element(graph: Graph) -> Mapping[str, float]:
    """How often one input item is multiplied with each element of a weight; by the weight's name.

    Args:
        graph: with its constants written out and the shapes of its values known. A batch that is not free counts.

    Raises:
        GraphError: as :func:`dfmeta.graph.costs.costs`.
    """
    found: Counter[str] = Counter()
    for index, node in enumerate(graph.model.graph.node):
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        for name in node.input[:2]:
            if name in graph.initializers:
                found[name] += node_macs(graph, node, index)
    return {name: macs / graph.initializers[name].size for name, macs in found.items()}
