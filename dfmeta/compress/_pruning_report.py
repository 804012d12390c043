"""What pruning did, group by group and operator by operator: plain facts, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dfmeta.compress._repairing import Indices, Repaired, Sparsity
from dfmeta.compress._sources import Sources
from dfmeta.graph import Graph
from dfmeta.graph.channels import ChannelGroup


@dataclass(frozen=True, slots=True)
class PrunedGroup:
    """What became of a group of channels.

    Attributes:
        id: of the group: the weight that makes it first.
        size: channels before.
        kept: channels after.
        left: why it was not cut; empty where it could be.
    """

    id: str
    size: int
    kept: int
    left: str


@dataclass(frozen=True, slots=True)
class PrunedOperator:
    """What became of a weight operator.

    Attributes:
        label: of the operator.
        weight: name of its weight.
        form: of the record that was used; empty where there was none.
        error: predicted: expected squared change of its outputs, as a share of their variance (of their second moment
            where its bias could not follow), given the inputs that were recorded.
        damping: ridge that the repair took, in units of the mean of the moment's diagonal; 0 without repair.
        sparse_damping: the same of the sparse rule.
        zeros: share of the weight's elements that are zero.
        dense_bytes: of the weight as it is stored.
        sparse_bytes: nominal: elements that are not zero, and a bit for each, or their places within the pattern.
        dense: why it was not made sparse; empty where it was, or was not asked for.
    """

    label: str
    weight: str
    form: str
    error: float
    damping: float
    sparse_damping: float
    zeros: float
    dense_bytes: int
    sparse_bytes: int
    dense: str


def groups_report(every: Sequence[tuple[ChannelGroup, str]], kept: Mapping[str, Indices]) -> tuple[PrunedGroup, ...]:
    """All groups in the graph's order."""
    return tuple(
        PrunedGroup(group.id, group.size, len(kept[group.id]) if group.id in kept else group.size, reason)
        for group, reason in every
    )


def operators_report(
    changed: Mapping[str, Repaired], sources: Sources, sparsity: Sparsity | None, result: Graph
) -> tuple[PrunedOperator, ...]:
    """All operators whose weights were changed, in the graph's order."""
    found = []
    for name, new in changed.items():
        array = result.initializers[name]
        sparse = array.nbytes if sparsity is None or new.dense else sparse_bytes(array, sparsity)
        facts = (
            new.form,
            new.error,
            new.damping,
            new.sparse_damping,
            float((array == 0).mean()),
            array.nbytes,
            sparse,
        )
        found += [PrunedOperator(operator.label, name, *facts, new.dense) for operator in sources.operators(name)]
    return tuple(found)


def sparse_bytes(array: np.ndarray, sparsity: Sparsity) -> int:
    """Nominal size of a sparse weight: its values, and a bit for each element or the places within the pattern."""
    if isinstance(sparsity, float):
        return int(np.count_nonzero(array)) * array.itemsize + math.ceil(array.size / 8)
    few, many = sparsity
    values = array.size // many * few
    return values * array.itemsize + math.ceil(values * math.ceil(math.log2(many)) / 8)
