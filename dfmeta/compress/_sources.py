"""What the weights of a graph read, as a pruning step sees it: covariances, means, and how much ridge they need."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.compress._operators import InputRecord, Operator, input_record, left_as_they_are, operators
from dfmeta.graph import Graph
from dfmeta.graph.channels import Member
from dfmeta.graph.widths import columns
from dfmeta.kinds.second_moment.centring import centred
from dfmeta.numerics.damping import damped
from dfmeta.numerics.least_squares import DiagonalReader, Reader, energies
from dfmeta.numerics.whitened_svd import energy
from dfmeta.records import PublishedRecords
from dfmeta.records.operator_moments import moment_record

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Larger matrices are read again when they are needed again, rather than all held in memory.
_REMEMBERED = 2048


@dataclass(frozen=True, slots=True)
class Source:
    """One weight, and what is recorded of what it multiplies.

    Attributes:
        operators: those that multiply with it: one, but for a weight that several share.
        moment: ``[g, d, d]`` by which errors are measured, summed over the operators: the covariance of their inputs;
            E[x x^T] where a constant cannot make up for a mean; the identity where nothing is recorded.
        means: ``[g, d]`` of each operator; None where its constant stays as it is.
        damping: ``[g]`` ridge that makes the moment positive definite, in units of the mean of its diagonal.
        form: of the record; empty where there is none.
        energy: ``tr(W moment W^T)`` of the whole weight.
    """

    operators: tuple[Operator, ...]
    moment: Array
    means: tuple[Array | None, ...]
    damping: tuple[float, ...]
    form: str
    energy: float

    @property
    def weight(self) -> Array:
        """``[g, o, d]``."""
        return self.operators[0].weight

    @property
    def joint(self) -> bool:
        """Whether entries are known to go together, so that one can make up for another."""
        return self.form not in ("", "diagonal")

    def readers(self, blocks: Indices, lost: Indices) -> list[Reader | DiagonalReader]:
        """What cutting blocks of columns costs, by convolution group.

        Args:
            blocks: ``[n, b]`` columns of each block.
            lost: columns that are gone already, of no block.
        """
        left = np.setdiff1d(np.arange(self.weight.shape[2]), lost)
        places = np.searchsorted(left, blocks)
        found: list[Reader | DiagonalReader] = []
        for weight, moment, damping in zip(self.weight, self.moment, self.damping, strict=True):
            rows, inner = weight[:, left], moment[np.ix_(left, left)]
            if self.joint:
                found.append(Reader(rows, inner, places, damping, self.energy))
            else:
                found.append(DiagonalReader(rows, np.diagonal(inner), places, self.energy))
        return found

    def alone(self, blocks: Indices) -> Array:
        """``[n]`` share of the energy that each block of columns has by itself."""
        pairs = zip(self.weight, self.moment, strict=True)
        found: Array = np.sum([energies(weight, moment, blocks) for weight, moment in pairs], axis=0)
        return found / (self.energy or 1.0)


class Sources:
    """The weights of a graph, each read from the records when it is asked for.

    Args:
        graph: whose operators read what the records speak of.
        records: of the same graph before anything was changed.
        damping: least ridge.
        affine: whether constants may follow.
    """

    def __init__(self, graph: Graph, records: PublishedRecords, damping: float, *, affine: bool) -> None:
        self._records, self._damping, self._affine = records, damping, affine
        self._read: dict[str, Source] = {}
        self._operators: defaultdict[str, list[Operator]] = defaultdict(list)
        for operator in operators(graph):
            self._operators[operator.entry.weight].append(operator)
        self.left_out = dict(left_as_they_are(graph))

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights, in the graph's order."""
        return tuple(self._operators)

    def operators(self, weight: str) -> tuple[Operator, ...]:
        """The operators that multiply with a weight; none for a tensor that is not one, or is used in another way."""
        return tuple(self._operators.get(weight, ()))

    def unrecorded(self, weights: Iterable[str]) -> list[Operator]:
        """Operators of these weights of whose inputs nothing was recorded, or nothing observed."""
        found = []
        for operator in (each for weight in weights for each in self._operators[weight]):
            statistic = moment_record(self._records, operator.entry)
            if statistic is None or int(statistic.tensors["count"].min()) <= 0:
                found.append(operator)
        return found

    def of(self, weight: str) -> Source:
        """A weight with what is recorded of its inputs."""
        if weight not in self._read:
            source = self._source(self._operators[weight])
            if source.moment.shape[-1] > _REMEMBERED:
                return source
            self._read[weight] = source
        return self._read[weight]

    def blocks(self, member: Member) -> Indices:
        """``[size, b]`` columns of a consumer's weight that read each channel of its group."""
        return columns(member, self._operators[member.tensor][0].entry.taps)

    def _source(self, found: list[Operator]) -> Source:
        records = [input_record(self._records, operator) for operator in found]
        shape = found[0].weight.shape
        if any(record.moment is None for record in records):
            identity = np.broadcast_to(np.eye(shape[2]), (shape[0], shape[2], shape[2]))
            nothing = (None,) * len(found)
            return Source(
                tuple(found), identity, nothing, (1.0,) * shape[0], "", float(np.square(found[0].weight).sum())
            )
        affine = self._affine and all(operator.entry.op != "ConvTranspose" for operator in found)
        moment = np.sum([_measure(*pair, affine=affine) for pair in zip(found, records, strict=True)], axis=0)
        means = tuple(record.mean if affine else None for record in records)
        form = next((record.form for record in records if record.form == "diagonal"), records[0].form)
        damping = tuple(damped(one, self._damping).damping for one in moment)
        whole = sum(energy(weight, one) for weight, one in zip(found[0].weight, moment, strict=True))
        return Source(tuple(found), moment, means, damping, form, whole)


def _measure(operator: Operator, record: InputRecord, *, affine: bool) -> Array:
    """``[g, d, d]`` by which an operator's error counts."""
    if record.moment is None or record.mean is None or not affine:
        return np.zeros(0) if record.moment is None else record.moment
    kernel = operator.entry.window.kernel if operator.entry.window is not None else ()
    pairs = zip(record.moment, record.mean, strict=True)
    return np.stack([centred(moment, mean, record.form, kernel) for moment, mean in pairs])
