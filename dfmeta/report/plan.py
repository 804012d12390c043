"""What a recording will take, before it is made: of the sidecar, and of memory while it is gathered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from dfmeta.report.tables import columns_table, facts_table
from dfmeta.report.words import LAYOUTS, integer, size

if TYPE_CHECKING:
    from dfmeta.records.plan import PlannedTensor, RecordPlan

Facts = dict[str, Any]


def plan_facts(
    plan: Sequence[RecordPlan],
    classes: int | None,
    budget_bytes: int | None = None,
    left_out: Sequence[tuple[str, str]] = (),
) -> Facts:
    """The facts of a plan as JSON types.

    Args:
        plan: what will be recorded.
        classes: number of classes; None records over all units only.
        budget_bytes: what the plan was made to fit, if it was.
        left_out: operators whose input is asked for and not recorded, and why (:func:`dfmeta.records.sites.left_out`).

    Returns:
        ``records``, one entry for each published record: ``site``, ``label``, ``paired_site``, ``paired_label``,
        ``kind``, ``group``, ``features``, ``feature_count``, ``configuration``, ``shape`` (of its largest tensor),
        ``bytes``, ``exact`` (whether the plan alone settles them) and ``gathering_bytes`` (of the accumulator from
        which it is read; records of one accumulator have it once, and the others 0). Then ``sites``, ``classes``,
        ``record_bytes`` (the whole sidecar, its header included), ``exact``, ``gathering_bytes`` (the most that is
        held at any time), ``budget_bytes`` and ``left_out``, by operator.
    """
    # It imports torch, and whoever only shows a bundle does not need it.
    from dfmeta.records.plan import gathering_bytes, peak_bytes, planned_bytes, planned_records

    records = []
    for entry in plan:
        held = gathering_bytes(entry, classes)
        for group, tensors in zip(("all", "class"), planned_records(entry, classes), strict=False):
            records.append({**_record(entry, tensors), "group": group, "gathering_bytes": held})
            held = 0
    return {
        "records": records,
        "sites": len({site.id for entry in plan for site in entry.sites}),
        "classes": classes,
        "record_bytes": planned_bytes(plan, classes),
        "exact": all(record["exact"] for record in records),
        "gathering_bytes": peak_bytes(plan, classes),
        "budget_bytes": budget_bytes,
        "left_out": dict(left_out),
    }


def plan_tables(facts: Facts) -> list[RenderableType]:
    """The same facts for people.

    Args:
        facts: what :func:`plan_facts` gave.
    """
    columns = ["site", "kind", "group", "as", "shape", "bytes", "gathering"]
    rows = [_row(record) for record in facts["records"]]
    about = "" if facts["exact"] else "about "
    totals = [
        ("records", f"{integer(len(rows))} at {integer(facts['sites'])} sites"),
        ("classes", integer(facts["classes"]) if facts["classes"] else "none"),
        ("sidecar", f"{about}{size(facts['record_bytes'])} ({integer(facts['record_bytes'])} B)"),
        ("budget", None if facts["budget_bytes"] is None else size(facts["budget_bytes"])),
        ("memory while gathering", size(facts["gathering_bytes"])),
        *(("left out", f"input of {label}: {reason}") for label, reason in facts["left_out"].items()),
    ]
    return [
        columns_table(columns, rows, numbers=["bytes", "gathering"]),
        facts_table([(name, value) for name, value in totals if value is not None]),
    ]


def _record(entry: RecordPlan, tensors: Mapping[str, PlannedTensor]) -> Facts:
    largest = max(tensors.values(), key=lambda tensor: (tensor.bytes, math.prod(tensor.shape)))
    paired = entry.paired
    return {
        "site": entry.site.id,
        "label": entry.site.label,
        "paired_site": paired.id if paired else None,
        "paired_label": paired.label if paired else None,
        "kind": entry.kind,
        "features": entry.features,
        "feature_count": entry.feature_count,
        "configuration": dict(entry.configuration),
        "shape": list(largest.shape),
        "bytes": sum(tensor.bytes for tensor in tensors.values()),
        "exact": all(tensor.exact for tensor in tensors.values()),
    }


def _row(record: Facts) -> list[str]:
    paired, about = record["paired_label"], "" if record["exact"] else "about "
    return [
        record["label"] if paired is None else f"{record['label']} to {paired}",
        record["kind"],
        record["group"],
        _quality(record),
        "[" + ", ".join(map(str, record["shape"])) + "]",
        about + size(record["bytes"]),
        size(record["gathering_bytes"]) if record["gathering_bytes"] else "",
    ]


def _quality(record: Facts) -> str:
    """How much of the statistic is kept, and of what."""
    chosen = record["configuration"]
    words = [
        LAYOUTS.get(record["features"], ""),
        " ".join(chosen[key] for key in ("form", "storage") if key in chosen),
        f"rank {chosen['rank']}" if "rank" in chosen else "",
        f"sketch of {chosen['sketch']}" if "sketch" in chosen else "",
    ]
    return ", ".join(filter(None, words))
