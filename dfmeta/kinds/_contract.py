"""What every kind's ``spec.py`` says, and the checks they share.

Kinds of other packages use it too: its name begins with an underscore only because any other name in this folder
is that of a kind.

A kind is a folder with three modules:

* ``spec.py`` (no torch): ``VERSION``, ``MERGEABLE``, ``CONVENTIONS``, ``layout()`` and ``check()``; ``PAIRED = True``
  if it relates two sites; ``TYPICAL_LENGTHS`` for the named lengths of its layout, from which sizes are planned;
* ``accumulate.py``: ``Accumulator``, which takes activations in (``update``), combines (``merge``, ``pooled``,
  ``without``), is written down and taken up again (``state``, ``restore``) and gives tensors out (``tensors``);
  ``accumulator_bytes()``, the memory that one holds. An accumulator that reads every value may have ``update`` in two
  halves: ``reduced(samples, group)`` returns what a batch adds, or raises ``StepError`` at a NaN or an infinity, and
  ``take`` takes that in. Sites that it reads then need no pass of their own to find bad numbers, and a batch that is
  refused leaves no trace. Accumulators are updated, and ``spec.check`` is run, by several threads at a time, each
  its own;
* ``match.py``: a differentiable distance between activations and the record. A kind from which nothing is
  synthesised has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dfmeta.errors import Problem

REAL = frozenset({"float32", "float64"})
COUNT = frozenset({"int64"})


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """What one tensor of a record must look like.

    Attributes:
        dtypes: numpy names of the types it may have.
        shape: its sizes. A name stands for a length that the data decides; it is the same wherever the name
            appears in the record.
    """

    dtypes: frozenset[str]
    shape: tuple[int | str, ...]


def finite(tensors: Mapping[str, np.ndarray], where: str) -> list[Problem]:
    """One problem for each tensor that holds a NaN or an infinity."""
    return [
        Problem(f"{where}.{name}", "not-finite", "NaN or infinity", "finite numbers", "Record again.")
        for name, values in tensors.items()
        if not np.isfinite(values).all()
    ]


def non_negative(values: np.ndarray, where: str) -> list[Problem]:
    """A problem if any value is below zero."""
    if not (values < 0).any():
        return []
    return [Problem(where, "negative", f"{values.min()}", "no value below 0", "Record again.")]


def zero_where_unobserved(count: np.ndarray, tensors: Mapping[str, np.ndarray], where: str) -> list[Problem]:
    """A zero count means "not observed", and every value beside it must then be 0.

    Args:
        count: ``[]`` or ``[groups]`` int64.
        tensors: tensors whose leading axis, if ``count`` has one, is the group.
        where: location for the problems.
    """
    unobserved = np.atleast_1d(count) == 0
    found = []
    for name, values in tensors.items():
        rows = values if count.ndim else values[None]
        if unobserved.any() and rows[unobserved].any():
            found.append(
                Problem(f"{where}.{name}", "filler", "values where the count is 0", "zeros", "Write zeros there.")
            )
    return found
