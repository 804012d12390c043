"""All presets at once, from the recorder to the reader."""

from __future__ import annotations

import pytest
import torch

from dfmeta._catalog import KINDS
from dfmeta.bundle import Bundle
from dfmeta.data import from_flags
from dfmeta.graph import TorchGraph
from dfmeta.pipeline import Release, record, validate
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
