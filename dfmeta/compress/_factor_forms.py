"""The forms that a factorised operator may take: what each costs, what it loses, and its weights.

* ``svd``: the whole window to r channels, then 1x1; two products for a matrix. The best of its rank, in closed form.
* ``tucker``: 1x1 to q channels, the window from q to p channels, 1x1; without the last where p is all outputs.
* ``rows``: a window of one column to q channels, then one of one row to p channels, then 1x1; ``columns``: the same
  with rows and columns exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.compress._factor_nodes import Stage
from dfmeta.compress._operators import Operator
from dfmeta.graph import Graph
from dfmeta.numerics.staged import Staged, by_channel, by_row
from dfmeta.numerics.whitened_svd import whitened_svd

Array = NDArray[np.float64]

FORMS = ("svd", "tucker", "rows", "columns")
# Of a convolution with more channels than this, not every rank of the first stage is tried.
_TRIED = 32


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write an operator.

    Attributes:
        name: of :data:`FORMS`; ``whole`` for the operator as it is.
        ranks: channels between the stages: one or two.
        parameters: elements of the stages' weights.
        macs: multiply-accumulates for one input item.
        error: share of the output's energy that is lost; 0 for ``whole``.
    """

    name: str
    ranks: tuple[int, ...]
    parameters: int
    macs: int
    error: float


@dataclass(frozen=True, slots=True)
class _Places:
    """How many positions an operator reads and writes along each spatial axis.

    Attributes:
        read: of the input; empty for a product.
        written: of the output; one number for a product.
    """

    read: tuple[int, ...]
    written: tuple[int, ...]


def forms(graph: Graph, operator: Operator, moment: Array, allowed: tuple[str, ...], least: int) -> list[Form]:
    """All ways to write an operator that cost fewer parameters or MACs than the whole; the whole comes first.

    Args:
        graph: that the operator is of.
        operator: of one group.
        moment: ``[d, d]`` of what it reads.
        allowed: of :data:`FORMS`.
        least: the smallest rank.
    """
    places, whole = _places(graph, operator), uncut(graph, operator)
    found = [whole]
    for name in allowed:
        if name == "svd":
            found += _pairs(operator, moment, places, least)
        elif _spatial(operator, name):
            found += _triples(operator, moment, name, places, least)
    return [form for form in found if form is whole or form.parameters < whole.parameters or form.macs < whole.macs]


def uncut(graph: Graph, operator: Operator) -> Form:
    """An operator of any sort as it is; a free size counts as one."""
    size = operator.weight.size
    if operator.entry.op == "ConvTranspose":
        read = _numbers(graph, operator.entry.value)
        return Form("whole", (), size, size * math.prod(read[:1] + read[2:]), 0.0)
    made = math.prod(_numbers(graph, graph.model.graph.node[operator.node].output[0]))
    return Form("whole", (), size, made * operator.weight.shape[2], 0.0)


def stages(operator: Operator, moment: Array, form: Form) -> tuple[list[Stage], Array]:
    """The weights of a form other than ``whole``, and ``[o, d]`` what they multiply out to."""
    weight = operator.weight[0]
    kernel = () if operator.entry.window is None else operator.entry.window.kernel
    pointwise, all_axes = (1,) * len(kernel), tuple(range(len(kernel)))
    if form.name == "svd":
        outer, inner = whitened_svd(weight, moment).factors(form.ranks[0])
        first = inner.reshape(len(inner), -1, *kernel) if kernel else inner
        return [Stage("in", first, all_axes), Stage("out", outer.reshape(*outer.shape, *pointwise))], outer @ inner
    outputs, rank_in, rank_out = len(weight), form.ranks[0], form.ranks[1]
    staged, order = _staged(operator, moment, form.name)
    found = staged.stages(rank_in, None if rank_out == outputs else rank_out)
    mix, core = found.mix.T, found.core
    if form.name == "tucker":
        chain = [
            Stage("in", mix.reshape(*mix.shape, *pointwise)),
            Stage("core", core.reshape(*core.shape[:2], *kernel), all_axes),
        ]
    elif form.name == "rows":
        chain = [Stage("in", mix.reshape(rank_in, -1, kernel[0], 1), (0,)), Stage("core", core[:, :, None, :], (1,))]
    else:
        chain = [Stage("in", mix.reshape(rank_in, -1, 1, kernel[1]), (1,)), Stage("core", core[:, :, :, None], (0,))]
    if found.outer is not None:
        chain.append(Stage("out", found.outer.reshape(*found.outer.shape, *pointwise)))
    whole = np.empty_like(weight)
    whole[:, order] = found.whole().reshape(outputs, -1)
    return chain, whole


def _spatial(operator: Operator, name: str) -> bool:
    """Whether a convolution's window has the shape that a form of three stages needs."""
    kernel = () if operator.entry.window is None else operator.entry.window.kernel
    return math.prod(kernel) > 1 if name == "tucker" else len(kernel) == 2 and min(kernel) > 1


def _staged(operator: Operator, moment: Array, name: str) -> tuple[Staged, NDArray[np.int64]]:
    """The kernel in stages, and the order of its features."""
    window = operator.entry.window
    if window is None:
        raise ValueError(f"form {name!r} of {operator.label!r}, which has no window")
    weight = operator.weight[0]
    kernel = weight.reshape(len(weight), -1, *window.kernel)
    order = np.arange(weight.shape[1])
    if name == "tucker":
        return Staged(by_channel(kernel), moment), order
    if name == "columns":
        order = order.reshape(kernel.shape[1:]).swapaxes(1, 2).reshape(-1)
        kernel, moment = kernel.swapaxes(2, 3), moment[np.ix_(order, order)]
    return Staged(by_row(kernel), moment), order


def _pairs(operator: Operator, moment: Array, places: _Places, least: int) -> Iterator[Form]:
    weight = operator.weight[0]
    errors = whitened_svd(weight, moment).errors
    for rank in range(least, len(errors)):
        size = rank * sum(weight.shape)
        yield Form("svd", (rank,), size, size * math.prod(places.written), float(errors[rank]))


def _triples(operator: Operator, moment: Array, name: str, places: _Places, least: int) -> Iterator[Form]:
    outputs = len(operator.weight[0])
    staged, _ = _staged(operator, moment, name)
    kernel = operator.entry.window.kernel if operator.entry.window is not None else ()
    features = operator.weight.shape[2]
    seen = {"tucker": math.prod(kernel), "rows": kernel[-1], "columns": kernel[0]}[name]
    between = {
        "tucker": places.read,
        "rows": (places.written[0], *places.read[1:]),
        "columns": (*places.read[:1], places.written[-1]),
    }[name]
    tried = np.linspace(least, staged.limit_in, _TRIED) if staged.limit_in >= least else np.empty(0)
    for rank_in in np.unique(tried.round().astype(int)).tolist():
        errors = staged.errors(rank_in)
        first = rank_in * features // seen
        for rank_out in range(least, outputs + 1):
            rest = rank_out * rank_in * seen + (outputs * rank_out if rank_out < outputs else 0)
            macs = first * math.prod(between) + rest * math.prod(places.written)
            yield Form(name, (rank_in, rank_out), first + rest, macs, float(errors[rank_out]))


def _places(graph: Graph, operator: Operator) -> _Places:
    """Positions; a free size counts as one."""
    made = _numbers(graph, graph.model.graph.node[operator.node].output[0])
    if operator.entry.window is None:
        return _Places((), (math.prod(made) // operator.outputs,))
    return _Places(tuple(_numbers(graph, operator.entry.value)[2:]), tuple(made[2:]))


def _numbers(graph: Graph, name: str) -> list[int]:
    return [size if isinstance(size, int) else 1 for size in graph.value(name).shape]
