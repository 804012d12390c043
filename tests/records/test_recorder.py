"""What the recorder keeps, against a slow float64 pass over all the data at once; and what it refuses."""

from __future__ import annotations

from functools import partial
from threading import Barrier

import numpy as np
import pytest
import torch

from dfmeta.errors import DataError, GraphError, StepError
from dfmeta.graph import Graph, TorchGraph
from dfmeta.records import Gathered, Recorder, RecordPlan, find_sites, make_plan
from dfmeta.records.workers import Workers

EVERYTHING = ("top-layer", "all-layers", "spectral")
# onnxruntime computes the activations in float32: relative to the site's scale, they are off by a few 1e-6.
RTOL = 1e-4


@pytest.fixture(scope="module")
def data(digits):
    images, labels = digits
    return images[:600].numpy(), labels[:600].numpy()


@pytest.fixture(scope="module")
def plan(digits_teacher):
    """Every preset, and every site by channels too."""
    sites = find_sites(digits_teacher)["all"]
    by_channel = [RecordPlan(site, kind, True, "channel", {"rank": 4}) for site in sites for kind in ("moments",)]
    by_channel += [RecordPlan(site, "spectrum", True, "channel", {"rank": 1}) for site in sites]
    return (*make_plan(digits_teacher, EVERYTHING, rank=6), *by_channel)


def take(graph, plan, data, batch=100, **options):
    images, labels = data
    options = {"classes": 10, "threads": 1, **options}
    with Recorder(graph, plan, **options) as recorder:
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            recorder.update(images[part], labels[part])
    return recorder.finish()


@pytest.fixture(scope="module")
def recording(digits_teacher, plan, data):
    return take(digits_teacher, plan, data)


@pytest.fixture(scope="module")
def activations(digits_teacher, data):
    """Every site's values for all the data, in float64."""
    names = [site.value for site in find_sites(digits_teacher)["all"]]
    inputs = {"image": torch.from_numpy(data[0]).double()}
    with torch.no_grad():
        found = TorchGraph(digits_teacher).double().run(inputs, [name for name in names if name != "image"])
    return {name: values.numpy() for name, values in (found | inputs).items()}


def samples_of(taken, activations, labels):
    values, plan = activations[taken.plan.site.value], taken.plan
    if plan.features == "flattened":
        return values.reshape(len(values), -1), labels
    rows = np.moveaxis(values, plan.site.feature_axis, -1)
    positions = int(np.prod(rows.shape[1:-1]))
    return rows.reshape(-1, rows.shape[-1]), np.repeat(labels, positions)


def covariance_of(tensors):
    """What the kept pairs say."""
    return np.einsum(
        "...kd,...k,...ke->...de", tensors["eigenvectors"], tensors["eigenvalues"], tensors["eigenvectors"]
    )


def compare(kind, tensors, samples, units):
    """One group's tensors with the samples that went in."""
    mean, variance = samples.mean(0), samples.var(0)
    scale = np.sqrt((samples**2).mean())
    assert tensors["count"] == len(samples)
    np.testing.assert_allclose(tensors["mean"], mean, atol=RTOL * scale, rtol=0)
    if kind == "moments":
        np.testing.assert_allclose(tensors["var"], variance, atol=RTOL * scale**2, rtol=0)
        return
    centred = samples - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(samples))
    kept = min(len(tensors["eigenvalues"]), len(values), units // 10)
    values, vectors = values[::-1][:kept], vectors.T[::-1][:kept]
    np.testing.assert_allclose(tensors["eigenvalues"][:kept], values, atol=RTOL * values[0])
    assert not tensors["eigenvalues"][kept:].any()
    np.testing.assert_allclose(tensors["residual_trace"], variance.sum() - values.sum(), atol=RTOL * variance.sum())
    # The last pair may be as good as degenerate with the one that was cut off: what it spans is then arbitrary.
    gaps = values[:-1] - values[1:] > 1e-2 * values[0]
    clear = np.flatnonzero(gaps & np.r_[True, gaps[:-1]])
    overlap = np.abs((tensors["eigenvectors"][:kept] * vectors).sum(1))
    np.testing.assert_allclose(overlap[clear], 1, atol=1e-3)


def test_every_number_is_that_of_one_float64_pass(recording, activations, data):
    assert len(recording.records) >= 16
    for taken in recording.records:
        samples, labels = samples_of(taken, activations, data[1])
        assert taken.position_count == len(samples)
        assert taken.unit_count == 600
        if not taken.by_class:
            compare(taken.plan.kind, taken.tensors, samples, 600)
            continue
        for row in range(10):
            one = {name: values[row] for name, values in taken.tensors.items()}
            compare(taken.plan.kind, one, samples[labels == row], int((data[1] == row).sum()))


def test_the_batch_size_does_not_matter(recording, digits_teacher, plan, data):
    other = take(digits_teacher, plan, data, batch=7)
    assert (recording.batch_size, other.batch_size) == (100, 7)
    for one, two in zip(recording.records, other.records, strict=True):
        for name in set(one.tensors) - {"eigenvectors"}:
            scale = np.abs(one.tensors[name]).max()
            np.testing.assert_allclose(two.tensors[name], one.tensors[name], atol=1e-5 * scale, rtol=0)
        if "eigenvectors" in one.tensors:
            first = covariance_of(one.tensors)
            np.testing.assert_allclose(covariance_of(two.tensors), first, atol=1e-4 * np.abs(first).max())


def test_the_record_over_all_units_is_the_merge_of_the_classes(recording):
    pairs = [
        (one, two)
        for one in recording.records
        for two in recording.records
        if one.plan is two.plan and two.by_class and not one.by_class and one.plan.kind == "moments"
    ]
    assert len(pairs) >= 8
    for pooled, grouped in pairs:
        count = grouped.tensors["count"].astype(np.float64)
        mean, variance = (grouped.tensors[name].astype(np.float64) for name in ("mean", "var"))
        share = (count / count.sum())[:, None]
        expected = (share * mean).sum(0)
        assert pooled.tensors["count"] == count.sum()
        np.testing.assert_allclose(pooled.tensors["mean"], expected, atol=1e-5 * np.abs(mean).max())
        total = (share * (variance + (mean - expected) ** 2)).sum(0)
        np.testing.assert_allclose(pooled.tensors["var"], total, rtol=1e-4, atol=1e-6)


def test_without_classes_there_is_one_record_over_all_units(digits_teacher, recording, plan, data):
    with Recorder(digits_teacher, plan, threads=1) as recorder:
        recorder.update({"image": data[0]})
    alone = recorder.finish()
    assert not any(taken.by_class for taken in alone.records)
    pooled = [taken for taken in recording.records if not taken.by_class]
    for one, two in zip(alone.records, pooled, strict=True):
        np.testing.assert_allclose(one.tensors["mean"], two.tensors["mean"], atol=1e-5)


def test_a_recorder_that_was_closed_takes_no_more(digits_teacher, plan, data):
    with Recorder(digits_teacher, plan, classes=10, threads=1) as recorder:
        pass
    with pytest.raises(StepError, match="after it was closed"):
        recorder.update(*data)


LABELS = {
    # name: (labels for twenty units, part of the text)
    "missing": (None, "labels: found none"),
    "too-few": (np.zeros(19, np.int64), r"int64 \[19\].*integers \[20\]"),
    "two-axes": (np.zeros((20, 1), np.int64), r"\[20, 1\]"),
    "float": (np.zeros(20), "float64"),
    "too-large": (np.full(20, 10), r"10\.\.10, expected 0\.\.9"),
    "negative": (np.full(20, -1), r"-1\.\.-1"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_do_not_fit(digits_teacher, plan, data, name):
    labels, text = LABELS[name]
    with (
        Recorder(digits_teacher, plan, classes=10, threads=1) as recorder,
        pytest.raises(DataError, match=text),
    ):
        recorder.update(data[0][:20], labels)


def lonely(data, **kept):
    """Only the first few examples of the last classes: ``eight=7, nine=1`` unless told."""
    images, labels = data
    keep = np.ones(len(labels), bool)
    for row, count in ((8, kept.get("eight", 7)), (9, kept.get("nine", 1))):
        keep[np.flatnonzero(labels == row)[count:]] = False
    return images[keep], labels[keep]


def test_a_class_with_one_example_is_refused(digits_teacher, plan, data):
    with pytest.raises(DataError, match="class 9: found 1 units, expected at least 10") as caught:
        take(digits_teacher, plan, lonely(data, eight=20))
    assert "--suppress-small" in caught.value.fix


def test_withheld_classes_are_in_no_record(digits_teacher, plan, data):
    images, labels = lonely(data)
    withheld = take(digits_teacher, plan, (images, labels), suppress=True)
    assert withheld.suppression == "complementary"
    others = labels < 8
    assert withheld.unit_count == others.sum()
    without = take(digits_teacher, plan, (images[others], labels[others]), classes=8)
    for one, two in zip(withheld.records, without.records, strict=True):
        assert one.unit_count == two.unit_count == others.sum()
        assert one.position_count == two.position_count
        assert one.suppressed == ((8, 9) if one.by_class else ())
        for name in set(one.tensors) - {"eigenvectors"}:
            values = one.tensors[name]
            if one.by_class:
                assert not values[8:].any(), name
                values = values[:8]
            # What the pooled record says is what it says of the published classes alone.
            scale = np.abs(two.tensors[name]).max()
            np.testing.assert_allclose(values, two.tensors[name], atol=1e-5 * scale, rtol=0, err_msg=name)


def test_a_class_that_was_too_small_may_grow(digits_teacher, plan, data):
    images, labels = lonely(data)
    with Recorder(digits_teacher, plan, classes=10, suppress=True, threads=1) as recorder:
        recorder.update(images, labels)
        first = recorder.finish()
        rest = data[1] >= 8
        recorder.update(data[0][rest], data[1][rest])
        second = recorder.finish()
    assert (first.suppression, second.suppression) == ("complementary", "none")
    for taken in second.records:
        if taken.by_class and taken.plan.features == "flattened":
            np.testing.assert_array_equal(
                taken.tensors["count"][8:], [(data[1] == 8).sum() + 7, (data[1] == 9).sum() + 1]
            )


def test_no_class_large_enough(digits_teacher, plan, data):
    with pytest.raises(DataError, match="no class large enough"):
        take(digits_teacher, plan, (data[0][:40], data[1][:40]), suppress=True)


def test_too_little_data(digits_teacher, plan, data):
    with pytest.raises(DataError, match="9 units, expected at least 10"):
        take(digits_teacher, plan, (data[0][:9], data[1][:9]))


def test_a_number_that_is_not_finite_is_found_at_its_site(digits_teacher, data):
    model = type(digits_teacher.model)()
    model.CopyFrom(digits_teacher.model)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "4.bias")
    values = np.frombuffer(bias.raw_data, np.float32).copy()
    values[3] = np.inf
    bias.raw_data = values.tobytes()
    broken = Graph.from_bytes(model.SerializeToString(), "broken.onnx")
    second = find_sites(broken)["all"][2]
    with pytest.raises(StepError, match="NaN or infinity") as caught:
        take(broken, make_plan(broken, ["all-layers"]), data)
    assert second.label in caught.value.where
    assert second.value in caught.value.where


def test_several_inputs(build):
    graph = build.two()
    generator = np.random.default_rng(0)
    inputs = {name: generator.normal(size=(50, size)).astype(np.float32) for name, size in (("left", 3), ("right", 2))}
    plan = make_plan(graph, ["all-layers"])
    assert [entry.site.value for entry in plan] == ["left", "right", "a", "b", "y"]
    with Recorder(graph, plan, classes=4, threads=1) as recorder:
        recorder.update(inputs, np.arange(50) % 4)
    found = {taken.plan.site.value: taken for taken in recorder.finish().records if not taken.by_class}
    weights = graph.initializers
    expected = inputs["left"] @ weights["w1"] + inputs["right"] @ weights["w2"]
    np.testing.assert_allclose(found["y"].tensors["mean"], expected.mean(0), atol=1e-5)
    np.testing.assert_allclose(found["right"].tensors["var"], inputs["right"].var(0), atol=1e-5)


def test_several_inputs_that_do_not_fit(build):
    graph = build.two()
    left, right = np.zeros((20, 3), np.float32), np.zeros((1, 2), np.float32)
    with Recorder(graph, make_plan(graph, ["all-layers"]), threads=1) as recorder:
        with pytest.raises(DataError, match="left: 20, right: 1"):
            recorder.update({"left": left, "right": right})
        with pytest.raises(GraphError, match="right"):
            recorder.update({"left": left})


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_token_ids_are_recorded_inside(build, dtype):
    graph = build.tokens(dtype)
    plan = make_plan(graph, ["top-layer", "all-layers"])
    assert {entry.site.value for entry in plan} == {"hidden", "y"}
    ids = np.random.default_rng(0).integers(0, 30, (60, 5)).astype(dtype)
    with Recorder(graph, plan, classes=4, threads=1) as recorder:
        recorder.update(ids, np.arange(60) % 4)
    weights = graph.initializers
    hidden = weights["table"][ids].reshape(60, -1) @ weights["w1"]
    for taken in recorder.finish().records:
        if taken.plan.site.value == "hidden" and not taken.by_class:
            np.testing.assert_allclose(taken.tensors["mean"], hidden.mean(0), atol=1e-5)


def test_no_units_at_all(digits_teacher, plan, data):
    with Recorder(digits_teacher, plan, threads=1) as recorder:
        recorder.update(data[0][:20])
        with pytest.raises(DataError, match="a batch of 0 units"):
            recorder.update(data[0][:0])
    assert recorder.finish().unit_count == 20


def test_a_plan_that_would_not_fit_into_memory(digits_teacher):
    """Told before anything is reserved, with the ways out."""
    plan = make_plan(digits_teacher, ["spectral"])
    with pytest.raises(DataError, match=r"needs \d\d\d\.\d GB .*'spectrum' of 512 features") as caught:
        Recorder(digits_teacher, plan, classes=300_000, threads=1)
    for way in ("--no-classes", "--at", "--preset all-layers"):
        assert way in caught.value.fix
    with pytest.raises(DataError, match=r"at most 0\.0 GB"):
        Recorder(digits_teacher, plan, threads=1, memory_limit=1_000_000)
    Recorder(digits_teacher, plan, threads=1, memory_limit=10_000_000)


def test_a_small_class_says_what_can_be_done(digits_teacher, plan, data):
    with pytest.raises(DataError) as caught:
        take(digits_teacher, plan, lonely(data))
    for way in ("--limit", "--no-classes", "--suppress-small"):
        assert way in caught.value.fix


def test_threads_do_not_change_a_single_bit(plan):
    one, two = (Gathered(plan, classes=10) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    sites = {site.id: site for entry in plan for site in entry.sites}.values()
    before, workers = torch.get_num_threads(), Workers(2)
    torch.set_num_threads(1)
    try:
        for _ in range(2):
            group = torch.randint(0, 10, (60,), generator=generator)
            values = {site.id: torch.randn(60, *map(int, site.shape[1:]), generator=generator) for site in sites}
            one.update(values, group)
            two.update(values, group, workers)
    finally:
        torch.set_num_threads(before)
        workers.close()
    for name, array in one.state().items():
        np.testing.assert_array_equal(two.state()[name], array, err_msg=name, strict=True)


def test_a_batch_that_is_refused_leaves_no_trace(plan):
    gathered = Gathered(plan, classes=10)
    sites = {site.id: site for entry in plan for site in entry.sites}
    before = gathered.state()
    for bad in sites.values():
        values = {site.id: torch.ones(20, *map(int, site.shape[1:])) for site in sites.values()}
        values[bad.id].view(-1)[5] = torch.nan
        with pytest.raises(StepError, match="NaN or infinity") as caught:
            gathered.update(values, torch.arange(20) % 10)
        assert bad.label in str(caught.value)
    for name, array in gathered.state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize("count", [1, 3])
def test_workers_return_in_order_and_raise_the_first_error(count):
    before, workers = torch.get_num_threads(), Workers(count)
    done = []

    def piece(number):
        done.append(number)
        if number in (4, 6):
            raise ValueError(str(number))
        return number

    assert workers.run([partial(piece, number) for number in range(4)]) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="4"):
        workers.run([partial(piece, number) for number in range(9)])
    assert workers.run([]) == []
    assert torch.get_num_threads() == before
    workers.close()


def test_each_worker_keeps_torch_to_one_core():
    workers = Workers(2)
    together = Barrier(2)

    def piece():
        together.wait()
        return torch.get_num_threads()

    assert workers.run([piece, piece]) == [1, 1]
    workers.close()
