"""The consumer's side of the records."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from dfmeta.bundle import Bundle, usable
from dfmeta.errors import BundleError, StepError
from dfmeta.records import PublishedRecords, Statistic


@pytest.fixture(scope="module")
def records(digits_bundle):
    return PublishedRecords.read(Bundle.open(digits_bundle))


def test_every_record_is_read(records, digits_bundle):
    bundle = Bundle.open(digits_bundle)
    assert [entry.record for entry in records] == [record.id for record in bundle.manifest.records]
    assert records.skipped == ()
    for entry in records:
        stored = bundle.record_tensors(entry.record)
        for name, tensor in entry.tensors.items():
            assert tensor.shape[0] == (10 if entry.by_class else 1)
            np.testing.assert_array_equal(tensor.numpy().reshape(stored[name].shape), stored[name])
            assert tensor.dtype in (torch.float32, torch.int64)


def test_a_kind_that_we_do_not_know_is_passed_over(records, digits_bundle, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(digits_bundle, folder)
    manifest = json.loads((folder / "dfmeta.json").read_text())
    for record in manifest["records"][::3]:
        record["kind"] = "novel"
    (folder / "dfmeta.json").write_text(json.dumps(manifest))
    found = PublishedRecords.read(Bundle.open(folder))
    names = [entry.record for entry in records]
    assert found.skipped == tuple(names[::3])
    assert [entry.record for entry in found] == [name for name in names if name not in names[::3]]


@pytest.mark.parametrize("change", [{"kind_version": 2}, {"group": {"by": "hospital"}}], ids=["version", "group"])
def test_a_record_that_is_not_usable_is_passed_over(digits_bundle, tmp_path, change):
    folder = tmp_path / "bundle"
    shutil.copytree(digits_bundle, folder)
    manifest = json.loads((folder / "dfmeta.json").read_text())
    manifest["records"][1] |= change
    (folder / "dfmeta.json").write_text(json.dumps(manifest))
    bundle = Bundle.open(folder)
    assert PublishedRecords.read(bundle).skipped == (manifest["records"][1]["id"],)
    assert [usable(record) for record in bundle.manifest.records[:3]] == [True, False, True]
    for read in (bundle.record_tensors, lambda id: bundle.tensor(id, "mean")):
        with pytest.raises(BundleError, match="it is not usable"):
            read(manifest["records"][1]["id"])


def test_of_and_need(records):
    found = records.need("logits", "moments", by_class=True, preset="top-layer")
    assert found is records.of("logits", "moments", by_class=True)
    assert (found.value, found.kind, found.by_class) == ("logits", "moments", True)
    assert records.of("nowhere", "moments", by_class=True) is None


@pytest.mark.parametrize(("by_class", "grouping"), [(True, "each class"), (False, "all units")])
def test_a_record_that_is_needed_and_not_there(records, by_class, grouping):
    with pytest.raises(StepError) as caught:
        records.need("nowhere", "spectrum", by_class=by_class, preset="spectral")
    assert caught.value.where == "records of 'nowhere'"
    assert caught.value.found == f"no 'spectrum' of {grouping}"
    assert "'spectral'" in caught.value.fix


@pytest.mark.parametrize("kind", ["moments", "spectrum"])
def test_a_withheld_class_does_not_count(records, kind):
    """Rows of zeros say nothing of the class: neither that it is at zero, nor that its variance is."""
    entry = records.of("logits", kind, by_class=True)
    tensors = {name: tensor.clone() for name, tensor in entry.tensors.items()}
    for tensor in tensors.values():
        tensor[[2, 5]] = 0
    fields = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    withheld = Statistic(**{**fields, "tensors": tensors})
    values = torch.randn(60, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(60) % 10
    seen = (labels != 2) & (labels != 5)
    assert torch.equal(
        withheld.distance({entry.value: values}, labels), entry.distance({entry.value: values[seen]}, labels[seen])
    )
    assert float(withheld.distance({entry.value: values}, torch.full((60,), 2))) == 0


def test_the_teachers_own_activations_are_near_and_others_are_not(records, digits, digits_teacher):
    from dfmeta.graph import TorchGraph

    images, labels = digits
    teacher = TorchGraph(digits_teacher)
    names = list(dict.fromkeys(entry.value for entry in records if entry.value != "image"))
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        real, false = ({**teacher.run({"image": x}, names), "image": x} for x in (images, noise))
    for entry in records:
        near, far = (float(entry.distance(values, labels)) for values in (real, false))
        assert near < 1e-3, entry.record
        assert far > 50 * near + 0.01, entry.record
