"""What a plan will take, against what it does take; and plans that are made to fit."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.bundle import Bundle
from dfmeta.errors import DataError
from dfmeta.graph import Graph
from dfmeta.kinds.second_moment import geometry
from dfmeta.pipeline import graph_inputs, publish
from dfmeta.pipeline.release import Release
from dfmeta.records import Gathered, Recorder, make_plan
from dfmeta.records.budget import FORMS, STORAGES, fit_bytes, fit_gathered, parse_bytes
from dfmeta.records.plan import gathering_bytes, peak_bytes, planned_bytes, planned_records, record_bytes
from dfmeta.records.publication import publication

PRESETS = ("top-layer", "all-layers", "spectral-pairs", "calibration")
CLASSES = 10


@pytest.fixture(scope="module")
def small(build) -> Graph:
    """Few features, so that reading spectra out takes no time: [2, 6, 6] to [4, 4, 4] to [3, 4, 4] to 10 classes."""
    nodes = [
        ("Conv", "x w", "c"),
        ("Relu", "c", "r"),
        ("Conv", "r u", "d"),
        ("Flatten", "d", "f"),
        ("Gemm", "f v", "y"),
    ]
    weights = {"w": (4, 2, 3, 3), "u": (3, 4, 1, 1), "v": (48, 10)}
    return build(nodes, {"x": ("float32", ["batch", 2, 6, 6])}, ("y", ["batch", 10]), weights)


def recorder_of(graph, plan, classes=CLASSES):
    """A recorder that has seen 300 units of noise."""
    values = np.random.default_rng(0).normal(size=(300, 2, 6, 6)).astype(np.float32)
    with Recorder(graph, plan, classes=classes, threads=1) as recorder:
        recorder.update(values, np.arange(300) % CLASSES)
    return recorder


@pytest.fixture(scope="module")
def digits_graph(repository: Path) -> Graph:
    return Graph.from_file(repository / "examples" / "digits-cnn.onnx")


def everything(graph, **options):
    return make_plan(graph, PRESETS, classes=CLASSES, **options)


def chain(plan, **options):
    """Every plan that some budget gives, with its size: from the best down to the least."""
    found, size = [(plan, planned_bytes(plan, CLASSES))], planned_bytes(plan, CLASSES)
    while True:
        try:
            # From the last one on, or a plan of many steps would be made over and over.
            plan = fit_bytes(plan, CLASSES, size - 1, **options)
        except DataError:
            return found
        size = planned_bytes(plan, CLASSES)
        found.append((plan, size))


def configurations(plan, kind):
    return [entry.configuration for entry in plan if entry.kind == kind]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("500000", 500_000),
        ("1", 1),
        ("500kB", 500_000),
        ("500 KB", 500_000),
        ("2MB", 2_000_000),
        ("1.5GB", 1_500_000_000),
        ("64KiB", 65_536),
        ("2 MiB", 2_097_152),
        ("0.5GiB", 536_870_912),
        (" 7B ", 7),
        ("1.9B", 1),
    ],
)
def test_numbers_of_bytes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", "0", "0.4", "-5", "1e6", "2 TB", "kB", "1.5.2MB", "١MB", "5 k B", "inf", "9" * 40]
)
def test_texts_that_are_no_number_of_bytes(text):
    with pytest.raises(DataError, match=r"a number of bytes above 0, such as 500000, 500kB, 1\.5MB or 2MiB"):
        parse_bytes(text)


@pytest.fixture(scope="module")
def written(small, tmp_path_factory):
    """The plan of every preset with an odd assortment of qualities, and the bundle that it became."""
    best = everything(small, rank=5)
    plan = fit_bytes(best, CLASSES, planned_bytes(best, CLASSES) - 4_000)
    out = tmp_path_factory.mktemp("planned") / "bundle"
    recording = recorder_of(small, plan).finish()
    publish(out, small, recording, inputs=graph_inputs(small), release=Release(), classes=CLASSES)
    return plan, Bundle.open(out)


def test_planned_sizes_are_those_of_the_file(written):
    plan, bundle = written
    planned = [tensors for entry in plan for tensors in planned_records(entry, CLASSES)]
    records = bundle.manifest.records
    assert len(planned) == len(records)
    for record, tensors in zip(records, planned, strict=True):
        found = bundle.record_tensors(record.id)
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype.name == tensor.dtype, (record.kind, name)
            assert found[name].shape == tensor.shape or not tensor.exact, (record.kind, name)
            assert found[name].nbytes == tensor.bytes or not tensor.exact
    assert {record.kind for record, tensors in zip(records, planned, strict=True) if not all_exact(tensors)} == {
        "histogram"
    }


def all_exact(tensors):
    return all(tensor.exact for tensor in tensors.values())


@pytest.mark.parametrize("presets", [["all-layers"], ["top-layer", "spectral"], ["spectral-pairs"]])
@pytest.mark.parametrize("classes", [CLASSES, None])
def test_the_planned_sidecar_is_the_file_to_the_byte(small, tmp_path, presets, classes):
    plan = make_plan(small, presets, rank=7, classes=classes)
    recording = recorder_of(small, plan, classes).finish()
    options = {"inputs": graph_inputs(small), "release": Release(), "classes": classes}
    published = publish(tmp_path / "bundle", small, recording, **options)
    assert planned_bytes(plan, classes) == published.record_bytes


def test_typical_lengths_come_close(written):
    """Fixed records to the byte, histograms by what is typical of them: the whole is then within a fifth."""
    plan, bundle = written
    (size,) = [file.size for file in bundle.manifest.files if file.role == "records"]
    assert planned_bytes(plan, CLASSES) == pytest.approx(size, rel=0.2)


def test_memory_is_what_the_recorder_holds_and_refuses(digits_graph):
    plan = everything(digits_graph)
    peak = peak_bytes(plan, CLASSES)
    gathered = Gathered(plan, classes=CLASSES, memory_limit=peak)
    for entry, accumulator in zip(plan, gathered.accumulators, strict=True):
        held = sum(array.nbytes for array in accumulator.state().values())
        # What a batch adds is as large, and is held where it is looked at before any of it is taken in.
        held *= 2 if hasattr(accumulator, "reduced") else 1
        assert held <= gathering_bytes(entry, CLASSES) <= 1.1 * held + 64, entry.kind
    with pytest.raises(DataError, match="memory"):
        Gathered(plan, classes=CLASSES, memory_limit=peak - 1)


@pytest.mark.parametrize("network", ["digits_graph", "lenet", "resnet"])
def test_every_plan_on_the_way_down(network, request):
    """It fits, more bytes never give less, and what fits stays as it is."""
    plan = everything(request.getfixturevalue(network))
    plans = chain(plan)
    sizes = [size for _, size in plans]
    assert len(plans) > 30
    assert all(later < earlier for earlier, later in itertools.pairwise(sizes))
    for fitted, size in plans[:: max(len(plans) // 12, 1)]:
        assert fit_bytes(plan, CLASSES, size) == fitted
        assert fit_bytes(fitted, CLASSES, size) == fitted
    least = sizes[-1]
    with pytest.raises(DataError, match=rf"budget: found {least - 1} bytes, expected at least {least}, "):
        fit_bytes(plan, CLASSES, least - 1)


@given(st.lists(st.integers(0, 30_000_000), min_size=2, max_size=5))
@settings(max_examples=10, deadline=None)
def test_more_bytes_never_give_a_smaller_plan(lenet_plan, budgets):
    sizes = []
    for budget in sorted(budgets):
        try:
            fitted = fit_bytes(lenet_plan, CLASSES, budget)
        except DataError:
            assert not sizes, "less was enough"
            continue
        sizes.append(planned_bytes(fitted, CLASSES))
        assert sizes[-1] <= budget
        assert fit_bytes(fitted, CLASSES, budget) == fitted
    assert sizes == sorted(sizes)


@pytest.fixture(scope="module")
def lenet_plan(lenet):
    return everything(lenet)


def test_what_is_worth_least_goes_first(resnet):
    """Storage, then full forms, then pairs of spectra, then lags, then all but the diagonal; nothing else changes."""
    best = make_plan(resnet, PRESETS, classes=CLASSES, form="full")
    start = dict(enumerate(best))
    for plan, _ in chain(best):
        moments = configurations(plan, "second-moment")
        storages = {STORAGES.index(entry["storage"]) for entry in moments if entry["form"] != "diagonal"}
        lags = [entry["form"] for entry in moments if np.prod(entry.get("kernel", ())) > 1]
        ranks = [
            (entry.configuration["rank"], start[index].configuration["rank"])
            for index, entry in enumerate(plan)
            if "rank" in entry.configuration
        ]
        fewer = any(rank < before for rank, before in ranks)
        if any(form != "full" for form in lags):
            assert storages <= {len(STORAGES) - 1}
        if fewer:
            assert "full" not in lags
        if {"kronecker", "diagonal"} & set(lags):
            assert {rank for rank, _ in ranks} == {1}
        if "diagonal" in lags:
            assert set(lags) <= {"kronecker", "diagonal"}
        # One rank for all that have more, so that no site is favoured.
        assert len({rank for rank, before in ranks if rank < before}) <= 1
    # At 8 bits, a small kronecker record is smaller still than its diagonal in float32.
    assert {entry["form"] for entry in moments if "kernel" not in entry} == {"diagonal"}
    assert set(lags) <= {"kronecker", "diagonal"}


def test_what_was_asked_for_stays(resnet):
    best = make_plan(resnet, ["calibration"], form="full")
    for plan, _ in chain(best, keep_form=True):
        assert {entry["form"] for entry in configurations(plan, "second-moment")} == {"full"}
    for plan, _ in chain(best, keep_storage=True):
        assert {entry["storage"] for entry in configurations(plan, "second-moment")} == {"float32"}
    size = planned_bytes(best, CLASSES)
    asked = make_plan(resnet, ["calibration"], form="full", budget_bytes=size // 2, classes=CLASSES)
    assert {entry["form"] for entry in configurations(asked, "second-moment")} == {"full"}
    with pytest.raises(DataError, match="budget: found 100000 bytes"):
        make_plan(resnet, ["calibration"], form="full", budget_bytes=100_000, classes=CLASSES)


def test_a_budget_that_nothing_can_be_given_up_for(lenet):
    plan = make_plan(lenet, ["all-layers"], classes=CLASSES)
    size = planned_bytes(plan, CLASSES)
    assert fit_bytes(plan, CLASSES, size) == plan
    with pytest.raises(DataError, match=rf"at least {size}, which the smallest plan .*\(--at\).*\(--preset\)"):
        fit_bytes(plan, CLASSES, size - 1)


def test_what_was_gathered_is_read_out_to_fit(small):
    """As in a merge of shards: less of the same sums, which stay as they are; forms cannot change any more."""
    plan = everything(small, rank=6)
    gathered = recorder_of(small, plan).gathered
    whole, before = publication(gathered), gathered.state()
    best, least = planned_bytes(plan, CLASSES), chain(plan, keep_form=True)[-1][1]
    assert fit_gathered(gathered, best).accumulators == gathered.accumulators
    part = publication(fit_gathered(gathered, least))
    assert {p.configuration["form"] for p in part_of(part, "second-moment")} == {"toeplitz", "full"}
    assert "float32" not in {p.configuration["storage"] for p in part_of(part, "second-moment")}
    for small, large in zip(part.records, whole.records, strict=True):
        if small.plan.kind == "spectrum":
            axis = 1 if small.by_class else 0
            np.testing.assert_array_equal(small.tensors["eigenvalues"], large.tensors["eigenvalues"].take([0], axis))
        np.testing.assert_array_equal(small.tensors["count"], large.tensors["count"])
    assert all(np.array_equal(array, before[name]) for name, array in gathered.state().items())
    with pytest.raises(DataError, match=f"at least {least}"):
        fit_gathered(gathered, least - 1)


def part_of(recording, kind):
    return [record.plan for record in recording.records if record.plan.kind == kind]


def test_record_bytes_are_the_sidecar_without_its_header(lenet_plan):
    numbers = sum(record_bytes(entry, CLASSES) for entry in lenet_plan)
    assert numbers < planned_bytes(lenet_plan, CLASSES) < numbers + 300 * 5 * len(lenet_plan)


def test_forms_and_storages_are_those_of_the_kind():
    assert (geometry.FORMS, geometry.STORAGES) == (FORMS, STORAGES)
