"""Shards and checkpoints: what they hold, how they add up, and everything that is refused."""

from __future__ import annotations

import hashlib
import json
import stat

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfmeta.bundle import parse_header, write_safetensors
from dfmeta.data import from_flags
from dfmeta.errors import BundleError, IntegrityError, MergeError, OutputExists, SchemaError
from dfmeta.pipeline import graph_inputs
from dfmeta.records import Gathered, RecordPlan, find_sites
from dfmeta.records.recorder import engine_words
from dfmeta.records.shard_checkpoint import Checkpoint
from dfmeta.records.shard_configuration import Configuration, kind_versions
from dfmeta.records.shard_portion import Portion, in_common, unit_digests
from dfmeta.records.shards import Part, Shard, merge_shards

UNITS, BATCH = 60, 10
KINDS = {"moments": {}, "spectrum": {"rank": 2}}


@pytest.fixture(scope="module")
def values():
    """Units whose mean is huge beside their spread: the worst case for sums."""
    return np.random.default_rng(3).normal(0, 1, (UNITS, 4)).astype(np.float32) + np.float32(1000)


@pytest.fixture(scope="module")
def graph(build):
    return build([("Gemm", "x w", "y")], {"x": ("float32", ["batch", 4])}, ("y", ["batch", 3]), {"w": (4, 3)})


@pytest.fixture(scope="module")
def configuration(graph):
    (site,) = find_sites(graph)["inputs"]
    plan = tuple(RecordPlan(site, kind, True, "flattened", own) for kind, own in KINDS.items())
    return Configuration(
        graph_sha256=graph.sha256,
        inputs=graph_inputs(graph, from_flags(scale=0.5)),
        plan=plan,
        kinds=kind_versions(plan),
        classes=3,
        label_names=("a", "b", "c"),
        batch_size=BATCH,
    )


def portion_of(configuration, values, batches):
    """The given batches, fed as a recorder feeds them."""
    portion = Portion(
        Gathered(configuration.plan, classes=configuration.classes, clip=configuration.clip), with_digests=True
    )
    (site,) = {entry.site.id for entry in configuration.plan}
    for number in batches:
        rows = slice(number * BATCH, (number + 1) * BATCH)
        classes = torch.arange(UNITS)[rows] % (configuration.classes or 1)
        portion.gathered.update({site: torch.from_numpy(values[rows])}, classes)
        portion.note({"x": values[rows]}, ["x"])
    return portion


@pytest.fixture
def write(configuration, graph, values, tmp_path):
    """``write(name, batches)``: a shard of those batches on the disk."""

    def make(name, batches, **changes):
        changed = configuration.model_copy(update=changes)
        portion = portion_of(changed, values, batches)
        part = Part(
            name=name,
            fingerprint=portion.fingerprint,
            units=portion.units,
            source="set",
            split=None,
            limit=None,
            seed=0,
            first_batch=min(batches),
            last_batch=max(batches) + 1,
            batches=UNITS // BATCH,
            engine=engine_words(None, "cpu"),
        )
        Shard(name, changed, (part,), portion, graph).write(tmp_path / name)
        return tmp_path / name

    return make


def same(one, two, tolerance):
    """Counts are equal; the rest is, within ``tolerance`` of the largest value of its array."""
    assert one.keys() == two.keys()
    for name, array in one.items():
        if array.dtype.kind in "iu":
            if name != "unit_digests":
                np.testing.assert_array_equal(two[name], array, err_msg=name)
        else:
            np.testing.assert_allclose(two[name], array, atol=tolerance * max(np.abs(array).max(), 1), err_msg=name)


def test_a_shard_is_read_as_it_was_written(write, configuration, values):
    path = write("north", range(6))
    shard = Shard.read(path)
    whole = portion_of(configuration, values, range(6))
    assert shard.configuration == configuration
    assert (shard.name, shard.parts[0].name, shard.portion.units) == ("north", "north", UNITS)
    same(whole.state(), shard.portion.state(), 0)
    np.testing.assert_array_equal(shard.portion.digests, whole.digests)
    assert (shard.portion.gathered.largest_batch, shard.graph.sha256) == (BATCH, configuration.graph_sha256)


def test_clipped_units_stay_apart_from_others(write):
    a, b = write("a", [0, 1], clip={"x": 0.5}), write("b", [2], clip={"x": 0.5})
    assert merge_shards([a, b]).portion.gathered.clip == {"x": 0.5}
    with pytest.raises(MergeError, match=r'clip: found null, expected \{"x": 0.5\}'):
        merge_shards([a, write("c", [3])])


def test_a_shard_is_for_its_owner_alone_and_says_so(write):
    path = write("north", [0])
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for file in path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    document = json.loads((path / "dfmeta-shard.json").read_text())
    assert document["format"] == "dfmeta-shard"
    assert "private" in document["notice"]
    assert "never part of a release" in document["notice"]
    assert not (path / "dfmeta.json").exists()


def test_its_state_is_a_strict_safetensors_file(write, configuration, values):
    raw = (write("north", range(6)) / "state.safetensors").read_bytes()
    header = parse_header(raw[8 : 8 + int.from_bytes(raw[:8], "little")], len(raw))
    state = portion_of(configuration, values, range(6)).state()
    assert set(header.tensors) == set(state)
    assert raw == write_safetensors(state, {"dfmeta": "private"})


def test_what_is_there_is_not_overwritten(write):
    write("north", [0])
    with pytest.raises(OutputExists):
        write("north", [1])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_grouping_gives_the_same(write, configuration, values, tmp_path_factory, data):
    """Flat and as a tree, in any order: one pass over everything, to 1e-9; counts exactly."""
    order = data.draw(st.permutations(range(6)))
    cuts = sorted(data.draw(st.sets(st.integers(1, 5), max_size=4)))
    groups = [order[a:b] for a, b in zip([0, *cuts], [*cuts, 6], strict=True)]
    salt = tmp_path_factory.mktemp("groups").name
    paths = [write(f"{salt}-{number}", group) for number, group in enumerate(groups)]
    whole = portion_of(configuration, values, range(6)).state()
    flat = merge_shards(data.draw(st.permutations(paths)))
    same(whole, flat.portion.state(), 1e-9)
    assert flat.portion.units == UNITS
    assert sorted(map(bytes, flat.portion.digests)) == sorted(map(bytes, whole["unit_digests"]))
    if len(paths) > 2:
        inner = merge_shards(paths[1:], name=f"{salt}-inner")
        inner.write(paths[0].parent / f"{salt}-inner")
        tree = merge_shards([paths[0].parent / f"{salt}-inner", paths[0]])
        same(whole, tree.portion.state(), 1e-9)
        assert len(tree.parts) == len(paths)


def test_the_order_of_the_arguments_changes_no_bit(write):
    paths = [write(name, batches) for name, batches in (("c", [0, 1]), ("a", [2]), ("b", [3, 4, 5]))]
    one, two = (merge_shards(each).portion for each in (paths, paths[::-1]))
    same(one.state(), two.state(), 0)
    np.testing.assert_array_equal(one.digests, two.digests)


def test_one_shard_is_its_own_sum(write, configuration, values):
    merged = merge_shards([write("alone", range(6))])
    same(portion_of(configuration, values, range(6)).state(), merged.portion.state(), 0)


DIFFERENCES = {
    "graph_sha256": "f" * 64,
    "inputs": None,
    "plan": None,
    "kinds": {"moments": 1, "spectrum": 7},
    "classes": 4,
    "label_names": ("a", "b", "d"),
    "batch_size": 11,
}
SAID = {
    "graph_sha256": (r"graph_sha256: found \"ffff", "same model file"),
    "inputs": (r"inputs\[0\].preprocessing\[0\].scale: found 0.25, expected 0.5", "same preprocessing"),
    "plan": (r"plan\[1\].configuration.rank: found 3, expected 2", "same options"),
    "kinds": (r"kinds.spectrum: found 7, expected 1", "same options"),
    "classes": (r"classes: found 4, expected 3", "with classes"),
    "label_names": (r"label_names\[2\]: found \"d\", expected \"c\"", "same options"),
    "batch_size": (r"batch_size: found 11, expected 10", "--batch-size"),
}


@pytest.mark.parametrize("member", DIFFERENCES)
def test_different_configurations_are_refused_with_both_values(write, configuration, graph, member):
    (first, second) = configuration.plan
    changed = {
        "inputs": tuple(graph_inputs(graph, from_flags(scale=0.25))),
        "plan": (first, RecordPlan(second.site, "spectrum", True, "flattened", {"rank": 3})),
    }
    paths = [write("a", [0]), write("b", [1], **{member: changed.get(member, DIFFERENCES[member])})]
    text, fix = SAID[member]
    with pytest.raises(MergeError, match=rf"b, {text}.*, as in .*a\.") as caught:
        merge_shards(paths)
    assert fix in caught.value.fix


def test_different_sites_are_refused(write, configuration):
    first, *rest = configuration.plan
    other = type(first.site)(**{name: getattr(first.site, name) for name in first.site.__slots__} | {"value": "z"})
    plan = (RecordPlan(other, "moments", True, "flattened", {}), *rest)
    with pytest.raises(MergeError, match=r'plan\[0\].site.value: found "z", expected "x"'):
        merge_shards([write("a", [0]), write("b", [1], plan=plan)])


def test_units_in_two_shards_are_counted_and_refused(write):
    paths = [write("a", [0, 1, 2]), write("b", [2, 3])]
    with pytest.raises(MergeError, match=r"b: found 10 of its 20 units in another shard too \(a\)") as caught:
        merge_shards(paths)
    assert "--allow-duplicates" in caught.value.fix
    assert merge_shards(paths, allow_duplicates=True).portion.units == 50


def test_duplicates_within_a_shard_are_fine(write):
    merged = merge_shards([write("a", [0, 0, 1]), write("b", [2])])
    assert merged.portion.units == 40


@pytest.mark.parametrize("allow", [False, True])
def test_a_part_that_is_given_twice_is_refused_whatever_is_allowed(write, tmp_path, allow):
    a, b = write("a", [0, 1]), write("b", [2])
    merge_shards([a, b], name="both").write(tmp_path / "both")
    for paths in ([a, a], [a, tmp_path / "both"]):
        with pytest.raises(MergeError, match="20 units of part 'a', which are all in"):
            merge_shards(paths, allow_duplicates=allow)


def test_digests_are_those_of_the_bytes_of_all_inputs():
    one = np.arange(6, dtype=np.float32).reshape(3, 2)
    two = np.arange(3, dtype=np.int64).reshape(3, 1)
    found = unit_digests({"two": two, "one": one}, ["one", "two"])
    for row in range(3):
        raw = one[row].tobytes() + two[row].tobytes()
        assert bytes(found[row]) == hashlib.blake2b(raw, digest_size=16).digest()


def test_digests_that_differ_in_their_last_byte_are_different():
    one = np.zeros((2, 16), np.uint8)
    two = np.zeros((3, 16), np.uint8)
    two[:, 15] = (1, 0, 2)
    assert in_common(one, two) == 2
    assert in_common(two, one) == 1
    assert in_common(two[[0, 2]], one) == 0
    assert in_common(one[:0], two) == 0


def test_published_records_do_not_merge_and_say_why(write, digits_bundle, tmp_path):
    with pytest.raises(MergeError, match=r"published records, which do not merge: .*spectrum.* truncated") as caught:
        merge_shards([write("a", [0]), digits_bundle])
    assert "--shard" in caught.value.fix
    manifest = json.loads((digits_bundle / "dfmeta.json").read_text())
    manifest["privacy"] |= {"suppression": "complementary", "differential_privacy": {"rho": 0.5}}
    (tmp_path / "noised").mkdir()
    noised = manifest | {"records": [entry | {"mergeable": False} for entry in manifest["records"]]}
    (tmp_path / "noised" / "dfmeta.json").write_text(json.dumps(noised))
    with pytest.raises(MergeError, match="noise was added to them, and small classes were suppressed"):
        merge_shards([tmp_path / "noised"])
    manifest["privacy"] |= {"suppression": "none", "differential_privacy": None}
    manifest["records"] = [entry for entry in manifest["records"] if entry["mergeable"]]
    (tmp_path / "noised" / "dfmeta.json").write_text(json.dumps(manifest))
    with pytest.raises(MergeError, match="rounded"):
        merge_shards([tmp_path / "noised"])


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


DAMAGE = {
    "state": (lambda path: flip(path / "state.safetensors"), IntegrityError, "state.safetensors: found sha256"),
    "graph": (lambda path: flip(path / "model.onnx"), IntegrityError, "model.onnx: found sha256"),
    "short": (lambda path: (path / "state.safetensors").write_bytes(b"123"), IntegrityError, "found 3 bytes"),
    "no-state": (lambda path: (path / "state.safetensors").unlink(), BundleError, "no such file"),
    "no-document": (lambda path: (path / "dfmeta-shard.json").unlink(), BundleError, "no such file.*a shard"),
    "no-json": (lambda path: (path / "dfmeta-shard.json").write_text("{"), SchemaError, "not-json"),
    "list": (lambda path: (path / "dfmeta-shard.json").write_text("[]"), SchemaError, "list of 0, expected an object"),
    "version": (lambda path: edit(path / "dfmeta-shard.json", lambda d: d.update(version=2)), SchemaError, "version"),
    "no-files": (lambda path: edit(path / "dfmeta-shard.json", lambda d: d.pop("files")), BundleError, "no size"),
    "changed": (
        lambda path: edit(path / "dfmeta-shard.json", lambda d: d["configuration"].update(batch_size=5)),
        IntegrityError,
        "a configuration that was changed",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_shard_is_refused(write, name):
    spoil, error, text = DAMAGE[name]
    path = write("a", [0])
    spoil(path)
    with pytest.raises(error, match=text):
        Shard.read(path)


def test_a_state_of_another_plan_is_refused(write, configuration):
    """Both are whole; only what they hold does not fit."""
    a, b = write("a", [0]), write("b", [1], plan=configuration.plan[:1])
    (a / "state.safetensors").write_bytes((b / "state.safetensors").read_bytes())
    pinned = json.loads((b / "dfmeta-shard.json").read_text())["files"]["state.safetensors"]
    edit(a / "dfmeta-shard.json", lambda document: document["files"].update({"state.safetensors": pinned}))
    with pytest.raises(BundleError, match="a state that does not fit its plan"):
        Shard.read(a)


def test_nothing_there(tmp_path):
    with pytest.raises(BundleError, match="no such file or directory"):
        merge_shards([tmp_path / "nowhere"])
    with pytest.raises(MergeError, match="no shard"):
        merge_shards([])


def test_a_disk_that_refuses_leaves_nothing(write, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BundleError, match=r"no space left on device.*Nothing was written"):
        write("a", [0])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def arrays():
    return {"a0000.mean": np.arange(3.0), "units": np.arange(2)}


def test_the_newest_checkpoint_that_is_whole_is_taken(tmp_path, arrays):
    keeper = Checkpoint(tmp_path / "ck", {"plan": (1, 2)})
    assert keeper.load() is None
    for batch in (1, 2, 3):
        keeper.save(batch, f"digest {batch}", {**arrays, "units": arrays["units"] + batch})
    saved = Checkpoint(tmp_path / "ck", {"plan": (1, 2)}).load()
    assert (saved.batch, saved.last) == (3, "digest 3")
    np.testing.assert_array_equal(saved.arrays["units"], [3, 4])
    newest = max(
        (tmp_path / "ck").iterdir(), key=lambda path: json.loads(next(path.glob("*.json")).read_text())["batch"]
    )
    flip(newest / "state.safetensors")
    again = Checkpoint(tmp_path / "ck", {"plan": (1, 2)})
    assert again.load().batch == 2
    again.save(7, "digest 7", arrays)
    assert Checkpoint(tmp_path / "ck", {"plan": (1, 2)}).load().batch == 7
    for slot in (tmp_path / "ck").iterdir():
        flip(slot / "state.safetensors")
    with pytest.raises(BundleError, match=r"a damaged checkpoint.*Remove the checkpoint"):
        Checkpoint(tmp_path / "ck", {"plan": (1, 2)}).load()


def test_the_checkpoint_of_other_work_is_refused(tmp_path, arrays):
    keeper = Checkpoint(tmp_path / "ck", {"graph_sha256": "aa", "data": {"units": 5}})
    keeper.load()
    keeper.save(1, "", arrays)
    with pytest.raises(MergeError, match='graph_sha256: found "aa", expected "bb"'):
        Checkpoint(tmp_path / "ck", {"graph_sha256": "bb", "data": {"units": 5}}).load()
    with pytest.raises(MergeError, match=r"data.units: found 5, expected 6"):
        Checkpoint(tmp_path / "ck", {"graph_sha256": "aa", "data": {"units": 6}}).load()


def test_checkpoints_take_little_of_the_time(tmp_path, arrays):
    now = [0.0]

    def clock():
        now[0] += 2
        return now[0]

    keeper = Checkpoint(tmp_path / "ck", {}, seconds=20, clock=clock)
    keeper.load()
    assert [keeper.due() for _ in range(10)] == [False] * 9 + [True]
    keeper.save(1, "", arrays)
    # It took 2 seconds, as this clock goes: the next one waits for 60.
    assert [keeper.due() for _ in range(30)] == [False] * 29 + [True]
    eager = Checkpoint(tmp_path / "eager", {}, seconds=0, clock=clock)
    eager.load()
    eager.save(1, "", arrays)
    assert eager.due()


def test_a_checkpoint_is_removed_with_nothing_else(tmp_path, arrays):
    keeper = Checkpoint(tmp_path / "ck", {})
    keeper.load()
    keeper.save(1, "", arrays)
    keeper.save(2, "", arrays)
    keeper.remove()
    assert not (tmp_path / "ck").exists()
    keeper.load()
    (tmp_path / "ck" / "mine").write_text("mine")
    keeper.save(1, "", arrays)
    keeper.remove()
    assert [path.name for path in (tmp_path / "ck").iterdir()] == ["mine"]


def test_a_checkpoint_that_cannot_be_made(tmp_path):
    with pytest.raises(BundleError, match="a folder for the checkpoint"):
        Checkpoint(tmp_path / "no" / "ck", {}).load()
