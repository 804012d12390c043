"""Membership inference against bundles of the digits: a leaky one raises the alarm, a careful one does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dfmeta.data import from_flags, open_data
from dfmeta.errors import DataError, UnknownName
from dfmeta.pipeline import audit, record

FEW = 60


@pytest.fixture(scope="module")
def leaky(digits_teacher, tmp_path_factory) -> Path:
    """Class statistics of about six units each: nobody should publish this."""
    out = tmp_path_factory.mktemp("leaky") / "bundle"
    options = {"presets": ("all-layers", "spectral"), "preprocessing": from_flags(1 / 255), "min_units": 1}
    return record(digits_teacher, "digits:train", out, limit=FEW, **options).path


@pytest.fixture(scope="module")
def careful(digits_teacher, tmp_path_factory) -> Path:
    """Statistics over all 1,442 units alone. Classes of 144 units leak a little: see the test below."""
    out = tmp_path_factory.mktemp("careful") / "bundle"
    options = {"presets": ("all-layers", "spectral"), "preprocessing": from_flags(1 / 255), "by_class": False}
    return record(digits_teacher, "digits:train", out, **options).path


@pytest.fixture(scope="module")
def exposed(leaky):
    return audit(leaky, "digits:train", "digits:test", limit=FEW)


def test_tiny_classes_raise_the_alarm(exposed):
    assert exposed.alarm
    assert {attack.kind for attack in exposed.best} == {"moments", "spectrum"}
    for attack in exposed.best:
        assert attack.area > 0.8
        assert attack.area_bound > 0.6
    assert any(attack.alarm and attack.by_class and attack.area > 0.85 for attack in exposed.attacks)


def test_statistics_of_all_units_are_near_chance(careful):
    found = audit(careful, "digits:train", "digits:test")
    assert not found.alarm
    assert max(attack.area for attack in found.attacks) < 0.6
    assert not any(attack.by_class for attack in found.attacks)


def test_classes_of_this_size_leak_a_little_and_it_is_seen(digits_bundle):
    """Fourteen eigenvectors from 144 units know their units: found, and below what raises the alarm."""
    found = audit(digits_bundle, "digits:train", "digits:test", records=["spectrum"])
    (best,) = found.best
    assert (best.score, best.by_class) == ("subspace", True)
    assert 0.55 < best.area < 0.75


def test_the_parts_of_an_audit(exposed, leaky):
    total = open_data("digits:test").count
    assert exposed.members == FEW
    assert exposed.others + exposed.reference == total
    assert abs(exposed.others - exposed.reference) <= 1
    assert exposed.bundle == str(leaky)
    assert len(exposed.identity) == 64
    assert len(exposed.curves) == len(exposed.best)
    for attack, curve in zip(exposed.best, exposed.curves, strict=True):
        assert np.trapezoid(curve.true_positives, curve.false_positives) == pytest.approx(attack.area)
    assert {attack.record for attack in exposed.attacks} >= {"all", "r0000"}


def test_an_audit_is_the_same_twice_and_in_any_batch(exposed, leaky):
    again = audit(leaky, "digits:train", "digits:test", limit=FEW, batch_size=50)
    for one, two in zip(exposed.attacks, again.attacks, strict=True):
        assert (one.record, one.score) == (two.record, two.score)
        assert one.area == pytest.approx(two.area, abs=2e-3)


def test_members_that_never_went_in_are_not_found(leaky):
    """The control: other training units, of which the records know nothing."""
    mine = set(open_data("digits:train", limit=FEW).indices.tolist())
    other = open_data("digits:train", limit=400, seed=1)
    assert len(mine & set(other.indices.tolist())) < 30
    found = audit(leaky, "digits:train", "digits:test", limit=400, seed=1)
    exposed = audit(leaky, "digits:train", "digits:test", limit=FEW)
    assert max(a.area for a in found.best) < max(a.area for a in exposed.best) - 0.2


def test_only_some_records(leaky):
    found = audit(leaky, "digits:train", "digits:test", limit=FEW, records=["r0001"])
    assert {attack.record for attack in found.attacks} == {"r0001"}
    with pytest.raises(UnknownName, match=r"moment'.*Did you mean 'moments'"):
        audit(leaky, "digits:train", "digits:test", limit=FEW, records=["moment"])


def test_a_member_set_that_is_the_non_member_set(leaky):
    with pytest.raises(DataError, match="--members: found the same units as --non-members"):
        audit(leaky, "digits:test", "digits:test")


def test_sets_that_overlap(leaky, tmp_path):
    images, labels = (np.concatenate(parts) for parts in zip(_arrays("train", 90), _arrays("test", 10), strict=True))
    np.savez(tmp_path / "mixed.npz", x=images, y=labels)
    with pytest.raises(DataError, match=r"10 units that --non-members has too.*remove what is in both"):
        audit(leaky, str(tmp_path / "mixed.npz"), "digits:test")


def _arrays(split, count):
    batch = next(open_data(f"digits:{split}").batches(count))
    return batch.inputs["x"], batch.labels


def test_too_few_units(leaky):
    with pytest.raises(DataError, match="--members, digits: found 19 units, expected at least 20"):
        audit(leaky, "digits:train", "digits:test", limit=19)
    with pytest.raises(DataError, match="--non-members, digits: found 99 units, expected at least 100"):
        audit(leaky, "digits:train", "digits:test", non_members_limit=99)


def test_labels_are_needed_for_records_by_class_only(leaky, careful, tmp_path):
    images, _ = _arrays("train", 100)
    np.savez(tmp_path / "bare.npz", x=images)
    with pytest.raises(DataError, match=r"--members, bare: found no labels.*records are by class"):
        audit(leaky, str(tmp_path / "bare.npz"), "digits:test")
    found = audit(careful, str(tmp_path / "bare.npz"), "digits:test")
    assert found.members == 100


def test_progress_is_told(leaky):
    told = []
    audit(leaky, "digits:train", "digits:test", limit=FEW, progress=lambda *facts: told.append(facts))
    assert list(dict.fromkeys(stage for stage, *_ in told)) == ["reference", "calibration", "members", "non-members"]
    assert all(done <= total for _, done, total, _ in told)


def test_facts_are_plain(exposed):
    for attack in exposed.attacks:
        for value in dataclasses.asdict(attack).values():
            assert type(value) in (str, bool, float)
