"""What each variant of `lopes` promises beyond the contract."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dfmeta.bundle import Bundle
from dfmeta.data import from_flags
from dfmeta.errors import Diverged, StepError
from dfmeta.graph import Graph, TorchGraph
from dfmeta.pipeline import graph_inputs, make_task, publish
from dfmeta.pipeline.release import Release
from dfmeta.records import PublishedRecords, Recorder, make_plan
from dfmeta.synthesis import build
from dfmeta.synthesis._lopes_targets import Channels, Deviations, draw

DRAWS = 20_000


def recorded(digits, graph, presets, out, **choices):
    """Seed to task, of a bundle of the digits with these presets."""
    images, labels = digits
    with Recorder(graph, make_plan(graph, presets, **choices), classes=10, threads=1) as recorder:
        recorder.update(images.numpy(), labels.numpy())
    inputs = graph_inputs(graph, from_flags(1 / 255))
    publish(out, graph, recorder.finish(), inputs=inputs, release=Release(), classes=10)
    bundle = Bundle.open(out)
    return lambda seed: make_task(bundle, graph, seed)


@pytest.fixture(scope="module")
def channel_task(digits, digits_teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("channels") / "bundle"
    return recorded(digits, digits_teacher, ("all-layers", "spectral"), out, features="channel")


@pytest.fixture(scope="module")
def logits(digits, digits_teacher):
    """The teacher's own, and the labels."""
    with torch.no_grad():
        return TorchGraph(digits_teacher)(digits[0]).double(), digits[1]


def without(task, drop):
    """The task with the records for which ``drop`` holds left out."""
    return dataclasses.replace(task, records=PublishedRecords(tuple(e for e in task.records if not drop(e))))


def targets_of(method, task):
    return build(method, task)._goals.targets


def drawn(target, task, label, count=DRAWS):
    labels = torch.full((count,), label)
    return target.colour(task.normal(count, target.width), labels).double()


# --- what targets are drawn from


@pytest.mark.parametrize("label", [0, 3, 8])
def test_the_output_has_the_covariance_of_the_class(image_task, logits, label):
    """The covariance itself: 20,000 draws estimate it to 1 % of its scale, its square is far away."""
    task = image_task(0)
    (target,) = targets_of("lopes:top-layer", task)
    found = drawn(target, task, label)
    real = logits[0][logits[1] == label]
    wanted = torch.cov(real.T, correction=0)
    scale = float(wanted.diagonal().max())
    assert float((torch.cov(found.T, correction=0) - wanted).abs().max()) / scale < 0.05
    assert float((wanted @ wanted - wanted).abs().max()) / scale > 0.5
    torch.testing.assert_close(found.mean(0), real.mean(0), atol=0.05 * scale**0.5, rtol=0)


@pytest.mark.parametrize("method", ["lopes:top-layer", "lopes:all-layers"])
def test_deviations_alone_where_no_spectrum_is_used(image_task, logits, method):
    task = image_task(0)
    task = without(task, lambda e: e.kind == "spectrum") if method == "lopes:top-layer" else task
    target = targets_of(method, task)[-1]
    assert isinstance(target, Deviations)
    found = torch.cov(drawn(target, task, 3).T, correction=0)
    variance = logits[0][logits[1] == 3].var(0, unbiased=False)
    torch.testing.assert_close(found.diagonal(), variance, rtol=0.05, atol=0)
    assert float((found - found.diagonal().diag()).abs().max()) < 0.05 * float(variance.max())


def test_all_layers_makes_the_same_whether_there_are_spectra_or_not(image_task):
    settings = {"images": "20", "iterations": "3"}
    found = []
    for task in (image_task(0), without(image_task(0), lambda e: e.kind == "spectrum")):
        made = build("lopes:all-layers", task, settings)
        made.advance()
        found.append(made.sample(20)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("method", ["lopes:all-layers", "lopes:spectral", "lopes:spectral-pairs"])
def test_targets_have_the_whole_variance(image_task, method):
    """Hidden sites keep a few of hundreds of directions; what is left over is spread over the others."""
    task = image_task(0)
    targets = targets_of(method, task)
    assert [target.statistic.value for target in targets] == ["conv2d", "conv2d_1", "logits"]
    goals = draw(task, targets, torch.full((2000,), 4))
    for name, goal in goals.items():
        moments = task.records.of(name, "moments", by_class=True).tensors
        assert float(goal.double().var(0).sum()) == pytest.approx(float(moments["var"][4].sum()), rel=0.05)
        wanted = moments["mean"][4]
        assert float((goal.mean(0) - wanted).abs().max()) < 0.15 * float(moments["var"][4].max().sqrt())


def covariance(samples, others=None):
    centred = samples - samples.mean(0)
    others = samples if others is None else others
    return centred.T @ (others - others.mean(0)) / len(samples)


def test_draws_of_neighbours_vary_together(image_task):
    """From draws, through the whole chain: logits beside the layer before, in units of what was recorded."""
    task = image_task(0)
    targets = targets_of("lopes:spectral-pairs", task)
    assert [target.coupled[0] if target.coupled else None for target in targets] == [None, "conv2d", "conv2d_1"]
    pair = next(e for e in task.records if e.kind == "cross-spectrum" and e.by_class and e.paired_value == "logits")
    labels = torch.full((DRAWS // 4,), 4)
    goals = {name: goal.double() for name, goal in draw(task, targets, labels).items()}
    found = covariance(goals["conv2d_1"], goals["logits"])
    left, right, values = (pair.tensors[name][4].double() for name in ("left", "right", "singular_values"))
    along = (left @ found @ right.T).diagonal()[:3]
    # The record of the layer before is cut, so that some correlations are capped; most of each value must be there.
    assert ((along / values[:3] > 0.5) & (along / values[:3] < 1.1)).all()
    apart = draw(task, targets_of("lopes:spectral", task), labels)
    alone = left @ covariance(apart["conv2d_1"].double(), apart["logits"].double()) @ right.T
    assert float((alone.diagonal()[:3] / values[:3]).abs().max()) < 0.1


# --- sites recorded by channel


@pytest.mark.parametrize("method", ["lopes:all-layers", "lopes:spectral"])
def test_sites_by_channel_are_met_over_the_positions_of_an_image(channel_task, digits, method):
    task = channel_task(0)
    target = targets_of(method, task)[0]
    assert isinstance(target, Channels)
    labels = digits[1][:6]
    with torch.no_grad():
        value = task.values(digits[0][:6], ["conv2d"])["conv2d"]
        found = target.error(value, labels, torch.empty(6, 0), True)
    parts = {name: tensor.double() for name, tensor in target.statistic.tensors.items()}
    for image, label, error in zip(value.double(), labels.tolist(), found.double(), strict=True):
        centred = image.flatten(1).T - parts["mean"][label]
        if method == "lopes:spectral":
            centred, variance = centred @ parts["eigenvectors"][label].T, parts["eigenvalues"][label]
        else:
            variance = parts["var"][label]
        mean, deviation = centred.mean(0), ((centred - centred.mean(0)).square().mean(0)).sqrt()
        wanted = (mean.square() + (deviation - variance.sqrt()).square()).mean() / variance.mean()
        assert float(error) == pytest.approx(float(wanted), rel=1e-3)


def test_records_by_channel_serve_every_variant_that_needs_no_pairs(channel_task):
    for method in ("lopes:all-layers", "lopes:all-layers-dropout", "lopes:spectral"):
        made = build(method, channel_task(0), {"images": "20", "iterations": "3"})
        assert made.advance() < 1e3


# --- reconstruction


def test_it_reaches_its_targets(image_task):
    """More descent leaves less error, and the teacher sees the class that was asked for."""
    losses = {}
    for iterations in ("2", "60"):
        settings = {"images": "60", "batch": "60", "iterations": iterations}
        task = image_task(0)
        made = build("lopes:top-layer", task, settings)
        losses[iterations] = made.advance()
    assert losses["60"] < 0.3 * losses["2"]
    inputs, labels = made.sample(200)
    with torch.no_grad():
        assert (task.teacher(inputs).argmax(1) == labels).float().mean() > 0.9


def distance(task, inputs, labels, kind):
    """Mean distance from the records of each class of a kind, hidden sites and output."""
    entries = [e for e in task.records if e.by_class and e.kind == kind and task.input_name not in e.values]
    with torch.no_grad():
        values = task.values(inputs, list({name: None for entry in entries for name in entry.values}))
        return float(torch.stack([entry.distance(values, labels) for entry in entries]).mean())


def test_each_variant_comes_nearest_to_the_records_that_it_uses(image_task):
    found = {}
    for variant in ("all-layers", "spectral", "spectral-pairs"):
        task = image_task(0)
        made = build(f"lopes:{variant}", task, {"images": "100", "batch": "100", "iterations": "25"})
        made.advance()
        kept = made._inputs[0], made._labels[0]
        found[variant] = [distance(task, *kept, kind) for kind in ("spectrum", "cross-spectrum")]
    assert found["spectral"][0] < 0.5 * found["all-layers"][0]
    assert found["spectral-pairs"][1] < 0.5 * found["spectral"][1]


def test_together_is_a_share_of_the_loss(image_task):
    settings = {"images": "50", "batch": "50", "iterations": "1"}
    given = [{**settings, "together": share} for share in ("0", "0.25", "1")]
    found = [build("lopes:spectral", image_task(0), settings).advance() for settings in given]
    assert found[1] == pytest.approx(0.75 * found[0] + 0.25 * found[2], rel=1e-5)


# --- what it refuses


@pytest.mark.parametrize(
    ("method", "kind", "preset"),
    [
        ("top-layer", "moments", "top-layer"),
        ("all-layers", "moments", "all-layers"),
        ("all-layers-dropout", "moments", "all-layers"),
        ("spectral", "spectrum", "spectral"),
        ("spectral-pairs", "spectrum", "spectral-pairs"),
        ("spectral-pairs", "cross-spectrum", "spectral-pairs"),
    ],
)
@pytest.mark.parametrize("left", ["none", "of all units"])
def test_a_missing_record_names_the_preset(image_task, method, kind, preset, left):
    def drop(entry):
        of_output = method == "top-layer" and entry.kind == "spectrum"
        return (entry.kind == kind or of_output) and (left == "none" or entry.by_class)

    with pytest.raises(StepError, match=f"no '{kind}' of each class.*preset '{preset}'"):
        build(f"lopes:{method}", without(image_task(0), drop))


@pytest.mark.parametrize(("method", "kind"), [("all-layers", "moments"), ("spectral", "spectrum")])
def test_records_of_the_output_alone_are_not_all_layers(image_task, method, kind):
    bare = without(image_task(0), lambda e: e.value != "logits")
    with pytest.raises(StepError, match=f"records of hidden sites: found no '{kind}' of each class.*'{method}'"):
        build(f"lopes:{method}", bare)


def test_pairs_with_the_input_alone_are_not_enough(image_task):
    bare = without(image_task(0), lambda e: e.kind == "cross-spectrum" and e.value != "image")
    with pytest.raises(StepError, match="'spectral-pairs'"):
        build("lopes:spectral-pairs", bare)


@pytest.mark.parametrize("variant", ["top-layer", "all-layers", "spectral", "spectral-pairs"])
def test_withheld_classes_are_not_made(image_task, variant):
    def withheld(task, rows):
        kept = []
        for entry in task.records:
            tensors = {name: tensor.clone() for name, tensor in entry.tensors.items()}
            for tensor in tensors.values() if entry.by_class else ():
                tensor[rows] = 0
            kept.append(dataclasses.replace(entry, tensors=tensors))
        return dataclasses.replace(task, records=PublishedRecords(tuple(kept)))

    made = build(f"lopes:{variant}", withheld(image_task(0), [2, 5]), {"images": "40", "iterations": "2"})
    assert made.advance() < 1e4
    assert set(made.sample(400)[1].tolist()) == set(range(10)) - {2, 5}
    with pytest.raises(StepError, match="no class that was published"):
        build(f"lopes:{variant}", withheld(image_task(0), list(range(10))))


@pytest.mark.parametrize("lr", ["1e30", "1e300"])
def test_a_loss_that_is_not_finite_names_the_step(vector_task, lr):
    made = build("lopes:spectral", vector_task(0), {"images": "20", "iterations": "9", "lr": lr})
    with pytest.raises(Diverged, match=r"lopes, batch 1, step 2: found a loss of (inf|nan)") as caught:
        made.advance()
    assert caught.value.step == 2


def test_a_graph_with_a_fixed_batch(digits_network, digits, tmp_path):
    from dfmeta.graph.export_torch import export_module

    names = {"input_names": ["image"], "output_names": ["logits"]}
    graph = export_module(digits_network, (digits[0][:1],), **names, dynamic_batch=False, keep_batchnorm=True)
    task = recorded(digits, Graph.from_bytes(graph.raw, "fixed"), ("all-layers",), tmp_path / "bundle")(0)
    for variant in ("all-layers", "all-layers-dropout"):
        made = build(f"lopes:{variant}", task, {"images": "20", "iterations": "2"})
        assert made.advance() < 1e3
