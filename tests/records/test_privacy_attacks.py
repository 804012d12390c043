"""Membership scores find members where records give them away, and the verdict is not fooled by chance."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dfmeta.numerics.packed import pack
from dfmeta.records import DifferentialPrivacy, Gathered, RecordPlan, SitePlan, Statistic
from dfmeta.records.privacy_reference import ReferenceMoments
from dfmeta.records.privacy_roc import Trial, area, curve, judged, strongest, true_positives, wilson
from dfmeta.records.privacy_scores import Scorer, SecondMoments
from dfmeta.records.publication import publication

FLAT = SitePlan("s0", "x", "x", "float32", ("batch", 12), 1)
MAPS = SitePlan("s1", "y", "y", "float32", ("batch", 4, 3, 3), 1)
PLANS = {
    "moments": RecordPlan(FLAT, "moments", True, "flattened"),
    "channels": RecordPlan(MAPS, "moments", True, "channel"),
    "spectrum": RecordPlan(FLAT, "spectrum", True, "flattened", {"rank": 8}),
    "spectrum of channels": RecordPlan(MAPS, "spectrum", True, "channel", {"rank": 3}),
    "histogram": RecordPlan(MAPS, "histogram", True, "flattened"),
}
scores_of_integers = st.lists(st.integers(0, 6), min_size=2, max_size=12)


def population(units, seed):
    """Two classes of correlated features, and maps with a level of their own for each unit."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.arange(units) % 2
    mix = torch.randn(12, 12, generator=torch.Generator().manual_seed(99))
    flat = torch.randn(units, 12, generator=generator) @ mix + group[:, None]
    level = torch.randn(units, 4, 1, 1, generator=generator)
    maps = level + 0.3 * torch.randn(units, 4, 3, 3, generator=generator) - group[:, None, None, None]
    return {"s0": flat, "s1": maps}, group


def statistic(plan, members, privacy=None):
    """The record by class, as a reader of the bundle has it."""
    gathered = Gathered([plan], classes=2, clip=privacy.clip if privacy else None)
    gathered.update(*members)
    taken = next(t for t in publication(gathered, min_units=1, privacy=privacy).records if t.by_class)
    tensors = {name: torch.tensor(array) for name, array in taken.tensors.items()}
    site = plan.site
    return Statistic("r", site.id, site.value, plan.kind, True, plan.features, site.feature_axis, tensors)


def attacked(plan, units, privacy=None):
    """Areas by score: that many members of two classes, against four hundred others."""
    members, reference, others = population(units, 1), population(400, 2), population(400, 3)
    scorer = Scorer(statistic(plan, members, privacy))
    site = plan.site.id
    scorer.learn(reference[0][site], reference[1].numpy())
    scorer.calibrate(reference[0][site], reference[1].numpy())
    ours, theirs = (scorer.scores(values[site], group.numpy()) for values, group in (members, others))
    return {name: area(ours[name], theirs[name])[0] for name in scorer.names}


LEAKS = {
    "moments": {"homer": 0.8, "likelihood-ratio": 0.85, "density": 0.8},
    "channels": {"homer": 0.6, "likelihood-ratio": 0.6, "density": 0.6},
    "spectrum": {"homer": 0.8, "likelihood-ratio": 0.85},
    "spectrum of channels": {"homer": 0.6, "likelihood-ratio": 0.6},
    "histogram": {"bins": 0.6},
}


@pytest.mark.parametrize("name", PLANS)
def test_tiny_classes_give_their_members_away(name):
    found = attacked(PLANS[name], 8)
    assert set(LEAKS[name]) <= set(found)
    for score, least in LEAKS[name].items():
        assert found[score] > least, (score, found[score])


def test_a_subspace_of_few_units_gives_them_away():
    assert attacked(PLANS["spectrum"], 60)["subspace"] > 0.6


@pytest.mark.parametrize("name", PLANS)
def test_large_classes_do_not(name):
    for score, found in attacked(PLANS[name], 4000).items():
        assert 0.4 < found < 0.6, (score, found)


@pytest.mark.parametrize("name", ["moments", "spectrum", "channels"])
def test_noise_hides_the_members_of_tiny_classes(name):
    privacy = DifferentialPrivacy(0.5, 8.0, 64, seed=3)
    found = attacked(PLANS[name], 60, privacy)
    open_to_all = attacked(PLANS[name], 60)
    for score in ("homer", "likelihood-ratio"):
        assert found[score] < open_to_all[score] + 0.03
        assert found[score] < 0.6


WINDOW = {"kernel": [2, 2], "strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 1, 1], "groups": 2}
MATRICES = {
    "rows": (FLAT, "flattened", 12, {"form": "full", "storage": "float32"}),
    "patches": (MAPS, "patch", 8, {"form": "full", "storage": "float32", **WINDOW}),
}


def unfolded(value, configuration):
    """``[n, positions, groups, d]`` by torch's own unfolding."""
    if "kernel" not in configuration:
        return value.double().numpy()[:, None, None]
    padded = torch.nn.functional.pad(value.double(), (0, 1, 0, 1))
    found = torch.nn.functional.unfold(padded, 2).mT
    return found.reshape(len(value), -1, 2, 8).numpy()


def second_moments(name, members):
    """A record by class as a reader has it, from plain sums."""
    site, features, d, configuration = MATRICES[name]
    samples, group = unfolded(members[0][site.id], configuration), members[1].numpy()
    parts = [samples[group == row] for row in (0, 1)]
    mean = np.stack([part.mean((0, 1)) for part in parts])
    matrix = np.stack([np.einsum("npgd,npge->gde", p, p) / (p.shape[0] * p.shape[1]) for p in parts])
    count = np.array([part.shape[0] * part.shape[1] for part in parts])
    arrays = {"count": count, "mean": mean, "matrix": pack(matrix)}
    if "kernel" not in configuration:
        arrays |= {"mean": mean[:, 0], "matrix": pack(matrix[:, 0])}
    stored = {key: array.astype(np.float32) if key != "count" else array for key, array in arrays.items()}
    tensors = {key: torch.from_numpy(array) for key, array in stored.items()}
    found = Statistic("r", site.id, site.value, "second-moment", True, features, 1, tensors)
    return found, SecondMoments.read(stored, d, configuration)


@pytest.mark.parametrize("name", MATRICES)
def test_second_moments_of_few_units_give_them_away(name):
    areas = {}
    for units in (16, 4000):
        members, reference, others = population(units, 1), population(400, 2), population(400, 3)
        scorer = Scorer(*second_moments(name, members))
        assert scorer.names == ("homer", "likelihood-ratio", "leverage")
        site = MATRICES[name][0].id
        scorer.learn(reference[0][site], reference[1].numpy())
        scorer.calibrate(reference[0][site], reference[1].numpy())
        ours, theirs = (scorer.scores(values[site], group.numpy()) for values, group in (members, others))
        areas[units] = {score: area(ours[score], theirs[score])[0] for score in scorer.names}
    assert areas[16]["leverage"] > 0.6
    assert areas[16]["likelihood-ratio"] > 0.6
    assert all(0.4 < found < 0.6 for found in areas[4000].values())


def test_leverage_by_its_definition():
    members = population(50, 1)
    found, second = second_moments("patches", members)
    scorer = Scorer(found, second)
    site = members[0]["s1"]
    scorer.learn(site, members[1].numpy())
    scorer.calibrate(site, members[1].numpy())
    ours = scorer.scores(site, members[1].numpy())["leverage"][::2]
    samples = unfolded(site, MATRICES["patches"][3])[::2]
    inverse = np.linalg.inv(second.matrices[0])
    expected = -np.einsum("npgd,gde,npge->n", samples, inverse, samples)
    assert np.corrcoef(ours, expected)[0, 1] > 0.99


def test_the_likelihood_ratio_is_that_of_two_gaussians():
    """With a reference so large that its means are the population's, and unit covariance: the definition itself."""
    units = torch.randn(20, 12, generator=torch.Generator().manual_seed(5)).double()
    known = torch.randn(40_000, 12, generator=torch.Generator().manual_seed(6)).double()
    group = torch.arange(20) % 2
    found = statistic(PLANS["moments"], ({"s0": units, "s1": units}, group))
    scorer = Scorer(found)
    classes = np.arange(40_000) % 2
    scorer.learn(known, classes)
    scorer.calibrate(known, classes)
    ours = scorer.scores(units[::2], np.zeros(10, np.int64))["likelihood-ratio"]
    mean = found.tensors["mean"][0].double().numpy()
    expected = [
        (mean**2).sum() / (2 / 10) - ((mean - unit / 10) ** 2).sum() / (2 * 9 / 100) for unit in units[::2].numpy()
    ]
    assert np.corrcoef(ours, expected)[0, 1] > 0.999


def test_withheld_classes_have_no_score():
    members, reference = population(40, 1), population(400, 2)
    found = statistic(PLANS["moments"], members)
    found.tensors["count"][1] = 0
    scorer = Scorer(found)
    scorer.learn(reference[0]["s0"], reference[1].numpy())
    scorer.calibrate(reference[0]["s0"], reference[1].numpy())
    for column in scorer.scores(members[0]["s0"], members[1].numpy()).values():
        assert np.isnan(column[1::2]).all()
        assert np.isfinite(column[::2]).all()


def test_the_reference_is_that_of_one_float64_pass():
    values, group = population(301, 4)
    samples, group = values["s0"].double().numpy()[:, None], group.numpy()
    reference = ReferenceMoments(np.full((2, 12), 3.0))
    for part in np.array_split(np.arange(301), 5):
        reference.add(samples[part], group[part])
    units = samples[:, 0]
    means = np.stack([units[group == row].mean(0) for row in (0, 1)])
    residual = units - means[group]
    np.testing.assert_allclose(reference.mean, means, atol=1e-12)
    np.testing.assert_allclose(reference.variance, [units[group == row].var(0) for row in (0, 1)], rtol=1e-9)
    within = residual.T @ residual / (301 - 2)
    floor = 1e-3 * np.diag(within).mean()
    np.testing.assert_allclose(reference.deviation, np.sqrt(np.diag(within) + floor), rtol=1e-9)
    trust = 301 / (12 + 301)
    shrunk = trust * within + np.diag((1 - trust) * np.diag(within) + floor)
    vectors = np.random.default_rng(0).normal(size=(5, 12))
    expected = np.einsum("nd,de,ne->n", vectors, np.linalg.inv(shrunk), vectors)
    np.testing.assert_allclose((reference.whitened(vectors) ** 2).sum(1), expected, rtol=1e-6)


@given(scores_of_integers, scores_of_integers)
def test_the_area_is_the_share_of_pairs_in_order(members, others):
    ours, theirs = np.array(members, float), np.array(others, float)
    pairs = [(a > b) + (a == b) / 2 for a in members for b in others]
    found, error = area(ours, theirs)
    assert found == pytest.approx(np.mean(pairs))
    kernel = np.array(pairs).reshape(len(members), len(others))
    variance = kernel.mean(1).var(ddof=1) / len(members) + kernel.mean(0).var(ddof=1) / len(others)
    assert error == pytest.approx(math.sqrt(variance), abs=1e-12)
    rates = curve(Trial("r", "k", "s", False, "x", ours, theirs))
    assert np.trapezoid(rates.true_positives, rates.false_positives) == pytest.approx(found)
    assert (np.diff(rates.false_positives) >= 0).all()
    assert rates.true_positives[-1] == rates.false_positives[-1] == 1


@given(scores_of_integers, scores_of_integers, st.sampled_from([0.01, 0.2, 0.5]))
def test_no_more_false_positives_than_allowed(members, others, rate):
    ours, theirs = np.array(members, float), np.array(others, float)
    hits, false = true_positives(ours, theirs, rate)
    assert false <= rate * len(others)
    best = max((ours > cut).sum() for cut in [-1, *theirs] if (theirs > cut).sum() <= rate * len(others))
    assert hits == best


def test_wilson():
    """The textbook's figures: 0.05 to 0.56 for 2 of 10 at 95 %, and one-sided limits at 0 and all."""
    low, high = wilson(2, 10, 1.959964)
    assert (round(low, 3), round(high, 3)) == (0.057, 0.510)
    assert wilson(0, 50, 1.96)[0] == 0
    assert wilson(50, 50, 1.96)[1] == 1


def trial(shift, units=400, seed=0, score="x"):
    generator = np.random.default_rng(seed)
    return Trial("r", "k", "s", False, score, generator.normal(size=units) + shift, generator.normal(size=units))


def test_a_strong_attack_raises_the_alarm():
    (attack,) = judged([trial(1.0)])
    assert attack.alarm
    assert attack.area_bound > 0.6
    assert attack.area == pytest.approx(0.76, abs=0.05)


def test_few_members_that_are_certain_raise_the_alarm():
    """An area near one half, and yet one member in eight stands out beyond doubt."""
    quiet = trial(0.0)
    quiet.members[:50] = 50.0
    quiet.members[50:110] = -50.0
    (attack,) = judged([quiet])
    assert attack.area_bound < 0.6
    assert attack.rate > 0.12
    assert attack.alarm


def test_chance_raises_none():
    """Forty attacks on nothing, two hundred times: one time in twenty may be wrong, and hardly one is."""
    alarms = 0
    for seed in range(200):
        attacks = judged([trial(0.0, 120, 40 * seed + number) for number in range(40)])
        alarms += any(attack.alarm for attack in attacks)
    assert alarms <= 10


def test_more_attacks_need_more_evidence():
    alone = judged([trial(0.45)])[0]
    among = judged([trial(0.45), *(trial(0.0, seed=seed) for seed in range(60))])[0]
    assert alone.area == among.area
    assert among.area_bound < alone.area_bound


def test_the_strongest_of_each_kind():
    attacks = judged([trial(0.1, score="a"), trial(0.9, score="b"), trial(0.2, score="c")])
    (best,) = strongest(attacks)
    assert best.score == "b"


@pytest.mark.parametrize("kind", ["moments", "channels", "spectrum", "histogram"])
def test_a_batch_of_withheld_classes_alone_says_nothing(kind):
    """Data sorted by class ends in such a batch where the last class is too small to publish."""
    plan = PLANS[kind]
    members, reference = population(40, 1), population(60, 2)
    published = statistic(plan, members)
    tensors = {name: tensor.clone() for name, tensor in published.tensors.items()}
    for tensor in tensors.values():
        if len(tensor) == 2:
            tensor[1] = 0
    scorer = Scorer(dataclasses.replace(published, tensors=tensors))
    site, last = plan.site.id, np.ones(5, np.int64)
    for step in (scorer.learn, scorer.calibrate):
        step(reference[0][site], reference[1].numpy())
        step(reference[0][site][:5], last)
    found = scorer.scores(reference[0][site][:5], last)
    assert found
    assert all(np.isnan(scores).all() and len(scores) == 5 for scores in found.values())
