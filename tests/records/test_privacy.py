"""Noised records: what one unit can move, how much noise there is, what comes out, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta._catalog import KINDS
from dfmeta.errors import DataError, MergeError
from dfmeta.numerics.zcdp import epsilon, gaussian_sigma
from dfmeta.records import Gathered, RecordPlan, SitePlan
from dfmeta.records.gathered import clipped_units
from dfmeta.records.presets import Choice
from dfmeta.records.privacy import DifferentialPrivacy, noised, private_plan, require_whole
from dfmeta.records.privacy_mechanisms import MECHANISMS, sum_of
from dfmeta.records.publication import publication

FLAT = SitePlan("s0", "dense", "dense", "float32", ("batch", 6), 1)
MAPS = SitePlan("s1", "maps", "conv", "float32", ("batch", 3, 4, 4), 1)
CLIP = 1.5
ENORMOUS = 1e18
PLAN = (
    RecordPlan(FLAT, "moments", True, "flattened"),
    RecordPlan(FLAT, "spectrum", True, "flattened", {"rank": 3}),
    RecordPlan(MAPS, "moments", True, "channel"),
    RecordPlan(MAPS, "spectrum", False, "channel", {"rank": 2}, gathered_by_class=False),
)
QUANTITIES = [
    (number, quantity) for number in range(4) for quantity in MECHANISMS[PLAN[number].kind].quantities(PLAN[number])
]


def values_of(units, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    group = torch.arange(units) % 3
    flat = spread * torch.randn(units, 6, generator=generator) + group[:, None]
    maps = spread * torch.randn(units, 3, 4, 4, generator=generator) - group[:, None, None, None]
    return {"s0": flat, "s1": maps}, group


def gather(units=300, plan=PLAN, clip=CLIP, seed=0, spread=1.0, classes=3):
    gathered = Gathered(plan, classes=classes, clip=clip)
    values, group = values_of(units, seed, spread)
    gathered.update(values, group if classes else torch.zeros_like(group))
    return gathered


def asked(rho=1.0, clip=CLIP, seed=1, batch_size=64):
    return DifferentialPrivacy(rho, clip, batch_size, seed)


def exact(gathered, number, quantity):
    entry, accumulator = gathered.plan[number], gathered.accumulators[number]
    return MECHANISMS[entry.kind].exact(entry, accumulator.state(), quantity)


def slow_sum(entry, quantity, values, group):
    """The same in plain loops over units and positions."""
    groups = 3 if entry.gathered_by_class else 1
    d = entry.feature_count
    total = np.zeros((groups, d, d) if quantity == "second-moment" else (groups, d))
    for unit, label in zip(values[entry.site.id].double().numpy(), group.tolist(), strict=True):
        scaled = unit * min(1.0, CLIP / math.sqrt((unit**2).mean()))
        samples = scaled.reshape(1, -1) if entry.features == "flattened" else scaled.reshape(3, -1).T
        for sample in samples:
            part = {"mean": sample, "squares": sample**2, "second-moment": np.outer(sample, sample)}[quantity]
            total[label if groups > 1 else 0] += part / len(samples)
    return total


@pytest.mark.parametrize(("number", "quantity"), QUANTITIES)
def test_sums_over_clipped_units(number, quantity):
    gathered = gather(40, spread=3.0)
    expected = slow_sum(PLAN[number], quantity, *values_of(40, spread=3.0))
    np.testing.assert_allclose(exact(gathered, number, quantity), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e6), st.integers(0, 2), st.sampled_from(["noise", "constant", "one"]))
def test_no_unit_moves_a_sum_by_more_than_its_sensitivity(seed, size, label, shape):
    with_it, without = gather(20, seed=seed), gather(20, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    unit = {name: torch.randn(1, *rest, generator=generator) for name, rest in (("s0", (6,)), ("s1", (3, 4, 4)))}
    if shape != "noise":
        unit = {name: torch.zeros_like(value) for name, value in unit.items()}
        for value in unit.values():
            value.view(-1)[slice(None) if shape == "constant" else slice(0, 1)] = 1.0
    with_it.update({name: size * value for name, value in unit.items()}, torch.tensor([label]))
    for number, quantity in QUANTITIES:
        moved = np.linalg.norm(exact(with_it, number, quantity) - exact(without, number, quantity))
        assert moved <= sum_of(PLAN[number], quantity).sensitivity(CLIP) * (1 + 1e-9)


def test_the_sensitivity_is_reached():
    """A bound that nothing comes near would only waste noise."""
    for number, quantity in QUANTITIES:
        gathered = Gathered(PLAN, classes=3, clip=CLIP)
        one = {"s0": torch.zeros(1, 6), "s1": torch.zeros(1, 3, 4, 4)}
        one["s0"][0, 2], one["s1"][0, 1] = 1e4, 1e4
        gathered.update(one, torch.tensor([1]))
        expected = sum_of(PLAN[number], quantity).sensitivity(CLIP)
        assert np.linalg.norm(exact(gathered, number, quantity)) == pytest.approx(expected, rel=1e-9)


def test_clipping_leaves_small_units_alone():
    value = torch.stack([torch.full((2, 2), 0.5), torch.full((2, 2), 4.0), torch.zeros(2, 2)])
    found = clipped_units(value, 1.0)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found[:, 0, 0], [0.5, 1.0, 0.0])


def test_noise_has_the_stated_size():
    """The same sums again and again: what differs is the noise, and the ledger says how large it is."""
    gathered = gather(60, PLAN[:1])
    runs = [noised(gathered, asked(seed=seed)) for seed in range(100)]
    entries = {(e["site"], e["statistic"]): e for e in runs[0].ledger["mechanisms"] if e["statistic"] != "unit-count"}
    means = np.stack([run.gathered.accumulators[0].mean * run.gathered.units[:, None] for run in runs])
    seen = np.stack([run.gathered.units.numpy() > 0 for run in runs]).all(0)
    assert seen.all()
    spread = means.std(0)
    np.testing.assert_allclose(spread, entries["s0", "mean"]["sigma"], rtol=0.25)
    np.testing.assert_allclose(means.mean(0), exact(gathered, 0, "mean"), atol=5 * spread.max() / math.sqrt(100))
    counts = np.stack([run.gathered.units.numpy() for run in runs])
    sigma = gaussian_sigma(1, runs[0].ledger["mechanisms"][0]["rho"])
    np.testing.assert_allclose(counts.std(0), sigma, rtol=0.35)
    np.testing.assert_allclose(counts.mean(0), 20, atol=4 * sigma / math.sqrt(100))


def test_an_enormous_budget_changes_nothing():
    gathered = gather()
    plain, private = publication(gathered), publication(gathered, privacy=asked(ENORMOUS))
    assert len(plain.records) == len(private.records)
    for one, two in zip(plain.records, private.records, strict=True):
        assert (one.plan, one.unit_count, one.position_count) == (two.plan, two.unit_count, two.position_count)
        for name, values in one.tensors.items():
            np.testing.assert_allclose(two.tensors[name], values, atol=1e-5, err_msg=f"{one.plan.kind} {name}")


@pytest.mark.parametrize("rho", [1e-4, 0.1, 10.0])
def test_what_comes_out_is_a_record_of_its_kind(rho):
    recording = publication(gather(6000, PLAN[:3]), min_units=1, suppress=True, privacy=asked(rho, seed=4))
    for taken in recording.records:
        assert KINDS.load(taken.plan.kind, "spec").check(taken.tensors, "here") == []


def test_noised_statistics_are_far_from_exact_ones_when_the_budget_is_small():
    plain = publication(gather())
    private = publication(gather(), min_units=1, suppress=True, privacy=asked(0.01))
    assert any(
        np.abs(one.tensors["mean"] - two.tensors["mean"]).max() > 0.05
        for one, two in zip(plain.records, private.records, strict=True)
    )


def test_exact_counts_are_not_published():
    recordings = [publication(gather(), privacy=asked(0.05, seed=seed)) for seed in range(8)]
    assert len({recording.unit_count for recording in recordings}) > 4
    for recording in recordings:
        by_class = next(taken for taken in recording.records if taken.by_class)
        assert recording.unit_count == by_class.tensors["count"].sum()
        assert recording.batch_size == 64
        channel = next(taken for taken in recording.records if taken.plan.features == "channel" and taken.by_class)
        assert channel.position_count == 16 * recording.unit_count


def test_the_record_over_all_units_comes_from_the_noised_classes():
    recording = publication(gather(), privacy=asked(2.0))
    pooled, grouped = recording.records[0], recording.records[1]
    count = grouped.tensors["count"][:, None]
    np.testing.assert_allclose(
        pooled.tensors["mean"], (grouped.tensors["mean"] * count).sum(0) / count.sum(), rtol=1e-5
    )


def test_each_sum_is_noised_once():
    """A spectrum and the moments of the same features share the mean, and the variances are its second moment's."""
    made = noised(gather(), asked())
    statistics = [(e["statistic"], e.get("site"), tuple(e.get("kinds", ()))) for e in made.ledger["mechanisms"]]
    assert statistics == [
        ("unit-count", None, ()),
        ("mean", "s0", ("moments", "spectrum")),
        ("second-moment", "s0", ("spectrum", "moments")),
        ("mean", "s1", ("moments",)),
        ("squares", "s1", ("moments",)),
        ("mean", "s1", ("spectrum",)),
        ("second-moment", "s1", ("spectrum",)),
    ]
    moments, spectrum = made.gathered.accumulators[:2]
    np.testing.assert_allclose(moments.mean, spectrum.mean)


def test_the_ledger_adds_up():
    found = noised(gather(), asked(0.7)).ledger
    spent = [entry["rho"] for entry in found["mechanisms"]]
    assert math.fsum(spent) == pytest.approx(0.7, rel=1e-12)
    assert found["allocation"]["total"] == pytest.approx(0.7, rel=1e-12)
    assert math.fsum(v for k, v in found["allocation"].items() if k != "total") == found["allocation"]["total"]
    for entry in found["mechanisms"]:
        assert entry["sigma"] == pytest.approx(entry["sensitivity"] / math.sqrt(2 * entry["rho"]))
    assert [row["delta"] for row in found["approximate_dp"]] == [1e-5, 1e-6]
    for row in found["approximate_dp"]:
        assert row["epsilon"] == epsilon(0.7, row["delta"]) < row["epsilon_simple"]
    assert json.loads(json.dumps(found)) == found
    assert "seed" not in json.dumps(found)


def test_publication_carries_the_ledger():
    assert publication(gather()).ledger is None
    recording = publication(gather(), privacy=asked(0.7))
    assert recording.ledger is not None
    assert recording.ledger["rho"] == 0.7


def test_gathered_statistics_stay_as_they_are():
    gathered = gather()
    before = gathered.state()
    publication(gathered, privacy=asked(0.1))
    for name, values in gathered.state().items():
        np.testing.assert_array_equal(values, before[name])


def test_small_classes_are_judged_by_their_noised_counts():
    """Twelve units each, a minimum of ten: with noise of a deviation near ten, any class may stay or go."""
    withheld = set()
    for seed in range(20):
        try:
            recording = publication(gather(36, PLAN[:3]), suppress=True, privacy=asked(0.05, seed=seed))
        except DataError:
            continue
        grouped = recording.records[1]
        withheld |= {len(grouped.suppressed)}
        assert (grouped.tensors["count"][list(grouped.suppressed)] == 0).all()
        kept = np.delete(grouped.tensors["count"], list(grouped.suppressed))
        assert (kept >= 10).all()
        assert recording.unit_count == kept.sum()
    assert len(withheld) > 1


def test_small_classes_are_refused_where_they_are_not_withheld():
    with pytest.raises(DataError, match="class 2: found 9 units"):
        publication(gather(29), privacy=asked(ENORMOUS))


def test_one_limit_for_each_site():
    gathered = gather(clip={"dense": 0.5, "conv": 2.0})
    found = noised(gathered, asked(clip={"dense": 0.5, "conv": 2.0})).ledger["mechanisms"]
    assert {(e["site"], e["clip"]) for e in found[1:]} == {("s0", 0.5), ("s1", 2.0)}


def test_without_classes():
    recording = publication(gather(classes=None), privacy=asked(ENORMOUS))
    assert recording.unit_count == 300
    assert not any(taken.by_class for taken in recording.records)


HISTOGRAM = RecordPlan(MAPS, "histogram", True, "flattened")


def test_bins_are_noised_in_whole_numbers():
    exact_counts = gather(300, (HISTOGRAM,)).accumulators[0].counts.numpy()
    made = noised(gather(300, (HISTOGRAM,)), asked(200.0))
    counts = made.gathered.accumulators[0].counts.numpy()
    (entry,) = made.ledger["mechanisms"][1:]
    assert (entry["statistic"], entry["noise"]) == ("bins", "discrete-gaussian")
    assert entry["sensitivity"] == 48
    assert "clip" not in entry
    kept = counts > 0
    difference = (counts - exact_counts)[kept]
    assert difference.any()
    assert np.abs(difference).max() < 6 * entry["sigma"]
    # Nothing below the threshold, and nothing in a bin that no value fell into.
    assert counts[kept].min() > 3 * entry["sigma"]
    assert not kept[exact_counts == 0].any()


def test_a_unit_moves_bins_by_no_more_than_their_sensitivity():
    with_it, without = gather(20, (HISTOGRAM,)), gather(20, (HISTOGRAM,))
    with_it.update({"s0": torch.ones(1, 6), "s1": torch.full((1, 3, 4, 4), 1e9)}, torch.tensor([1]))
    moved = exact(with_it, 0, "bins") - exact(without, 0, "bins")
    assert np.linalg.norm(moved) == sum_of(HISTOGRAM, "bins").sensitivity(CLIP) == 48


def test_noised_histograms_are_histograms():
    recording = publication(gather(300, (HISTOGRAM,)), privacy=asked(ENORMOUS))
    plain = publication(gather(300, (HISTOGRAM,)), min_units=1)
    for one, two in zip(plain.records, recording.records, strict=True):
        assert KINDS.load("histogram", "spec").check(two.tensors, "here") == []
        for name, values in one.tensors.items():
            np.testing.assert_array_equal(two.tensors[name], values)
    for rho in (0.5, 50.0):
        for taken in publication(gather(3000, (HISTOGRAM,)), privacy=asked(rho)).records:
            assert KINDS.load("histogram", "spec").check(taken.tensors, "here") == []


WINDOW = {"kernel": [3, 2], "strides": [1, 2], "dilations": [1, 1], "pads": [1, 0, 1, 1], "groups": 3}
PATCHES = RecordPlan(MAPS, "second-moment", True, "patch", {"form": "full", "storage": "float32", **WINDOW})
FORMS = {
    form: replace(PATCHES, configuration={**PATCHES.configuration, "form": form, "storage": storage})
    for form, storage in (("full", "float32"), ("toeplitz", "int8"), ("kronecker", "float16"), ("diagonal", "float32"))
}
FORMS["rows"] = RecordPlan(FLAT, "second-moment", True, "flattened", {"form": "full", "storage": "float32"})


def patches_of(unit):
    """``[positions, groups, d]`` of one clipped unit, by hand."""
    scaled = unit * min(1.0, CLIP / math.sqrt((unit**2).mean()))
    padded = np.pad(scaled, ((0, 0), (1, 1), (0, 1)))
    places = [(row, column) for row in range(4) for column in range(0, 4, 2)]
    return np.stack([[padded[c, i : i + 3, j : j + 2].ravel() for c in range(3)] for i, j in places])


def test_sums_over_patches():
    gathered = gather(30, (PATCHES,), spread=3.0)
    values, group = values_of(30, spread=3.0)
    mean, second = np.zeros((3, 3, 6)), np.zeros((3, 3, 6, 6))
    for unit, label in zip(values["s1"].double().numpy(), group.tolist(), strict=True):
        patches = patches_of(unit)
        mean[label] += patches.mean(0)
        second[label] += np.einsum("pgd,pge->gde", patches, patches) / len(patches)
    np.testing.assert_allclose(exact(gathered, 0, "mean"), mean, atol=1e-9)
    np.testing.assert_allclose(exact(gathered, 0, "second-moment"), second, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_no_unit_moves_second_moments_by_more_than_their_sensitivity(form):
    entry = FORMS[form]
    generator = torch.Generator().manual_seed(0)
    largest = dict.fromkeys(MECHANISMS["second-moment"].quantities(entry), 0.0)
    for trial in range(60):
        maps = torch.randn(1, 3, 4, 4, generator=generator) ** (1 + trial % 5)
        flat = torch.randn(1, 6, generator=generator)
        if trial % 3 == 0:
            maps[:, 1:], maps[:, :, :, ::2] = 0, 5.0
        if trial % 7 == 0:
            maps[:, 0], maps[:, 1:] = 1, 0
        gathered = Gathered((entry,), classes=3, clip=CLIP)
        gathered.update({"s0": 1e4 * flat, "s1": 1e4 * maps}, torch.tensor([trial % 3]))
        for quantity in largest:
            largest[quantity] = max(largest[quantity], float(np.linalg.norm(exact(gathered, 0, quantity))))
    for quantity, moved in largest.items():
        bound = sum_of(entry, quantity).sensitivity(CLIP)
        assert 0.3 * bound < moved <= bound * (1 + 1e-9), quantity


@pytest.mark.parametrize("form", FORMS)
def test_second_moments_with_an_enormous_budget_are_the_exact_ones(form):
    gathered = gather(300, (FORMS[form],))
    for one, two in zip(
        publication(gathered).records, publication(gathered, privacy=asked(ENORMOUS)).records, strict=True
    ):
        for name, values in one.tensors.items():
            tolerance = 1 if values.dtype == np.int8 else 2e-3
            difference = np.abs(two.tensors[name].astype(float) - values.astype(float)).max()
            assert difference <= tolerance, name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rho", [1e-3, 1.0])
def test_noised_second_moments_are_records_of_their_kind(form, rho):
    recording = publication(gather(3000, (FORMS[form],)), min_units=1, suppress=True, privacy=asked(rho, seed=4))
    spec = KINDS.load("second-moment", "spec")
    for taken in recording.records:
        assert spec.check(taken.tensors, "here") == []


PAIR = RecordPlan(FLAT, "cross-spectrum", False, "flattened", {"rank": 2}, MAPS, gathered_by_class=False)


def test_what_has_no_mechanism_is_left_out_and_named():
    kept, left_out = private_plan((*PLAN, PAIR))
    assert kept == PLAN
    assert left_out == ("cross-spectrum at 'dense' and 'conv'",)


def test_a_sketch_has_no_mechanism():
    sketched = RecordPlan(FLAT, "spectrum", True, "flattened", {"rank": 2, "sketch": 4})
    assert private_plan((*PLAN, sketched)) == (PLAN, ("spectrum at 'dense'",))


def test_nothing_left_is_refused():
    with pytest.raises(
        DataError, match=r"cross-spectrum at 'dense'.*no noise mechanism.*a kind that one does: .*moments"
    ):
        private_plan((PAIR,))


def test_a_preset_of_which_nothing_would_be_left_is_refused(monkeypatch):
    presets = {"pairs": (Choice("all", "cross-spectrum"),), "both": (Choice("all", "moments"), Choice("all", "other"))}
    monkeypatch.setattr("dfmeta.records.privacy.PRESETS", presets)
    with pytest.raises(DataError, match=r"preset 'pairs', --dp-rho: found only cross-spectrum"):
        private_plan((*PLAN, PAIR), ["both", "pairs"])
    assert private_plan((*PLAN, PAIR), ["both"])[0] == PLAN


def test_no_clipping_norm():
    with pytest.raises(DataError, match="found no clipping norm") as caught:
        DifferentialPrivacy(1.0, None, 64)
    assert "--dp-clip" in caught.value.fix


@pytest.mark.parametrize("rho", [0.0, -1.0, math.inf, math.nan])
def test_a_budget_that_is_none(rho):
    with pytest.raises(DataError, match=r"--dp-rho.*above 0"):
        asked(rho)


@pytest.mark.parametrize(("clip", "found"), [(None, "found none"), (2.0, r"found 2\.0")])
def test_units_that_were_clipped_otherwise(clip, found):
    with pytest.raises(DataError, match=f"clipping norm of what was gathered: {found}, expected 1.5"):
        publication(gather(clip=clip), privacy=asked())


@pytest.mark.parametrize("clip", [0.0, -1.0, math.inf, math.nan])
def test_a_clipping_norm_that_bounds_nothing(clip):
    with pytest.raises(DataError, match=r"clipping norm.*above 0"):
        gather(clip=clip)


def test_a_site_without_a_clipping_norm():
    with pytest.raises(DataError, match="none for site 'conv'"):
        gather(clip={"dense": 1.0})


def test_parts_that_were_clipped_differently_do_not_merge():
    with pytest.raises(MergeError, match="clipped"):
        gather().merge(gather(clip=2.0))
    with pytest.raises(ValueError, match="clipped otherwise"):
        gather().restore(gather(clip=2.0).state())


def test_clipped_statistics_are_taken_up_again():
    first, second = gather(), gather(9, seed=5)
    second.restore(first.state())
    for name, values in first.state().items():
        np.testing.assert_array_equal(second.state()[name], values)


def test_memory_is_counted_twice():
    with pytest.raises(DataError, match="memory"):
        Gathered(PLAN, classes=3, clip=1.0, memory_limit=3500)
    Gathered(PLAN, classes=3, memory_limit=3500)


def test_a_site_of_no_fixed_size_is_left_out():
    """How far one unit can move a sum depends on its size: where units differ, there is no bound."""
    free = replace(PLAN[2], site=replace(PLAN[2].site, shape=("batch", 4, "h", "w")))
    kept, left_out = private_plan([PLAN[0], free])
    assert kept == (PLAN[0],)
    assert len(left_out) == 1
    with pytest.raises(DataError):
        private_plan([free])


def test_noise_is_for_all_units_and_not_for_a_draw():
    require_whole(None)
    with pytest.raises(DataError, match="found --limit 100"):
        require_whole(100)
