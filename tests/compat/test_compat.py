"""Bundles of past releases are read for ever, and those of later minor versions lose nothing in a rewrite."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfmeta.bundle import Bundle, write_bundle
from dfmeta.pipeline import validate
from dfmeta.schema import dump_manifest, load_manifest

HERE = Path(__file__).resolve().parent
KEPT: dict[str, dict[str, Any]] = json.loads((HERE / "index.json").read_bytes())
VECTORS = HERE.parents[1] / "spec" / "vectors" / "1.0"
FUTURE = sorted(path.name for path in (VECTORS / "compat").iterdir())


def digest_of(bundle: Bundle) -> str:
    """The digest of every tensor of every record, dtypes, shapes and names included."""
    whole = hashlib.sha256()
    for record in bundle.manifest.records:
        for statistic, values in sorted(bundle.record_tensors(record.id).items()):
            whole.update(f"{record.id}.{statistic} {values.dtype} {values.shape}\n".encode())
            whole.update(np.ascontiguousarray(values).tobytes())
    return whole.hexdigest()


def test_every_kept_bundle_is_in_the_index():
    there = {path.parent.relative_to(HERE).as_posix() for path in HERE.glob("*/*/dfmeta.json")}
    assert there == KEPT.keys()
    assert len(there) >= 4


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_bundle_is_read_as_on_its_first_day(name):
    bundle = Bundle.open(HERE / name)
    assert bundle.identity == KEPT[name]["identity"]
    assert sorted({record.kind for record in bundle.manifest.records}) == KEPT[name]["kinds"]
    assert len(bundle.manifest.records) == KEPT[name]["records"]
    assert digest_of(bundle) == KEPT[name]["numbers"]


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_bundle_is_valid(name):
    report = validate(HERE / name)
    assert report.problems == ()
    assert report.warnings == ()
    assert report.records == KEPT[name]["records"]


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_manifest_is_written_as_it_was(name):
    raw = (HERE / name / "dfmeta.json").read_bytes()
    assert dump_manifest(load_manifest(raw).manifest) == raw


def test_every_kind_is_kept():
    kinds = {kind for entry in KEPT.values() for kind in entry["kinds"]}
    pages = {path.stem for path in (HERE.parents[1] / "spec" / "record-kinds").glob("*.md")}
    assert kinds == pages


def without_defaults(value: Any) -> Any:
    """A manifest without nulls and without members that say what their absence says."""
    if isinstance(value, dict):
        members = {key: without_defaults(item) for key, item in value.items()}
        return {key: item for key, item in members.items() if item not in (None, [], {})}
    return [without_defaults(item) for item in value] if isinstance(value, list) else value


def is_kept(old: Any, new: Any) -> bool:
    """Whether everything that one document says is in the other."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(key in new and is_kept(item, new[key]) for key, item in old.items())
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(is_kept, old, new))
    return old == new and type(old) is type(new)


def test_what_is_not_kept_is_seen():
    old = {"a": [{"b": 1}], "c": None}
    assert is_kept(old, old | {"more": 1})
    assert not is_kept(old, {"a": [{}], "c": None})
    assert not is_kept(old, {"a": [], "c": None})
    assert not is_kept({"a": 1}, {"a": True})


@pytest.mark.parametrize("name", FUTURE)
def test_a_rewrite_of_a_later_version_keeps_what_it_does_not_know(name, tmp_path):
    source = VECTORS / "compat" / name
    bundle = Bundle.open(source)
    members = {file.path: bundle.member(file.id) for file in bundle.manifest.files}
    write_bundle(tmp_path / "copy", bundle.manifest, members)
    old, new = (json.loads((folder / "dfmeta.json").read_bytes()) for folder in (source, tmp_path / "copy"))
    # An empty list inside a member that nobody knows is kept too: only the format's own absences are left out.
    assert is_kept(without_defaults(old), new)
    assert is_kept(old.get("extensions", {}), new["extensions"])
    if name == "unknown-members-everywhere":
        assert new["x_later"] == old["x_later"]
        assert new["records"][0]["tensors"]["mean"]["x_later"] == old["records"][0]["tensors"]["mean"]["x_later"]
        assert new["model"]["inputs"][0]["preprocessing"][-1] == old["model"]["inputs"][0]["preprocessing"][-1]
    assert new["format_version"] == old["format_version"]
