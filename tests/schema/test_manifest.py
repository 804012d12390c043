"""Reading and writing manifests: what is kept, what is reported, and that the bytes are always the same."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dfmeta.errors import SchemaError, UnsupportedVersion
from dfmeta.schema import dump_manifest, load_manifest, load_preprocessing, v1

VECTORS = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "1.0"
FULL = json.loads((VECTORS / "valid" / "full" / "dfmeta.json").read_bytes())


def raw(document: object) -> bytes:
    return json.dumps(document).encode()


def changed(*path: str | int, value: object) -> bytes:
    document = copy.deepcopy(FULL)
    node = document
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return raw(document)


def problems(document: bytes, **options: bool) -> list[tuple[str, str]]:
    with pytest.raises(SchemaError) as caught:
        load_manifest(document, **options)
    return [(problem.where, problem.code) for problem in caught.value.problems]


def test_a_full_manifest_survives_reading_and_writing():
    manifest = load_manifest(raw(FULL)).manifest
    assert json.loads(dump_manifest(manifest)) == FULL
    assert load_manifest(dump_manifest(manifest)).manifest == manifest


def test_equal_manifests_give_equal_bytes_whatever_the_order_of_keys():
    backwards = json.loads(raw(FULL), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    one, other = (dump_manifest(load_manifest(raw(each)).manifest) for each in (FULL, backwards))
    assert one == other
    assert one.endswith(b"}\n")
    assert not one.endswith(b"\n\n")
    assert "Café".encode() in one


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text("aé\\", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=3), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    *((), ("bundle",), ("files", 0), ("model",), ("model", "inputs", 0), ("sites", 0), ("records", 0)),
    *(("records", 0, "tensors", "mean"), ("records", 0, "group"), ("runs", 0), ("datasets", 0), ("privacy",)),
    *(("sites", 0, "addresses", 0), ("model", "inputs", 0, "preprocessing", 0), ("extensions",)),
]


@settings(max_examples=60)
@given(st.sampled_from(PLACES), json_values)
def test_unknown_members_are_kept_anywhere(place, value):
    document = copy.deepcopy(FULL)
    node = document
    for step in place:
        node = node[step]
    node["org.example.later"] = value
    loaded = load_manifest(raw(document))
    assert json.loads(dump_manifest(loaded.manifest)) == document


def test_null_means_absent_and_is_not_written():
    manifest = load_manifest(changed("licenses", value=None)).manifest
    assert manifest.licenses is None
    assert "licenses" not in json.loads(dump_manifest(manifest))


def test_all_problems_of_a_stage_are_reported():
    document = json.loads(changed("records", 0, "site", value="s7"))
    document["records"][1]["run"] = "run7"
    document["sites"].append(document["sites"][0])
    assert problems(raw(document)) == [
        ("sites[1].id", "duplicate-id"),
        ("model.probe", "duplicate-tensor"),
        ("model.probe", "duplicate-tensor"),
        ("records[0].site", "dangling-reference"),
        ("records[1].run", "dangling-reference"),
    ]


# path, new value, code; the place is the path itself unless a fourth entry says what follows it
CROSS = [
    (("sites", 0, "shape"), [1, 2], "bad-dimension", "[0]"),
    (("sites", 0, "feature_axis"), 5, "out-of-range"),
    (("sites", 0, "feature_count"), 3, "wrong-count"),
    (("sites", 0, "addresses", 0, "file"), "records", "wrong-role"),
    (("records", 0, "paired_site"), "s9", "dangling-reference"),
    (("records", 0, "suppressed_groups"), [0], "out-of-range"),
    (("records", 1, "suppressed_groups"), [2], "out-of-range"),
    (("records", 1, "suppressed_groups"), [1, 0], "out-of-range"),
    (("records", 1, "group"), {"by": "class"}, "missing-member", ".label_set"),
    (("records", 1, "group"), {"by": "class", "label_set": "x"}, "dangling-reference", ".label_set"),
    (("model", "graph", "file"), "weights", "wrong-role"),
    (("model", "weights", "files"), ["graph"], "wrong-role", "[0]"),
    (("model", "probe", "file"), "nothing", "dangling-reference"),
    (("model", "outputs", 0, "axes"), ["batch"], "wrong-length"),
    (
        ("model", "inputs", 0, "preprocessing", 6),
        {"op": "normalize", "mean": [1], "std": [1, 1]},
        "wrong-length",
    ),
    (("model", "inputs", 0, "preprocessing", 3, "pixels"), [1, 2], "wrong-length"),
    (("model", "inputs", 0, "shape"), ["b", 0], "out-of-range", "[1]"),
    (("files", 0, "media_type"), "text/plain", "wrong-media-type"),
    (("files", 0, "size"), 2**31, "too-large"),
    (("files", 2, "size"), 2**28 + 1, "too-large"),
    (("files", 0, "id"), "graph\n", "bad-id"),
    (("files", 0, "role"), "Model", "bad-name"),
    (("files",), [], "wrong-length"),
    (("bundle", "id"), "urn:uuid:1", "bad-uuid"),
    (("bundle", "created"), "yesterday", "bad-time"),
    (("datasets", 0, "contains_personal_data"), "maybe", "unknown-value"),
]


@pytest.mark.parametrize("case", CROSS, ids=lambda case: f"{case[0][-1]}-{case[2]}")
def test_each_contradiction_has_its_place_and_code(case):
    path, value, code, *after = case
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    assert problems(changed(*path, value=value)) == [("".join([place, *after]), code)]


def test_no_model_and_probe_tensors_without_a_probe():
    document = copy.deepcopy(FULL)
    for member in ("graph", "weights", "probe"):
        del document["model"][member]
    assert problems(raw(document)) == [("model", "no-model"), ("sites[0].probe", "dangling-reference")]


def test_a_misspelt_required_member_is_named():
    document = copy.deepcopy(FULL)
    document["runs"][0]["batchsize"] = document["runs"][0].pop("batch_size")
    with pytest.raises(SchemaError, match="Is 'batchsize' misspelt") as caught:
        load_manifest(raw(document))
    assert caught.value.problems[0].where == "runs[0].batch_size"


def test_strict_reading_suggests_the_nearest_name():
    document = changed("model", "licence_notes", value=1)
    assert load_manifest(document).warnings == ()
    assert problems(document, strict=True) == [("model.licence_notes", "unknown-member")]
    with pytest.raises(SchemaError, match="Did you mean 'architecture'"):
        load_manifest(changed("model", "architectur", value="x"), strict=True)


@pytest.mark.parametrize("strict", [False, True])
def test_a_crowd_of_unknown_members_costs_no_minutes(strict):
    document = copy.deepcopy(FULL)
    for node in (document["files"][0], document["runs"][0]):
        node |= {f"sze{index:05}": 0 for index in range(60_000)}
        del node["id"]
    began = time.perf_counter()
    with pytest.raises(SchemaError):
        load_manifest(raw(document), strict=strict)
    for node in (document["files"][0], document["runs"][0]):
        node["id"] = "run0" if "dataset" in node else "graph"
    with contextlib.suppress(SchemaError):
        load_manifest(raw(document), strict=strict)
    assert time.perf_counter() - began < 10


def test_strict_reading_leaves_free_maps_alone():
    document = changed("records", 0, "configuration", value={"rank": 3, "deep": {"er": 1}})
    assert load_manifest(document, strict=True).manifest.records[0].configuration["rank"] == 3


def test_unknown_values_are_kept_and_warned_about():
    loaded = load_manifest(changed("records", 0, "group", value={"by": "patient", "key": "x"}))
    (warning,) = loaded.warnings
    assert warning.startswith("dfmeta.json: records[0].group.by: found 'patient'")
    assert json.loads(dump_manifest(loaded.manifest))["records"][0]["group"] == {"by": "patient", "key": "x"}


def test_a_later_version_is_refused_with_advice():
    with pytest.raises(UnsupportedVersion, match=r"format_version: found 2\.0, expected 1\.x\. Read it with"):
        load_manifest(changed("format_version", value="2.0"))
    with pytest.raises(UnsupportedVersion, match=r"found 'external-data'.*Update dfmeta"):
        load_manifest(changed("required_features", value=["external-data"]))


def test_untrusted_text_cannot_reach_a_terminal_raw():
    with pytest.raises(SchemaError) as caught:
        load_manifest(changed("files", 0, "id", value="\x1b[31m‮" + "x" * 500))
    assert "\x1b" not in str(caught.value)
    assert "‮" not in str(caught.value)
    assert len(caught.value.problems[0].found) < 80


def test_nodes_are_typed_strictly_and_frozen():
    draft = v1.File.draft("graph", "model.graph", "model.onnx")
    assert (draft.media_type, draft.size) == ("application/onnx", 0)
    with pytest.raises(ValidationError):
        draft.size = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        v1.File.draft("graph", "model.graph", "../model.onnx")


def test_preprocessing_stands_alone():
    operations = load_preprocessing(b'[{"op": "pad", "pixels": 2}, {"op": "zap", "a": null}]', "ops.json")
    assert operations[0] == v1.Pad(pixels=2)
    assert isinstance(operations[1], v1.UnknownOp)
    with pytest.raises(SchemaError, match=r"\[0\]\.scale: found no such member"):
        load_preprocessing(b'[{"op": "rescale"}]', "ops.json")


def places(node: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@settings(max_examples=150)
@given(st.sampled_from(places(FULL)[1:]), json_values)
def test_no_damage_to_a_manifest_raises_anything_but_our_errors(place, value):
    with contextlib.suppress(SchemaError, UnsupportedVersion):
        load_manifest(changed(*place, value=value))
