"""What factorising did, operator by operator: plain facts, ready for JSON."""

from __future__ import annotations

from dataclasses import dataclass

from dfmeta.compress._factor_forms import Form, uncut
from dfmeta.compress._factor_inputs import Inputs
from dfmeta.compress._operators import Operator
from dfmeta.graph import Graph


@dataclass(frozen=True, slots=True)
class FactorizedOperator:
    """What became of one operator.

    Attributes:
        label: of the operator.
        op: the operator.
        weight: name of its weight as it was.
        form: of :data:`~._factor_forms.FORMS`, or ``whole``.
        ranks: channels between the stages.
        parameters, parameters_before: elements of its weights.
        macs, macs_before: multiply-accumulates for one input item.
        error: predicted squared change of the output, as a share of its variance.
        damping: ridge that was used: what was added to each entry of the moment's diagonal, as a share of it; 0 where
            nothing was fitted to a moment.
        further_damping: what had to be added beyond that, in units of the diagonal's mean.
        record: form of the record that it was made from; empty without one.
        reason: why it stays whole; empty where it does not.
    """

    label: str
    op: str
    weight: str
    form: str
    ranks: tuple[int, ...]
    parameters: int
    parameters_before: int
    macs: int
    macs_before: int
    error: float
    damping: float
    further_damping: float
    record: str
    reason: str


def told(
    graph: Graph, operator: Operator, form: Form, error: float, seen: Inputs | None, reason: str
) -> FactorizedOperator:
    """The facts of one operator that took a form; ``seen`` is what was read of its input, None where nothing was."""
    before = uncut(graph, operator)
    costs = form.parameters, before.parameters, form.macs, before.macs
    named = operator.label, operator.entry.op, operator.entry.weight
    read = (0.0, 0.0, "") if seen is None else (seen.damping, seen.further_damping, seen.record)
    return FactorizedOperator(*named, form.name, form.ranks, *costs, error, *read, reason)
