"""What factorising did, operator by operator: plain facts, ready for JSON."""

from __future__ import annotations

from dataclasses import dataclass

from dfmeta.compress._factor_forms import Form, uncut
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
        damping: what had to be added to the moment's diagonal beyond the ridge that was asked for, in units of its
            mean.
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
    record: str
    reason: str


def told(
    graph: Graph, operator: Operator, form: Form, error: float, damping: float, record: str, reason: str
) -> FactorizedOperator:
    """The facts of one operator that took a form."""
    before = uncut(graph, operator)
    costs = form.parameters, before.parameters, form.macs, before.macs
    named = operator.label, operator.entry.op, operator.entry.weight
    return FactorizedOperator(*named, form.name, form.ranks, *costs, error, damping, record, reason)
