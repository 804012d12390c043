"""Factorise: each weight operator as a chain of smaller ones, the best for its recorded inputs at a budget for all.

A matrix product or 1x1 convolution becomes two (whitened singular value decomposition); a larger convolution becomes
two or three, in the form that loses least for what it costs (:mod:`~._factor_forms`). What each form of each operator
would lose on the recorded inputs is known before anything is built, so that one budget decides all ranks: a
Lagrangian on the sum of the relative errors, over everything that the graph multiplies with weights. Where no form is
worth what it saves, the operator stays whole. The records are those of the float graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dfmeta import _settings
from dfmeta._settings import Range, within
from dfmeta.compress._factor_forms import FORMS, Form, forms, stages, uncut
from dfmeta.compress._factor_inputs import inputs, observed
from dfmeta.compress._factor_nodes import Stage, rewritten
from dfmeta.compress._factor_report import FactorizedOperator, told
from dfmeta.compress._operators import (
    Operator,
    bias_values,
    left_as_they_are,
    operators,
    with_bias,
)
from dfmeta.errors import DataError, StepError, UnknownName
from dfmeta.graph import Graph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.numerics.allocation import allocated
from dfmeta.numerics.whitened_svd import bias_shift
from dfmeta.records import PublishedRecords

__all__ = ["FORMS", "REQUIRES", "Config", "FactorizedOperator", "Result", "check", "run"]

Array = NDArray[np.float64]
Watch = Callable[[str, int, int], None]

REQUIRES = ("second-moment",)
_PART = Range(above=0, below=1)


@dataclass(frozen=True, slots=True)
class Config:
    """Settings.

    Attributes:
        params: what share of the weights' elements shall be left, above 0 and below 1; None to go by ``macs``.
        macs: what share of the multiply-accumulates shall be left; None to go by ``params``.
        forms: which forms an operator may take.
        least_rank: the smallest rank of any stage.
        affine: refit biases by the recorded means.
        damping: what is added to each entry of a moment's diagonal, as a share of it; by default 0.01 for moments that
            are recorded whole and in float32, and 0.1 for compact ones.
        keep: labels of operators that stay whole.
        fallback: what happens where nothing was recorded: ``none`` refuses; ``plain`` factorises by the weights'
            numbers alone.
        power: of each operator's relative error in the sum that is made small: more spreads errors more evenly.
    """

    params: float | None = within(0.75, _PART)
    macs: float | None = within(None, _PART)
    forms: tuple[str, ...] = FORMS
    least_rank: int = 1
    affine: bool = True
    damping: float | None = within(None, _PART)
    keep: tuple[str, ...] = ()
    fallback: Literal["none", "plain"] = "none"
    power: float = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """A factorised graph.

    Attributes:
        graph: without BatchNormalization where it could be folded; inputs and outputs keep their names.
        operators: what became of each, in the graph's order.
        left: label of each operator that has no weight of its own to factorise, and why.
    """

    graph: Graph
    operators: tuple[FactorizedOperator, ...]
    left: tuple[tuple[str, str], ...]

    @property
    def parameters(self) -> int:
        """Elements of the operators' weights, each weight once."""
        return sum({one.weight: one.parameters for one in self.operators}.values())

    @property
    def parameters_before(self) -> int:
        """The same of the graph as it was."""
        return sum({one.weight: one.parameters_before for one in self.operators}.values())


@dataclass(frozen=True, slots=True)
class _Layer:
    """An operator that may be factorised.

    Attributes:
        operator: it.
        forms: what it may become; the whole first.
        scale: what turns their errors into shares of the output's variance.
    """

    operator: Operator
    forms: tuple[Form, ...]
    scale: float


def run(graph: Graph, records: PublishedRecords, config: Config, watch: Watch | None = None) -> Result:
    """Factorise a graph's weight operators within one budget.

    Args:
        graph: of the records: the float graph.
        records: with a ``second-moment`` of every operator's input.
        config: settings.
        watch: called with a stage, the number of operators that are done, and how many there are.

    Raises:
        DataError: settings out of range.
        StepError: operators without a record, or a budget that no ranks meet.
        UnknownName: a form, a fallback or an operator that is not there.
    """
    check(config)
    whole = without_batch_norm(graph)
    known = operators(whole)
    labels = {operator.label for operator in known} | {label for label, _ in left_as_they_are(whole)}
    for label in config.keep:
        if label not in labels:
            raise UnknownName("operator", label, labels)
    reasons = dict(left_as_they_are(whole)) | _reasons(known, config)
    layers = _layers(whole, [one for one in known if one.label not in reasons], records, config, watch)
    fixed = [operator for operator in known if operator.label in reasons]
    # A weight that several operators read is stored once.
    once = {operator.entry.weight: operator for operator in fixed}.values() if config.params is not None else fixed
    chosen = _chosen(layers, [uncut(whole, operator) for operator in once], config)
    built, done = _built(whole, layers, chosen, records, config, watch)
    for operator in fixed:
        reason = reasons[operator.label]
        done[operator.label] = told(whole, operator, uncut(whole, operator), 0.0, None, reason)
    return Result(built, tuple(done[operator.label] for operator in known), left_as_they_are(whole))


def check(config: Config) -> None:
    """Refuse settings that say nothing, with the errors of :func:`run`."""
    _settings.check(config, "factorize")
    budgets = sum(share is not None for share in (config.params, config.macs))
    if budgets != 1:
        raise DataError("factorize", f"{budgets} budgets", "either params or macs")
    if not config.forms:
        raise DataError("factorize, forms", "no form", f"one or more of {', '.join(FORMS)}")
    for name in config.forms:
        if name not in FORMS:
            raise UnknownName("form", name, FORMS)


def _reasons(known: Iterable[Operator], config: Config) -> dict[str, str]:
    """Why operators stay whole whatever is recorded of them."""
    found = {}
    for operator in known:
        groups = len(operator.weight)
        if operator.label in config.keep:
            found[operator.label] = "kept, as asked"
        elif operator.entry.op == "ConvTranspose":
            found[operator.label] = "a transposed convolution"
        elif groups > 1:
            found[operator.label] = f"{groups} groups or matrices, each with inputs of its own"
        elif operator.shares:
            found[operator.label] = f"its weight is also that of {', '.join(operator.shares)}"
        elif operator.entry.left_out:
            found[operator.label] = operator.entry.left_out
    return found


def _layers(
    graph: Graph, wanted: list[Operator], records: PublishedRecords, config: Config, watch: Watch | None
) -> list[_Layer]:
    """Every operator with its moment and with all that it may become."""
    missing = [one.label for one in wanted if config.fallback != "plain" and not observed(records, one)]
    if missing:
        raise StepError(
            "factorize",
            f"no second moment of the input of {', '.join(missing)}",
            "one for each operator that is factorised",
            "Record with the preset 'calibration', keep these operators whole, or take the fallback 'plain'.",
        )
    layers = []
    for number, operator in enumerate(wanted):
        if watch is not None:
            watch("decompose", number, len(wanted))
        seen = inputs(records, operator, config.damping, affine=config.affine)
        found = forms(graph, operator, seen.fit, config.forms, config.least_rank)
        layers.append(_Layer(operator, tuple(found), seen.scale(operator.weight[0])))
    return layers


def _chosen(layers: list[_Layer], kept: Sequence[Form], config: Config) -> list[Form]:
    """A form for each layer, within the budget."""
    by, share = ("parameters", config.params) if config.params is not None else ("macs", config.macs or 0.0)
    costs = [np.array([getattr(form, by) for form in layer.forms], np.float64) for layer in layers]
    losses = [(layer.scale * np.array([form.error for form in layer.forms])) ** config.power for layer in layers]
    fixed = sum(getattr(form, by) for form in kept)
    total = fixed + sum(cost[0] for cost in costs)
    try:
        places = allocated(costs, losses, share * total - fixed)
    except ValueError:
        least = (fixed + sum(cost.min() for cost in costs)) / (total or 1.0)
        raise StepError(
            f"factorize, {'params' if config.params is not None else 'macs'}",
            f"{share:g}",
            f"{least:.3g} or more, which the smallest ranks come to",
            "Give more, keep fewer operators whole, or prune first.",
        ) from None
    return [layer.forms[place] for layer, place in zip(layers, places, strict=True)]


def _built(
    graph: Graph,
    layers: list[_Layer],
    chosen: list[Form],
    records: PublishedRecords,
    config: Config,
    watch: Watch | None,
) -> tuple[Graph, dict[str, FactorizedOperator]]:
    """The graph with the chosen forms, and what became of each layer."""
    chains: dict[str, list[Stage]] = {}
    biases, done = {}, {}
    for number, (layer, form) in enumerate(zip(layers, chosen, strict=True)):
        if watch is not None:
            watch("factorize", number, len(layers))
        operator, error = layer.operator, 0.0
        # Read again: all moments of a large graph at once would be too much to hold.
        seen = inputs(records, operator, config.damping, affine=config.affine)
        if form.name != "whole":
            weight = operator.weight[0]
            chains[operator.label], replaced = stages(operator, seen.fit, form)
            error = seen.error(weight, replaced)
            if seen.shifts and seen.mean is not None:
                shift = operator.alpha * bias_shift(weight, replaced, seen.mean)
                biases[operator.label] = bias_values(graph, operator) + shift
        reason = "no rank is worth what it saves" if form.name == "whole" else ""
        done[operator.label] = told(graph, operator, form, error, seen, reason)
    # A bias may come with a node of its own: the places of the others change, their labels do not.
    shifted = with_bias(graph, biases) if biases else graph
    places = {operator.label: operator for operator in operators(shifted)}
    return rewritten(shifted, [(places[label], chain) for label, chain in chains.items()]), done
