"""The sizes of a recording that is still to be made, for programs and for people."""

from __future__ import annotations

import json

from rich.console import Console

from dfmeta.records import RecordPlan, SitePlan
from dfmeta.report import plan_facts, plan_tables

IMAGE = SitePlan("s0000", "x", "image", "float32", ("batch", 3, 8, 8), 1)
LOGITS = SitePlan("s0001", "y", "the\x1b[2J logits", "float32", ("batch", 10), 1)
PLAN = (
    RecordPlan(IMAGE, "moments", False, "channel"),
    RecordPlan(LOGITS, "spectrum", True, "flattened", {"rank": 4, "sketch": 8}),
    RecordPlan(IMAGE, "cross-spectrum", False, "flattened", {"rank": 4, "paired_feature_count": 10}, LOGITS),
    RecordPlan(LOGITS, "histogram", False, "flattened", gathered_by_class=False),
)
FIXED = PLAN[:3]


def text(facts):
    console = Console(width=120)
    with console.capture() as captured:
        for table in plan_tables(facts):
            console.print(table)
    return captured.get()


def test_one_entry_for_each_published_record():
    facts = plan_facts(PLAN, 5)
    assert json.loads(json.dumps(facts)) == facts
    assert [(each["kind"], each["group"], each["shape"]) for each in facts["records"]] == [
        ("moments", "all", [3]),
        ("spectrum", "all", [4, 10]),
        ("spectrum", "class", [5, 4, 10]),
        ("cross-spectrum", "all", [4, 192]),
        ("histogram", "all", [300]),
    ]
    moments, spectrum, by_class, pair, histogram = facts["records"]
    # count as int64, the rest as float32.
    assert moments["bytes"] == 8 + 4 * (3 + 3)
    # mean, values, vectors, residual and the sketch's error bound.
    assert spectrum["bytes"] == 8 + 4 * (10 + 4 + 40 + 1 + 1)
    assert by_class["bytes"] == 5 * spectrum["bytes"]
    assert pair["bytes"] == 8 + 4 * (192 + 10 + 4 + 4 * 192 + 4 * 10 + 1)
    assert (pair["label"], pair["paired_label"]) == ("image", LOGITS.label)
    assert histogram["bytes"] == 8 * (1 + 2 * 300)
    assert [each["exact"] for each in facts["records"]] == [True, True, True, True, False]
    assert facts["exact"] is False
    assert (facts["sites"], facts["classes"]) == (2, 5)
    assert facts["record_bytes"] > sum(each["bytes"] for each in facts["records"])


def test_an_accumulator_is_counted_once_however_many_records_are_read_from_it():
    facts = plan_facts(PLAN, 5)
    held = [each["gathering_bytes"] for each in facts["records"]]
    # Classes are kept apart while gathering, but not for the histogram; the sketch holds 16 rows of 10 for each.
    # Moments look at a batch before they take it in, and hold it beside what they have: twice the accumulator.
    assert held[0] == 2 * 5 * 8 * (1 + 2 * 3)
    assert held[1] == 5 * 8 * (4 + 10 + 2 * 8 * 10)
    assert held[2] == 0
    assert facts["gathering_bytes"] > sum(held)


def test_without_classes():
    facts = plan_facts(FIXED, None)
    assert [each["group"] for each in facts["records"]] == ["all"] * 3
    assert facts["exact"] is True
    assert facts["gathering_bytes"] == sum(each["gathering_bytes"] for each in facts["records"])


def test_for_people():
    shown = text(plan_facts(PLAN, 5, budget_bytes=2_000_000))
    lines = {line.split("  ")[0]: line for line in shown.splitlines()}
    assert "rank 4, sketch of 8" in shown
    assert "channels" in lines["image"]
    assert "[5, 4, 10]" in shown
    assert "about 4.8 kB" in shown
    assert lines["records"].split()[1:] == ["5", "at", "2", "sites"]
    assert lines["classes"].split()[1:] == ["5"]
    assert lines["sidecar"].split()[1] == "about"
    assert lines["budget"].split()[1:] == ["2.0", "MB"]
    assert "memory while gathering" in lines
    assert "\x1b" not in shown


def test_what_is_left_out_is_told():
    facts = plan_facts(FIXED, None, left_out=[("fc\x1b", "its sizes are not all known")])
    assert facts["left_out"] == {"fc\x1b": "its sizes are not all known"}
    (line,) = [line for line in text(facts).splitlines() if line.startswith("left out")]
    assert line.split("  ")[-1].strip() == "input of fc\\x1b: its sizes are not all known"


def test_an_exact_plan_says_its_bytes():
    facts = plan_facts(FIXED, None)
    shown = text(facts)
    assert f"({facts['record_bytes']:,} B)" in shown
    assert "about" not in shown
    assert "budget" not in shown
    assert "classes" in shown
