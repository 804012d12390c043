"""From shards to a release, end to end on the digits: the same as recording everything at once."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from dfmeta.bundle import Bundle
from dfmeta.data import from_flags
from dfmeta.errors import DataError, MergeError, OutputExists
from dfmeta.pipeline import Gathering, merge, merge_into_shard, record, record_shard, validate
from dfmeta.pipeline.merging import chosen
from dfmeta.pipeline.release import Release
from dfmeta.records import Gathered, make_plan

OPS = from_flags(1 / 255)
PRESETS = ("top-layer", "all-layers")
HOW = Gathering(presets=PRESETS, preprocessing=OPS)
NAMES = ("east", "north", "south")


@pytest.fixture(scope="module")
def parts(digits_teacher, tmp_path_factory):
    """The training digits in three shards, each of whole batches."""
    folder = tmp_path_factory.mktemp("parts")
    for number, name in enumerate(NAMES, 1):
        record_shard(digits_teacher, "digits:train", folder / name, name=name, gathering=HOW, part=(number, 3))
    return [folder / name for name in NAMES]


@pytest.fixture(scope="module")
def at_once(digits_teacher, tmp_path_factory):
    """A bundle of the same digits, and a shard of all of them."""
    folder = tmp_path_factory.mktemp("whole")
    record(digits_teacher, "digits:train", folder / "bundle", presets=PRESETS, preprocessing=OPS)
    record_shard(digits_teacher, "digits:train", folder / "shard", name="all", gathering=HOW)
    return folder


def sidecar(path):
    return load_file(path / "dfmeta" / "records.safetensors")


def state(path):
    return load_file(path / "state.safetensors")


def same_state(one, two, tolerance):
    """Counts are equal; the rest is, within ``tolerance`` of the largest value of its array."""
    assert one.keys() == two.keys()
    for name, array in one.items():
        if array.dtype.kind in "iu":
            np.testing.assert_array_equal(two[name], array, err_msg=name)
        else:
            np.testing.assert_allclose(two[name], array, rtol=0, atol=tolerance * np.abs(array).max(), err_msg=name)


def same_records(one, two, tolerance):
    assert one.keys() == two.keys()
    for name, array in one.items():
        if array.dtype.kind in "iu":
            np.testing.assert_array_equal(two[name], array, err_msg=name)
        elif not name.endswith("eigenvectors"):
            # What is left of a trace after its pairs is a difference of numbers of their size.
            values = one.get(name.replace("residual_trace", "eigenvalues"), array)
            scale = max(np.abs(array).max(), np.abs(values).max())
            np.testing.assert_allclose(two[name], array, rtol=0, atol=tolerance * scale, err_msg=name)


def test_the_sum_of_the_parts_is_the_whole(parts, at_once, tmp_path):
    released = merge(parts, tmp_path / "out", release=Release(name="reader"))
    assert validate(released.path, strict=True).valid
    assert (released.units, released.records) == (1442, 11)
    # float32 rounds what agrees to 1e-9 below.
    same_records(sidecar(at_once / "bundle"), sidecar(released.path), 1e-6)
    ours, theirs = (Bundle.open(path).manifest for path in (released.path, at_once / "bundle"))
    assert ours.model.name == "reader"
    for member in ("sites", "runs", "datasets", "privacy"):
        assert getattr(ours, member) == getattr(theirs, member)
    assert [entry.model_copy(update={"tensors": {}}) for entry in ours.records] == [
        entry.model_copy(update={"tensors": {}}) for entry in theirs.records
    ]
    assert ours.model.inputs == theirs.model.inputs
    assert ours.model.label_sets == theirs.model.label_sets


def test_every_grouping_of_the_parts_has_the_state_of_the_whole(parts, at_once, tmp_path):
    whole = state(at_once / "shard")
    merge_into_shard(parts, tmp_path / "flat", name="flat")
    same_state(whole, state(tmp_path / "flat"), 1e-9)
    for number, (one, two, three) in enumerate(itertools.permutations(parts)):
        merge_into_shard([one, two], tmp_path / f"inner-{number}", name="inner")
        written = merge_into_shard([three, tmp_path / f"inner-{number}"], tmp_path / f"tree-{number}", name="tree")
        assert (written.units, written.parts, written.name) == (1442, 3, "tree")
        tree = state(tmp_path / f"tree-{number}")
        tree["unit_digests"] = whole["unit_digests"]
        same_state(whole, tree, 1e-9)


def test_the_order_of_the_shards_changes_no_bit(parts, tmp_path):
    one, two = (merge(given, tmp_path / str(n)).path for n, given in enumerate((parts, parts[::-1])))
    assert numbers(one) == numbers(two)


def numbers(bundle):
    """The bytes of the tensors: the header before them holds the bundle's own random id."""
    raw = (bundle / "dfmeta" / "records.safetensors").read_bytes()
    return raw[8 + int.from_bytes(raw[:8], "little") :]


def test_a_preset_of_what_is_held_can_be_published_alone(parts, digits_teacher, tmp_path):
    alone = merge(parts, tmp_path / "alone", presets=["top-layer"])
    direct = record(digits_teacher, "digits:train", tmp_path / "direct", presets=["top-layer"], preprocessing=OPS)
    assert alone.records == direct.records
    same_records(sidecar(direct.path), sidecar(alone.path), 1e-6)
    with pytest.raises(MergeError, match=r"found no spectrum of .*, expected everything that spectral asks for"):
        merge(parts, tmp_path / "more", presets=["spectral"])
    assert not (tmp_path / "more").exists()


def test_no_more_is_published_than_the_presets_ask_for(digits_teacher):
    """Held by class for one preset, and asked for by another over all units only."""
    plan = make_plan(digits_teacher, ["all-layers"])
    gathered = Gathered(plan, classes=10)
    asked = [replace(entry, by_class=False) for entry in plan[1:]]
    part = chosen(gathered, asked, "another")
    assert part.plan == tuple(asked)
    assert part.accumulators == gathered.accumulators[1:]
    assert gathered.plan == tuple(plan)


def test_small_classes_are_judged_by_all_shards_together(digits_teacher, tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        x = generator.integers(0, 256, (60, 8, 8)).astype(np.uint8)
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(60) % 10)
        how = Gathering(presets=["top-layer"], preprocessing=OPS, limit=60)
        record_shard(digits_teacher, str(tmp_path / f"{name}.npz"), tmp_path / name, name=name, gathering=how)
    with pytest.raises(DataError, match="class 0: found 6 units"):
        merge([tmp_path / "a"], tmp_path / "alone")
    assert not (tmp_path / "alone").exists()
    released = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert released.units == 120
    assert Bundle.open(released.path).manifest.runs[0].limit == 120


def test_data_that_overlaps_is_refused(parts, digits_teacher, tmp_path):
    record_shard(digits_teacher, "digits:train", tmp_path / "west", name="west", gathering=HOW, part=(2, 2))
    with pytest.raises(MergeError, match="674 of its 674 units in another shard too"):
        merge([*parts, tmp_path / "west"], tmp_path / "out")
    assert merge([*parts, tmp_path / "west"], tmp_path / "out", allow_duplicates=True).units == 1442 + 674


def test_the_model_of_another_training_is_refused(parts, linear, tmp_path):
    how = Gathering(presets=["top-layer"], preprocessing=OPS)
    record_shard(linear((1, 8, 8), (10,)), "digits:train", tmp_path / "other", name="other", gathering=how)
    with pytest.raises(MergeError, match="graph_sha256: found "):
        merge([*parts, tmp_path / "other"], tmp_path / "out")


def test_what_is_there_is_not_overwritten(parts, digits_teacher, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExists):
        merge(parts, tmp_path / "out")
    with pytest.raises(OutputExists):
        merge_into_shard(parts, tmp_path / "out", name="a")
    with pytest.raises(OutputExists):
        record_shard(digits_teacher, "digits:train", tmp_path / "out", name="a", gathering=HOW)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("part", [(0, 3), (4, 3), (1, 0)])
def test_a_part_that_there_is_not(digits_teacher, tmp_path, part):
    with pytest.raises(DataError, match="I/N"):
        record_shard(digits_teacher, "digits:train", tmp_path / "s", name="s", gathering=HOW, part=part)


def test_more_parts_than_batches(digits_teacher, tmp_path):
    with pytest.raises(DataError, match="no batch of 6 for part 1/9"):
        record_shard(digits_teacher, "digits:train", tmp_path / "s", name="s", gathering=HOW, part=(1, 9))


def test_noise_for_shards_of_a_draw_is_refused(digits_teacher, tmp_path):
    gathering = replace(HOW, presets=("all-layers",), clip=1.5, limit=600)
    record_shard(digits_teacher, "digits:train", tmp_path / "s", name="s", gathering=gathering)
    with pytest.raises(DataError, match="found --limit 600"):
        merge([tmp_path / "s"], tmp_path / "out", dp_rho=0.5)
    assert not (tmp_path / "out").exists()


def test_progress_is_told(parts, tmp_path):
    told = []
    merge(parts, tmp_path / "out", progress=lambda *facts: told.append(facts))
    assert told == [("merge", done, 3, 0.0) for done in (1, 2, 3)]


def compare_engines(graph, at_once, folder, **options):
    """Records of another engine beside those of onnxruntime on the CPU."""
    record(graph, "digits:train", folder / "out", presets=PRESETS, preprocessing=OPS, **options)
    same_records(sidecar(at_once / "bundle"), sidecar(folder / "out"), 1e-4)
    return Bundle.open(folder / "out").manifest.runs[0].engine


def test_the_torch_engine_agrees(digits_teacher, at_once, tmp_path):
    engine = compare_engines(digits_teacher, at_once, tmp_path, engine="torch")
    assert (engine.name, engine.version, engine.provider) == ("torch", str(torch.__version__), "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_agrees_with_the_cpu(digits_teacher, at_once, tmp_path):
    engine = compare_engines(digits_teacher, at_once, tmp_path, device="cuda")
    assert (engine.name, engine.provider) == ("torch", "cuda")


def test_shards_of_two_engines_add_up(parts, at_once, digits_teacher, tmp_path):
    how = Gathering(presets=PRESETS, preprocessing=OPS, engine="torch")
    record_shard(digits_teacher, "digits:train", tmp_path / "t", name="t", gathering=how, part=(3, 3))
    released = merge([*parts[:2], tmp_path / "t"], tmp_path / "out")
    same_records(sidecar(at_once / "bundle"), sidecar(released.path), 1e-4)
    assert Bundle.open(released.path).manifest.runs[0].engine.name == "onnxruntime, torch"


DEVICES = {
    "unknown": ({"device": "tpu"}, "'tpu', expected cpu, cuda"),
    "not-there": ({"device": "cuda:99"}, "cuda:99"),
    "no-engine": ({"device": "cuda", "engine": "onnxruntime"}, "cuda"),
}


@pytest.mark.parametrize("name", DEVICES)
def test_devices_that_are_not_there(digits_teacher, tmp_path, name):
    options, text = DEVICES[name]
    with pytest.raises(DataError, match=text):
        record(digits_teacher, "digits:train", tmp_path / "out", preprocessing=OPS, **options)
