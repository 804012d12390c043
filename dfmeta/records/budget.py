"""Making a plan fit: the sidecar into a number of bytes, what is gathered into memory.

What is given up first is what is worth least. The order comes from measurements on a ResNet-20 (weights to 3 bits, a
quarter of the channels pruned, low rank): second moments stored as 8-bit correlations did as well as float32, and
``toeplitz`` as well as ``full`` at a third of its size. ``kronecker`` still served quantising, but no longer pruning
or low rank. ``diagonal`` is the least that is a second moment.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from dfmeta.errors import DataError
from dfmeta.records.gathered import Gathered, accumulate
from dfmeta.records.plan import RecordPlan, gathering_bytes, peak_bytes, planned_bytes, record_bytes

FORMS = ("full", "toeplitz", "kronecker", "diagonal")
STORAGES = ("float32", "float16", "int8")
RANKED_KINDS = frozenset({"spectrum", "cross-spectrum"})

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
Plan = tuple[RecordPlan, ...]


def parse_bytes(text: str) -> int:
    """``500000``, ``500kB``, ``1.5 MB`` or ``2MiB`` as bytes; units in any case, 1 kB = 1000 B and 1 KiB = 1024 B.

    Raises:
        DataError: any other text, or less than one byte.
    """
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([a-z]*)", text.strip().lower(), re.ASCII)
    count = int(Fraction(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    if count < 1:
        expected = "a number of bytes above 0, such as 500000, 500kB, 1.5MB or 2MiB"
        raise DataError("number of bytes", f"{text[:40]!r}", expected)
    return count


def with_form(entry: RecordPlan, form: str, storage: str) -> RecordPlan:
    """A ``second-moment`` in another form and storage.

    Args:
        entry: the record.
        form: one of :data:`FORMS`. A kernel of one element has no lags and no second factor: of it, ``toeplitz`` and
            ``kronecker`` are ``full``.
        storage: one of :data:`STORAGES`. A ``diagonal`` is small, and always float32.
    """
    if form in ("toeplitz", "kronecker") and math.prod(entry.configuration.get("kernel", ())) <= 1:
        form = "full"
    if form == "diagonal":
        storage = "float32"
    return replace(entry, configuration={**entry.configuration, "form": form, "storage": storage})


def fit_bytes(
    plan: Sequence[RecordPlan],
    classes: int | None,
    budget_bytes: int,
    *,
    keep_form: bool = False,
    keep_storage: bool = False,
) -> tuple[RecordPlan, ...]:
    """The plan, given up on until its planned sidecar takes no more than a number of bytes.

    One thing is given up at a time, and only what saves bytes:

    1. second moments in float16, then in int8, the largest saving first;
    2. second moments from ``full`` to ``toeplitz``, the largest saving first;
    3. pairs that spectra keep: all have at most r, with r falling by one down to 1;
    4. second moments to ``kronecker``, the largest saving first;
    5. second moments to ``diagonal``, the largest saving first.

    The plans on this way do not depend on the budget, and the first that fits is taken. So more bytes never give a
    smaller plan, and what fits is left as it is.

    Args:
        plan: the best that is wanted.
        classes: number of classes; None records over all units only.
        budget_bytes: what the sidecar may take (:func:`dfmeta.records.plan.planned_bytes`).
        keep_form: leave the forms of second moments as they are.
        keep_storage: leave their storage as it is.

    Raises:
        DataError: a budget below the smallest of these plans; the text says how much that one needs.
    """
    smallest = math.inf
    for candidate in _ever_less(tuple(plan), classes, keep_form=keep_form, keep_storage=keep_storage):
        size = planned_bytes(candidate, classes)
        if size <= budget_bytes:
            return candidate
        smallest = min(smallest, size)
    raise DataError(
        "budget",
        f"{budget_bytes} bytes",
        f"at least {smallest}, which the smallest plan of these records takes",
        "Raise the budget (--budget-bytes), or record less: fewer sites (--at), another preset (--preset), or no "
        "classes (--no-classes).",
    )


def fit_memory(
    plan: Sequence[RecordPlan],
    classes: int | None,
    limit: int,
    sketched: Callable[[RecordPlan], RecordPlan],
) -> tuple[RecordPlan, ...]:
    """The plan, with the largest exact spectra as sketches until the statistics fit into memory.

    Args:
        plan: the best that is wanted.
        classes: number of classes; None gathers over all units only.
        limit: bytes (:func:`dfmeta.records.plan.peak_bytes`).
        sketched: gives a record of :data:`RANKED_KINDS` a sketch.

    Returns:
        The first plan that fits, or the last one if none does: to refuse that is the recorder's part.
    """
    fitted = list(plan)
    held = {
        place: gathering_bytes(entry, classes)
        for place, entry in enumerate(plan)
        if entry.kind in RANKED_KINDS and "sketch" not in entry.configuration
    }
    for place in sorted(held, key=lambda place: (-held[place], place)):
        if peak_bytes(fitted, classes) <= limit:
            break
        smaller = sketched(fitted[place])
        if gathering_bytes(smaller, classes) < held[place]:
            fitted[place] = smaller
    return tuple(fitted)


def fit_gathered(gathered: Gathered, budget_bytes: int) -> Gathered:
    """What was gathered already, to be read out so that its planned sidecar takes no more than a number of bytes.

    As :func:`fit_bytes`, but forms of second moments stay: what was counted in one cannot be read in another.

    Args:
        gathered: the accumulators; they stay as they are.
        budget_bytes: what the sidecar may take.

    Raises:
        DataError: a budget below the smallest of these plans; the text says how much that one needs.
    """
    fitted = copy.copy(gathered)
    fitted.plan = fit_bytes(gathered.plan, gathered.classes, budget_bytes, keep_form=True)
    fitted.accumulators = [
        held if entry == before else _read_as(entry, held)
        for entry, before, held in zip(fitted.plan, gathered.plan, gathered.accumulators, strict=True)
    ]
    return fitted


def _read_as(entry: RecordPlan, held: Any) -> Any:
    """The same sums, to be published as ``entry`` says."""
    accumulator = accumulate(entry).Accumulator(entry.feature_count, held.groups, entry.configuration)
    accumulator.restore(held.state())
    return accumulator


def _ever_less(plan: Plan, classes: int | None, *, keep_form: bool, keep_storage: bool) -> Iterator[Plan]:
    """The plan, then what is left of it as one thing after the other is given up."""
    yield plan
    for storage in () if keep_storage else STORAGES[1:]:
        plan = yield from _one_by_one(plan, classes, partial(_reduced, storage=storage))
    if not keep_form:
        plan = yield from _one_by_one(plan, classes, partial(_reduced, form="toeplitz"))
    for rank in range(max(map(_rank, plan), default=0) - 1, 0, -1):
        plan = tuple(_with_rank(entry, rank) for entry in plan)
        yield plan
    for form in () if keep_form else FORMS[2:]:
        plan = yield from _one_by_one(plan, classes, partial(_reduced, form=form))


def _one_by_one(
    plan: Plan, classes: int | None, reduced: Callable[[RecordPlan], RecordPlan]
) -> Generator[Plan, None, Plan]:
    """Plans in which one record more is reduced each time, the largest saving first; returns the last of them."""
    options = [reduced(entry) for entry in plan]
    savings = [
        record_bytes(entry, classes) - record_bytes(option, classes)
        for entry, option in zip(plan, options, strict=True)
    ]
    for place in sorted(range(len(plan)), key=lambda place: -savings[place]):
        if savings[place] > 0:
            plan = (*plan[:place], options[place], *plan[place + 1 :])
            yield plan
    return plan


def _reduced(entry: RecordPlan, *, form: str | None = None, storage: str | None = None) -> RecordPlan:
    """A second moment with less of the one or the other, never with more; any other record as it is."""
    if entry.kind != "second-moment":
        return entry
    had = entry.configuration
    forms = had["form"], form or had["form"]
    storages = had["storage"], storage or had["storage"]
    return with_form(entry, max(forms, key=FORMS.index), max(storages, key=STORAGES.index))


def _rank(entry: RecordPlan) -> int:
    return int(entry.configuration["rank"]) if entry.kind in RANKED_KINDS else 0


def _with_rank(entry: RecordPlan, rank: int) -> RecordPlan:
    """A spectrum of at most that many pairs, from as large a sketch as before; any other record as it is."""
    if _rank(entry) <= rank:
        return entry
    return replace(entry, configuration={**entry.configuration, "rank": rank})
