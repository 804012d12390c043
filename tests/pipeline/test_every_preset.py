"""All presets at once, from the recorder to the reader."""

from __future__ import annotations

import pytest
import torch

from dfmeta._catalog import KINDS
from dfmeta.bundle import Bundle
from dfmeta.data import from_flags
from dfmeta.errors import DataError
from dfmeta.graph import TorchGraph
from dfmeta.pipeline import Gathering, Publishing, Release, record, record_with, validate
from dfmeta.records import PRESETS, PublishedRecords


@pytest.fixture(scope="module")
def bundle(digits_teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("every") / "bundle"
    ops = from_flags(scale=1 / 255)
    record(digits_teacher, "digits:train", out, presets=tuple(PRESETS), preprocessing=ops, release=Release(), rank=8)
    return out


def test_it_is_valid_and_holds_every_kind(bundle):
    report = validate(bundle, strict=True)
    assert report.valid, report.problems
    assert report.warnings == ()
    records = PublishedRecords.read(Bundle.open(bundle))
    assert records.skipped == ()
    assert {entry.kind for entry in records} == set(KINDS.names())


def test_each_record_is_near_its_own_data_and_far_from_noise(bundle, digits, digits_teacher):
    images, labels = digits
    records = PublishedRecords.read(Bundle.open(bundle))
    teacher = TorchGraph(digits_teacher)
    names = list(dict.fromkeys(name for entry in records for name in entry.values if name != "image"))
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        real, false = ({**teacher.run({"image": x}, names), "image": x} for x in (images, noise))
    matchable = [entry for entry in records if entry.matchable]
    assert {entry.kind for entry in matchable} == {"moments", "spectrum", "cross-spectrum"}
    for entry in matchable:
        near, far = (float(entry.distance(values, labels)) for values in (real, false))
        assert near < 1e-2, entry.record
        assert far > 10 * near + 0.01, entry.record


@pytest.mark.parametrize("budget", [45_000, 60_000])
def test_a_budget_holds_whatever_the_data_decides(digits_teacher, tmp_path, budget):
    """The plan only foresees how many bins a histogram fills."""
    out = tmp_path / "bundle"
    gathering = Gathering(["calibration"], from_flags(scale=1 / 255), budget_bytes=budget)
    made = record_with(digits_teacher, "digits:train", out, gathering, Publishing())
    assert made.record_bytes <= budget
    assert validate(out, strict=True).valid


def test_a_budget_that_only_the_bins_exceed(digits_teacher, tmp_path, monkeypatch):
    from dfmeta.kinds.histogram import spec

    monkeypatch.setattr(spec, "TYPICAL_LENGTHS", {"bins": 1})
    gathering = Gathering(["calibration"], from_flags(scale=1 / 255), budget_bytes=12_000)
    with pytest.raises(DataError, match="budget: found 12000 bytes, expected at least"):
        record_with(digits_teacher, "digits:train", tmp_path / "bundle", gathering, Publishing())
    assert not (tmp_path / "bundle").exists()


def test_clipped_units_without_noise_are_not_published(digits_teacher, tmp_path):
    gathering = Gathering(["all-layers"], from_flags(scale=1 / 255), clip=1.0)
    with pytest.raises(DataError, match="--dp-rho"):
        record_with(digits_teacher, "digits:train", tmp_path / "bundle", gathering, Publishing())
    assert not (tmp_path / "bundle").exists()


def test_a_small_class_is_refused_before_the_work(digits_teacher, tmp_path):
    seen = []
    ops = from_flags(scale=1 / 255)
    with pytest.raises(DataError, match="class 0: found 143 units, expected at least 500"):
        record(
            digits_teacher,
            "digits:train",
            tmp_path / "bundle",
            preprocessing=ops,
            min_units=500,
            progress=lambda *words: seen.append(words),
        )
    assert not seen
