"""The publisher's side: what is written, what is said of it, and what is refused with nothing written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from dfmeta import __version__
from dfmeta.bundle import Bundle
from dfmeta.data import from_flags, open_data
from dfmeta.errors import DataError, GraphError, OutputExists, StepError, UnknownName
from dfmeta.graph import Graph
from dfmeta.graph.metadata import without_text
from dfmeta.pipeline import Gathering, leaks, plan_facts, record, validate
from dfmeta.pipeline.release import Release

OPS = from_flags(1 / 255)


def images(count=100, side=8):
    return np.random.default_rng(0).integers(0, 256, (count, side, side)).astype(np.uint8)


@pytest.fixture
def patients(tmp_path):
    """A hundred images in ten classes, in a file whose name is nobody's business."""
    path = tmp_path / "secret-patients.npz"
    np.savez(path, x=images(), y=np.arange(100) % 10)
    return path


def test_a_bundle_holds_what_its_manifest_says_and_no_more(digits_bundle, digits_teacher):
    files = {str(path.relative_to(digits_bundle)) for path in digits_bundle.rglob("*") if path.is_file()}
    members = {"model.onnx", "dfmeta/records.safetensors", "dfmeta/probe.safetensors"}
    assert files == members | {"dfmeta.json"}
    manifest = Bundle.open(digits_bundle).manifest
    assert {file.path for file in manifest.files} == members
    assert (digits_bundle / "model.onnx").read_bytes() == digits_teacher.raw
    report = validate(digits_bundle, strict=True)
    assert report.valid
    assert report.problems == ()
    assert report.identity == Bundle.open(digits_bundle).identity


def test_the_manifest_says_what_went_in(digits_bundle):
    manifest = Bundle.open(digits_bundle).manifest
    (entry,) = manifest.model.inputs
    assert (entry.name, entry.dtype, entry.shape, entry.modality) == ("image", "float32", ["batch", 1, 8, 8], "image")
    assert [op.model_dump()["op"] for op in entry.preprocessing] == ["rescale"]
    (output,) = manifest.model.outputs
    assert (output.name, output.semantics) == ("logits", "logits")
    assert manifest.label_set(output.labels).names == [str(digit) for digit in range(10)]
    (dataset,) = manifest.datasets
    assert (dataset.name, dataset.split, dataset.unit_count) == ("unnamed", "train", 1442)
    (run,) = manifest.runs
    assert (run.dataset, run.batch_size, run.seed, run.limit) == ("data", 256, 0, None)
    assert run.engine.name == "onnxruntime"
    assert (manifest.bundle.generator.name, manifest.bundle.generator.version) == ("dfmeta", __version__)
    privacy = manifest.privacy
    assert (privacy.unit, privacy.min_unit_count, privacy.suppression) == ("image", 10, "none")
    assert privacy.extremes_policy == "none-published"
    assert manifest.licenses is None


def test_the_manifest_says_what_it_was_told(digits_teacher, patients, tmp_path):
    about = Release(
        name="reader",
        version="2.1.0",
        title="A title",
        description="Words.",
        dataset="public digits",
        unit="person",
        license="MIT",
        contains_personal_data="yes",
    )
    options = {"preprocessing": OPS, "release": about, "limit": 60, "seed": 5, "batch_size": 7, "suppress": True}
    published = record(digits_teacher, str(patients), tmp_path / "out", presets=["top-layer"], min_units=3, **options)
    raw = (published.path / "dfmeta.json").read_text()
    for part in ("secret", "patients", str(tmp_path), "npz"):
        assert part not in raw
    manifest = Bundle.open(published.path).manifest
    assert (manifest.model.name, manifest.bundle.version) == ("reader", "2.1.0")
    assert (manifest.bundle.title, manifest.bundle.description) == ("A title", "Words.")
    assert (manifest.datasets[0].name, manifest.datasets[0].unit) == ("public digits", "person")
    assert manifest.datasets[0].contains_personal_data == "yes"
    assert (manifest.runs[0].limit, manifest.runs[0].seed, manifest.runs[0].batch_size) == (60, 5, 7)
    assert (manifest.licenses.records, manifest.licenses.model) == ("MIT", "MIT")
    assert (manifest.privacy.unit, manifest.privacy.min_unit_count) == ("person", 3)
    assert published.units == manifest.datasets[0].unit_count == 60


def test_what_was_withheld_is_declared(digits_teacher, tmp_path):
    labels = np.arange(100) // 11
    assert (labels == 9).sum() == 1
    np.savez(tmp_path / "set.npz", x=images(), y=labels)
    data = str(tmp_path / "set.npz")
    out = tmp_path / "out"
    with pytest.raises(DataError, match="class 9: found 1 units"):
        record(digits_teacher, data, out, preprocessing=OPS)
    assert not out.exists()
    record(digits_teacher, data, out, preprocessing=OPS, suppress=True, limit=100)
    assert validate(out).valid
    bundle = Bundle.open(out)
    # Neither the number of units drawn nor a batch of them all, beside the number published.
    (run,) = bundle.manifest.runs
    assert (run.limit, run.batch_size, bundle.manifest.datasets[0].unit_count) == (None, 99, 99)
    assert bundle.manifest.privacy.suppression == "complementary"
    for entry in bundle.manifest.records:
        by_class = entry.group.by == "class"
        assert entry.suppressed_groups == ([9] if by_class else [])
        assert entry.unit_count == 99
        counts = bundle.tensor(entry.id, "count")
        assert (counts[9], counts[:9].min()) == (0, 11) if by_class else counts == 99
        assert not entry.mergeable


def test_records_of_limit_units_are_those_of_the_units_drawn(digits_teacher, patients, tmp_path):
    drawn = open_data(str(patients), limit=40, seed=9)
    np.savez(tmp_path / "drawn.npz", x=images()[drawn.indices])
    options = {"presets": ["top-layer"], "preprocessing": OPS, "by_class": False}
    one = record(digits_teacher, str(patients), tmp_path / "one", limit=40, seed=9, **options)
    two = record(digits_teacher, str(tmp_path / "drawn.npz"), tmp_path / "two", **options)
    first, second = (load_file(p.path / "dfmeta" / "records.safetensors") for p in (one, two))
    assert first.keys() == second.keys()
    for key, values in first.items():
        np.testing.assert_array_equal(values, second[key])


def test_progress_is_told(digits_teacher, patients, tmp_path):
    told = []
    record(
        digits_teacher,
        str(patients),
        tmp_path / "out",
        preprocessing=OPS,
        batch_size=40,
        progress=lambda *facts: told.append(facts),
    )
    assert told == [("record", done, 100, 0.0) for done in (40, 80, 100)]


def test_what_is_there_is_not_overwritten(digits_teacher, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(OutputExists):
            record(digits_teacher, "digits:train", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]
    assert not list((tmp_path / "folder").iterdir())
    assert (tmp_path / "file").read_text() == "mine"


BAD = {
    "a-nan-at-the-end": (lambda x: np.where(np.arange(100) == 99, np.nan, 1)[:, None, None, None] * x, DataError, "99"),
    "activations-too-large": (lambda x: np.full_like(x, 3e38), StepError, "NaN or infinity"),
    "another-shape": (lambda x: x[:, :, :7], DataError, r"\[1, 8, 8\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_failure_on_the_way_leaves_nothing(digits_teacher, tmp_path, name):
    spoil, error, text = BAD[name]
    x = spoil(images()[:, None].astype(np.float32)).astype(np.float32)
    np.savez(tmp_path / "set.npz", x=x, y=np.arange(100) % 10)
    with pytest.raises(error, match=text):
        record(digits_teacher, str(tmp_path / "set.npz"), tmp_path / "new" / "out", batch_size=10)
    assert [path.name for path in tmp_path.iterdir()] == ["set.npz"]


def test_wrong_words_are_refused_before_any_work(digits_teacher, patients, tmp_path):
    told = []
    with pytest.raises(UnknownName, match="Did you mean 'spectral'"):
        record(
            digits_teacher,
            str(patients),
            tmp_path / "out",
            presets=["spectra"],
            progress=lambda *facts: told.append(facts),
        )
    assert told == []


def test_classes_need_an_output_of_classes(linear, patients, tmp_path):
    dense = linear((1, 8, 8), (10, 4))
    with pytest.raises(GraphError, match=r"\['batch', 10, 4\].*\[batch, classes\].*--no-classes"):
        record(dense, str(patients), tmp_path / "out", preprocessing=OPS)
    record(dense, str(patients), tmp_path / "out", preprocessing=OPS, by_class=False)
    assert validate(tmp_path / "out").valid
    manifest = json.loads((tmp_path / "out" / "dfmeta.json").read_text())
    assert "labels" not in manifest["model"]["outputs"][0]


def test_calibration_needs_no_labels(digits_teacher, tmp_path):
    """None of its records is by class."""
    np.savez(tmp_path / "set.npz", x_train=images())
    data = f"{tmp_path / 'set.npz'}:train"
    made = record(digits_teacher, data, tmp_path / "out", presets=["calibration"], preprocessing=OPS)
    assert made.units == 100
    assert validate(tmp_path / "out", strict=True).valid
    manifest = json.loads((tmp_path / "out" / "dfmeta.json").read_text())
    assert {entry["group"]["by"] for entry in manifest["records"]} == {"all"}
    both = ["calibration", "all-layers"]
    with pytest.raises(DataError, match=r"no labels, expected one class for each unit.*--no-classes"):
        record(digits_teacher, data, tmp_path / "other", presets=both, preprocessing=OPS)
    assert not (tmp_path / "other").exists()


def test_calibration_needs_no_classifier(linear, patients, tmp_path):
    """Labels are there, and stand for nothing that it would record."""
    dense = linear((1, 8, 8), (10, 4))
    record(dense, str(patients), tmp_path / "out", presets=["calibration"], preprocessing=OPS)
    assert validate(tmp_path / "out").valid
    assert plan_facts(dense, Gathering(["calibration"]))["classes"] is None
    with pytest.raises(GraphError, match="--no-classes"):
        plan_facts(dense, Gathering(["all-layers"]))


def test_a_graph_without_sites_is_refused(tmp_path, patients, linear):
    """All that is left of sequence-first outputs is told, not recorded as nonsense."""
    graph = linear((1, 8, 8), (10,))
    model = type(graph.model)()
    model.CopyFrom(graph.model)
    model.graph.node[-1].op_type = "Transpose"
    del model.graph.node[-1].input[1:], model.graph.initializer[1:]
    sizes = model.graph.output[0].type.tensor_type.shape.dim
    sizes[0].dim_value, sizes[1].dim_param = 10, "batch"
    sequence_first = type(graph).from_bytes(model.SerializeToString(), "sequence.onnx")
    with pytest.raises(GraphError, match="batch as its axis 0"):
        record(sequence_first, str(patients), tmp_path / "out", presets=["top-layer"], by_class=False)
    assert not (tmp_path / "out").exists()


def with_text(graph, place):
    """The same graph as an exporter may leave it: with a path wherever text can be."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for message in (model, model.graph, model.graph.node[0], model.graph.initializer[0], model.graph.input[0]):
        message.doc_string = place
        message.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=f'File "{place}/net.py", line 3')
    return Graph.from_bytes(model.SerializeToString(), "model.onnx")


def test_free_text_in_the_graph_is_not_published(digits_teacher, patients, tmp_path):
    told = with_text(digits_teacher, "/srv/anns-patients")
    assert b"anns-patients" in told.raw
    record(told, f"{patients}", tmp_path / "out", presets=["top-layer"], preprocessing=OPS)
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"anns-patients" not in path.read_bytes(), path
    published = (tmp_path / "out" / "model.onnx").read_bytes()
    assert published == without_text(digits_teacher).raw
    assert validate(tmp_path / "out").valid


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"node": "/home/ann/nets/conv1"}, "the name of a node"),
        ({"node": "C:\\Users\\ann\\conv1"}, "the name of a node"),
        ({"node": "file:///data/conv1"}, "the name of a node"),
        ({"node": "conv of ann@clinic.example"}, "the name of a node"),
        ({"graph": "main from /Users/ann/net.py"}, "the graph's name"),
        ({"release": Release(description="as in /home/ann/thesis")}, "manifest.bundle.description"),
        ({"labels": ["cat", "ann@clinic.example"]}, "manifest.model.label_sets.names"),
    ],
)
def test_names_that_tell_of_a_machine_or_a_person_are_refused(digits_teacher, digits_bundle, change, where):
    manifest = Bundle.open(digits_bundle).manifest
    model = onnx.ModelProto()
    model.CopyFrom(digits_teacher.model)
    model.graph.node[0].name = change.get("node", "conv1")
    model.graph.name = change.get("graph", "main")
    if "release" in change:
        said = manifest.bundle.model_copy(update={"description": change["release"].description})
        manifest = manifest.model_copy(update={"bundle": said})
    if "labels" in change:
        (labels,) = manifest.model.label_sets
        sets = [labels.model_copy(update={"names": change["labels"]})]
        manifest = manifest.model_copy(update={"model": manifest.model.model_copy(update={"label_sets": sets})})
    graph = Graph.from_bytes(model.SerializeToString(), "model.onnx")
    with pytest.raises(DataError, match="no paths of a machine") as caught:
        leaks.require_none(graph, manifest=manifest.model_dump(mode="json"))
    assert caught.value.where == where


def test_names_with_slashes_and_a_contact_are_published(digits_teacher, digits_bundle):
    """Names of modules look like paths, and what a publisher says of themselves is theirs to say."""
    manifest = Bundle.open(digits_bundle).manifest
    said = manifest.bundle.model_copy(update={"description": "Write to ann@clinic.example.", "title": "home/away"})
    model = onnx.ModelProto()
    model.CopyFrom(digits_teacher.model)
    model.graph.node[0].name = "/layer1/home/conv1"
    graph = Graph.from_bytes(model.SerializeToString(), "model.onnx")
    leaks.require_none(graph, manifest=manifest.model_copy(update={"bundle": said}).model_dump(mode="json"))


@pytest.mark.parametrize(
    "name",
    [
        *("/mnt/alice/train", "/data/users/alice/x.npz", "/tmp/x/secret.npz", "/scratch/alice/y", "/Volumes/bob/x"),  # noqa: S108
        *("~/secret/x.npz", "~alice/x.npz", "D:/data/alice", "d:\\data", "alice@workstation", "a@clinic.example"),
        *("digits of /mnt/alice/x", "digits (/mnt/alice/x)", "path=/mnt/alice/x", "photos of zebediah", "Zebediah's"),
        *("zebras-desk.clinic.example", "taken on zebras-desk"),
    ],
)
def test_a_data_sets_name_is_no_path_login_or_machine(digits_teacher, digits_bundle, monkeypatch, name):
    monkeypatch.setattr("getpass.getuser", lambda: "zebediah")
    monkeypatch.setattr("platform.node", lambda: "zebras-desk.clinic.example")
    document = Bundle.open(digits_bundle).manifest.model_dump(mode="json")
    document["datasets"][0]["name"] = name
    for said, where in (
        ({"manifest": document}, "manifest.datasets.name"),
        ({"release": asdict(Release(dataset=name))}, "release.dataset"),
    ):
        with pytest.raises(DataError, match="no paths of a machine") as caught:
            leaks.require_none(digits_teacher, **said)
        assert caught.value.where == where


@pytest.mark.parametrize("user", ["root", "bob1", "image", "digits-of-nobody"])
def test_names_that_tell_of_nobody_are_published(digits_teacher, digits_bundle, monkeypatch, user):
    """Names of the graph, of classes and of the format look like paths and like people."""
    monkeypatch.setattr("getpass.getuser", lambda: user)
    monkeypatch.setattr("platform.node", lambda: "localhost")
    value = "/layer1/conv/Conv_output_0"
    graph = replaced(digits_teacher, value)
    document = Bundle.open(digits_bundle).manifest.model_dump(mode="json")
    document["sites"][0]["label"] = value
    document["sites"][0]["addresses"][0]["value"] = value
    document["model"]["label_sets"][0]["names"] = ["/m/01g317", "/b/bakery/shop", "and/or"]
    document["datasets"][0]["name"] = "train/test of root, bob1 and image: 3 m/s, https://example.org/~x/y"
    document["privacy"]["differential_privacy"] = {"left_out": [f"histogram at {value!r}"]}
    document["bundle"]["publisher"] = {"name": "digits-of-nobody", "url": "https://example.org/digits-of-nobody"}
    leaks.require_none(graph, manifest=document)
    document["sites"][0]["label"] = "/layer2/conv/Conv_output_0"
    with pytest.raises(DataError, match="layer2"):
        leaks.require_none(graph, manifest=document)


def replaced(graph, value):
    """The same graph with another name for what its first node makes."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    old = model.graph.node[0].output[0]
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [value if name == old else name for name in names]
    return Graph.from_bytes(model.SerializeToString(), "model.onnx")


def test_a_path_refuses_the_whole_release(digits_teacher, patients, tmp_path):
    release = Release(description=f"from {Path.home()}/patients")
    with pytest.raises(DataError, match="no paths of a machine"):
        record(
            digits_teacher, f"{patients}", tmp_path / "out", presets=["top-layer"], preprocessing=OPS, release=release
        )
    assert not (tmp_path / "out").exists()
