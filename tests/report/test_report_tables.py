"""Facts to tables, and a bundle to its overview."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from dfmeta.bundle import Bundle
from dfmeta.graph import Costs
from dfmeta.report import ModelRow, columns_table, facts_table, models_table, overview, overview_tables

COSTS = Costs(1234, 5_000_000, 61_706)


def printed(*tables: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160).print(*tables, sep="\n")
    return stream.getvalue()


def test_models_are_compared() -> None:
    rows = [ModelRow.of("teacher", COSTS, 98.5), ModelRow.of("student", COSTS, 95.25, 96.0)]
    text = printed(models_table(rows, "Digits"))
    title, head, _, first, second = (line.split() for line in text.splitlines())
    assert title == ["Digits"]
    assert head == ["model", "accuracy", "agreement", "parameters", "MACs", "size"]
    assert first == ["teacher", "98.50", "%", "-", "1,234", "5,000,000", "61.7", "kB"]
    assert second == ["student", "95.25", "%", "96.00", "%", "1,234", "5,000,000", "61.7", "kB"]


def test_a_measure_that_nobody_has_gets_no_column() -> None:
    assert "agreement" not in printed(models_table([ModelRow.of("teacher", COSTS, 98.5, None)]))


def test_cells_are_plain_text() -> None:
    text = printed(facts_table([("name", "[red]:smile:\x1b[2J")]), columns_table(["a"], [["[b]\x07"]]))
    assert "[red]:smile:\\x1b[2J" in text
    assert "[b]\\x07" in text


@pytest.fixture
def vector(repository: Path, tmp_path: Path) -> Path:
    """The kept bundle, in a folder of its own."""
    source = repository / "tests" / "compat" / "0.1.0" / "moments"
    return Path(shutil.copytree(source, tmp_path / "bundle"))


def change(folder: Path, **members: Any) -> Bundle:
    manifest = json.loads((folder / "dfmeta.json").read_text())
    (folder / "dfmeta.json").write_text(json.dumps({**manifest, **members}))
    return Bundle.open(folder)


def test_the_overview_is_json_and_opens_no_member(vector: Path) -> None:
    bundle = Bundle.open(vector)
    sizes = [(vector / file.path).stat().st_size for file in bundle.manifest.files]
    for file in bundle.manifest.files:
        (vector / file.path).unlink()
    facts = overview(bundle)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["bundle"]["publisher"]["name"] == "Example Lab"
    assert [file["size"] for file in facts["files"]] == sizes
    text = printed(*overview_tables(facts))
    for part in (
        "Two features",
        "Example Lab",
        "model.onnx",
        "grayscale",
        "size [10, 10]",
        "licence, notice",
    ):
        assert part in text


def test_the_values_of_a_record_come_from_its_kind(vector: Path) -> None:
    manifest = json.loads((vector / "dfmeta.json").read_text())
    record, *others = manifest["records"]
    facts = overview(change(vector, records=[{**record, "kind": "x-unknown"}, *others]))
    assert facts["records"][0]["values"] is None
    # A moments record over all units holds a count, and a mean and a variance of each feature.
    facts = overview(change(vector, records=manifest["records"]))
    pooled = next(each for each in facts["records"] if each["group"] == "all")
    assert pooled["values"] == 1 + 2 * pooled["feature_count"]


def test_a_configuration_that_the_kind_cannot_read_has_no_values(vector: Path) -> None:
    manifest = json.loads((vector / "dfmeta.json").read_text())
    record, *others = manifest["records"]
    facts = overview(change(vector, records=[{**record, "kind": "spectrum", "configuration": {}}, *others]))
    assert facts["records"][0]["values"] is None


def test_numbers_of_unknown_records_are_not_made_up(vector: Path) -> None:
    manifest = json.loads((vector / "dfmeta.json").read_text())
    records = [{**record, "kind": "x-unknown", "features": "x-thing"} for record in manifest["records"]]
    text = printed(*overview_tables(overview(change(vector, records=records))))
    assert "x-unknown of x-thing" in text
    assert "unknown\n" in text


def test_a_bundle_without_records_or_privacy(vector: Path) -> None:
    manifest = json.loads((vector / "dfmeta.json").read_text())
    for name in ("records", "sites", "runs", "datasets", "privacy", "licenses"):
        manifest.pop(name)
    manifest["files"] = [file for file in manifest["files"] if file["role"] == "model.graph"]
    for name in ("probe", "weights"):
        manifest["model"].pop(name, None)
    (vector / "dfmeta.json").write_text(json.dumps(manifest))
    text = printed(*overview_tables(overview(Bundle.open(vector))))
    assert "nothing declared" in text
