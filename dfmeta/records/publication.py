"""From what was gathered to what is published: noised if asked, small classes refused or withheld, then finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dfmeta._catalog import KINDS
from dfmeta.errors import DataError
from dfmeta.records.gathered import Gathered
from dfmeta.records.plan import RecordPlan, SitePlan
from dfmeta.records.privacy import DifferentialPrivacy, noised

DEFAULT_MIN_UNITS = 10


@dataclass(frozen=True, slots=True)
class Taken:
    """One finished record: numbers and how to read them.

    Attributes:
        plan: what was asked.
        by_class: one row a class, or one record over all units.
        tensors: statistic to array, as the kind's specification lays out.
        unit_count: units that went in.
        position_count: feature vectors that went in.
        suppressed: classes withheld for having too few units; their rows are zero.
    """

    plan: RecordPlan
    by_class: bool
    tensors: Mapping[str, np.ndarray]
    unit_count: int
    position_count: int
    suppressed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything one pass over a data set left behind.

    Attributes:
        sites: the values at which records were taken.
        records: the finished records, in the plan's order.
        unit_count: units that went into what is published.
        batch_size: units in the largest batch, but no more than ``unit_count``.
        min_units: the smallest class that was published.
        suppression: ``none``, or ``complementary`` when classes were withheld.
        ledger: what was spent on privacy, in JSON types, or None without noise. With it, every count is a noised
            one, and ``batch_size`` is the one that was configured.
        left_out: records that no noise mechanism covers, as ``kind at site``; they were not published.
    """

    sites: tuple[SitePlan, ...]
    records: tuple[Taken, ...]
    unit_count: int
    batch_size: int
    min_units: int
    suppression: Literal["none", "complementary"]
    ledger: Mapping[str, Any] | None = None
    left_out: tuple[str, ...] = ()


def publication(
    gathered: Gathered,
    *,
    min_units: int = DEFAULT_MIN_UNITS,
    suppress: bool = False,
    privacy: DifferentialPrivacy | None = None,
) -> Recording:
    """The records of everything gathered so far. What was gathered stays as it is.

    Args:
        gathered: the accumulators.
        min_units: classes with fewer units are not published.
        suppress: withhold such classes, and leave them out of the records over all units too, instead of refusing.
        privacy: publish noised statistics only. Counts are private as well: what is compared with ``min_units``,
            and what is published, are the noised ones. Each call draws new noise and costs ``rho`` anew, whether or
            not it ends in a recording: with ``suppress`` it does not have to be made twice.

    Raises:
        DataError: nothing was gathered; a class has fewer than ``min_units`` units and ``suppress`` is off; or a
            class is to be withheld from a record that did not keep the classes apart; or units that were not
            clipped as ``privacy`` needs, or nothing that can be noised.
    """
    if privacy is not None:
        made = noised(gathered, privacy)
        recording = publication(made.gathered, min_units=min_units, suppress=suppress)
        return replace(recording, batch_size=privacy.batch_size, ledger=made.ledger, left_out=made.left_out)
    total = int(gathered.units.sum())
    if total < min_units:
        raise DataError("records", f"{total} units", f"at least {min_units}", "Feed the recorder more data.")
    units = gathered.units.tolist()
    hidden = () if gathered.classes is None else small_classes(units, min_units, suppress=suppress)
    published = total - int(gathered.units[list(hidden)].sum())
    pairs = zip(gathered.plan, gathered.accumulators, strict=True)
    records = [record for pair in pairs for record in _taken(gathered, *pair, hidden, min_units)]
    return Recording(
        tuple({site.id: site for entry in gathered.plan for site in entry.sites}.values()),
        tuple(records),
        # Withheld units are not told of: their number is what the total would give away, and so would a batch that
        # held everything.
        published,
        min(gathered.largest_batch, published),
        min_units,
        "complementary" if hidden else "none",
    )


def _taken(
    gathered: Gathered, entry: RecordPlan, accumulator: Any, hidden: tuple[int, ...], min_units: int
) -> list[Taken]:
    if hidden:
        # Withheld classes leave the pooled record too: "all minus the rest" must not give them back. The
        # gathered statistics keep them: with more data they may become large enough.
        _require_classes(entry, hidden)
        accumulator = accumulator.without(hidden)
    units = gathered.units.clone()
    units[list(hidden)] = 0
    kept, positions = int(units.sum()), int(accumulator.count.sum())
    pooled = accumulator.pooled() if accumulator.groups > 1 else accumulator
    # What all groups share, such as the bins of a histogram, has no group axis.
    shared: frozenset[str] = getattr(KINDS.load(entry.kind, "spec"), "SHARED", frozenset())
    tensors = pooled.tensors(units.sum()[None], min_units)
    flat = {name: array if name in shared else array[0] for name, array in tensors.items()}
    taken = [Taken(entry, False, flat, kept, positions)]
    if gathered.classes and entry.by_class:
        taken.append(Taken(entry, True, accumulator.tensors(units, min_units), kept, positions, hidden))
    return taken


def _require_classes(entry: RecordPlan, hidden: tuple[int, ...]) -> None:
    if not entry.gathered_by_class:
        raise DataError(
            f"class {hidden[0]}",
            f"too few units in a {entry.kind!r} record at {entry.site.label!r}, which does not keep classes apart",
            "classes that are large enough, or none",
            "Leave the units of this class out of the data, or record without classes (--no-classes).",
        )


def small_classes(units: Sequence[int], min_units: int, *, suppress: bool) -> tuple[int, ...]:
    """The classes that are too small to be published.

    Args:
        units: how many units each class has.
        min_units: how many it needs.
        suppress: they may be withheld.

    Raises:
        DataError: there are any and they may not be withheld; or no class is large enough.
    """
    small = [row for row, count in enumerate(units) if count < min_units]
    if small and not suppress:
        row = small[0]
        raise DataError(
            f"class {row}",
            f"{units[row]} units",
            f"at least {min_units}, since a statistic of few is close to publishing them",
            "Record more units (a higher --limit), leave the class out, record without classes (--no-classes), "
            "or withhold small classes (--suppress-small).",
        )
    if len(small) == len(units):
        raise DataError("records", "no class large enough", f"one with {min_units} units or more")
    return tuple(small)
