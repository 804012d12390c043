"""The consumer's side: a bundle in, a student out, or nothing."""

from __future__ import annotations

import hashlib
import importlib
import json

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file

from dfmeta import __version__
from dfmeta.bundle import Bundle, write_safetensors
from dfmeta.compress.distill import Config
from dfmeta.data import from_flags
from dfmeta.errors import (
    BundleError,
    DataError,
    GraphError,
    IntegrityError,
    OutputExists,
    SchemaError,
    StepError,
    UnknownName,
)
from dfmeta.graph import Graph, OrtGraph
from dfmeta.pipeline import (
    distill,
    graph_inputs,
    make_task,
    method_name,
    open_release,
    publish,
    reconstruct,
    record,
    synthesise,
    synthesising,
    validate,
)
from dfmeta.pipeline.fit import fit_problems
from dfmeta.pipeline.release import Release
from dfmeta.records import Recorder, make_plan

QUICK = Config(steps=5, batch=16)


def test_a_student_is_made_from_the_bundle_alone(distilled, digits_bundle):
    assert (distilled.student, distilled.method, distilled.seed) == ("tiny8", "matched-subspace", 3)
    assert (distilled.steps, distilled.costs.parameters) == (150, 1898)
    assert distilled.costs.bytes == distilled.path.stat().st_size
    assert distilled.teacher_costs.parameters == 1946
    assert distilled.source == Bundle.open(digits_bundle).identity
    # A hundred and fifty steps on what thirty made: far from done, and as far from guessing.
    assert distilled.agreement > 40
    student = Graph.from_file(distilled.path)
    assert [value.shape for value in (*student.inputs, *student.outputs)] == [(1, 1, 8, 8), (1, 10)]
    assert [value.name for value in (*student.inputs, *student.outputs)] == ["image", "logits"]


def test_the_student_says_where_it_came_from(distilled, digits_bundle):
    bundle = Bundle.open(digits_bundle)
    found = {entry.key: entry.value for entry in onnx.load(distilled.path).metadata_props}
    recipe = json.loads(found.pop("dfmeta.recipe"))
    assert found == {
        "dfmeta.source_manifest_sha256": bundle.identity,
        "dfmeta.source_bundle_id": bundle.manifest.bundle.id,
        "dfmeta.tool": f"dfmeta {__version__}",
    }
    assert (recipe["student"], recipe["method"], recipe["seed"]) == ("tiny8", "matched-subspace", 3)
    assert recipe["distill"]["steps"] == 150
    assert recipe["settings"]["iterations"] == "5"


def test_neither_file_nor_metadata_holds_a_path(distilled, digits_bundle, repository):
    raw = distilled.path.read_bytes()
    for place in (digits_bundle, distilled.path, repository):
        assert str(place).encode() not in raw
        assert str(place.parent).encode() not in raw
    assert distilled.path.name.encode() not in raw


def test_the_same_seed_gives_the_same_file(digits_bundle, tmp_path):
    options = {"student": "tiny8", "method": "noise", "config": QUICK}
    made = [distill(digits_bundle, tmp_path / f"{n}.onnx", seed=s, **options) for n, s in enumerate((1, 1, 2))]
    first, again, other = (one.path.read_bytes() for one in made)
    assert first == again
    assert first != other


def test_reconstructed_inputs_are_data(digits_bundle, tmp_path, few):
    made = reconstruct(digits_bundle, tmp_path / "synthetic.safetensors", count=50, settings=few)
    arrays = load_file(made)
    assert arrays["x"].shape == (50, 1, 8, 8)
    assert (arrays["x"].dtype, arrays["y"].dtype) == (np.float32, np.int64)
    done = distill(digits_bundle, tmp_path / "student.onnx", student="tiny8", data=str(made), config=QUICK)
    assert done.method == "data"
    recipe = next(e.value for e in onnx.load(done.path).metadata_props if e.key == "dfmeta.recipe")
    assert str(tmp_path) not in recipe


def test_the_method_is_what_the_records_allow(digits_bundle, digits_teacher, tmp_path):
    assert method_name(digits_bundle) == "matched-subspace"
    assert method_name(digits_bundle, None, "digits:train") == "data"
    assert method_name(digits_bundle, "noise", "digits:train") == "noise"
    plan = {"preprocessing": from_flags(1 / 255), "presets": ("all-layers",)}
    record(digits_teacher, "digits:train", tmp_path / "moments", **plan)
    assert method_name(tmp_path / "moments") == "matched-generator"
    record(digits_teacher, "digits:train", tmp_path / "pooled", **{**plan, "presets": ("spectral",)}, by_class=False)
    assert method_name(tmp_path / "pooled") == "matched-generator"


def test_a_limit_of_time_is_for_synthesis_and_training_together(digits_bundle, tmp_path):
    stages = []
    done = distill(
        digits_bundle,
        tmp_path / "student.onnx",
        student="tiny8",
        method="matched-generator",
        settings={"iterations": "100000"},
        config=Config(steps=100_000, batch=16, seconds=3.0),
        progress=lambda stage, *_: stages.append(stage),
    )
    assert 0 < stages.count("synthesise") < 100_000
    assert done.steps == stages.count("distill") > 0


def test_inputs_of_some_classes_only(digits_bundle, tmp_path):
    names = next(iter(Bundle.open(digits_bundle).manifest.model.label_sets)).names
    made = reconstruct(
        digits_bundle, tmp_path / "some.safetensors", method="class-subspace", count=30, classes=["3", names[7]]
    )
    labels = load_file(made)["y"]
    assert (len(labels), set(labels.tolist())) == (30, {3, 7})
    for unknown in ("10", "-1", "horse"):
        with pytest.raises(UnknownName, match=f"'{unknown}'"):
            reconstruct(digits_bundle, tmp_path / "none.safetensors", count=3, classes=[unknown])


def test_a_class_that_a_method_does_not_make(digits_bundle):
    opened = open_release(digits_bundle)

    class Ones:
        steps = 0

        def advance(self):
            return 0.0

        def sample(self, count):
            return torch.zeros(count, 1, 8, 8), torch.ones(count, dtype=torch.int64)

    assert synthesising.chosen_classes(["1"], opened, 10) == [1]
    inputs, labels = synthesising.sample(Ones(), 4, [1])
    assert (len(inputs), labels.tolist()) == (4, [1] * 4)
    with pytest.raises(StepError, match="classes 2: found 0 inputs among 256"):
        synthesising.sample(Ones(), 4, [2])


def test_real_data_may_be_distilled_on_for_comparison(digits_bundle, tmp_path):
    config = Config(steps=150, batch=64)
    done = distill(digits_bundle, tmp_path / "student.onnx", student="tiny8", data="digits:train", config=config)
    assert done.method == "data"
    assert done.agreement > 60


def test_synthetic_inputs_depend_on_bundle_and_seed_alone(digits_bundle):
    opened = open_release(digits_bundle)
    first, again, other = (synthesise(opened, "noise", 20, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_is_there_is_not_overwritten(digits_bundle, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(OutputExists):
        distill(digits_bundle, taken, student="tiny8")
    with pytest.raises(OutputExists):
        reconstruct(digits_bundle, taken)
    assert taken.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [taken]


FAILURES = {
    # name: (options, error, part of its text)
    "student-does-not-fit": ({"student": "lenet5"}, StepError, "32"),
    "unknown-student": ({"student": "tiny9"}, UnknownName, "Did you mean 'tiny8'"),
    "unknown-method": ({"student": "tiny8", "method": "nois"}, UnknownName, "Did you mean 'noise'"),
    "unknown-setting": ({"student": "tiny8", "settings": {"iteration": "3"}}, UnknownName, "'iterations'"),
    "no-such-data": ({"student": "tiny8", "data": "nowhere.npz"}, DataError, "nothing there"),
    "loss-not-finite": (
        {"student": "tiny8", "method": "noise", "config": Config(steps=30, batch=16, lr=1e30)},
        StepError,
        r"found a loss of (nan|inf)",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_leaves_no_file(digits_bundle, tmp_path, name):
    options, error, text = FAILURES[name]
    with pytest.raises(error, match=text):
        distill(digits_bundle, tmp_path / "new" / "student.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_no_inputs_at_all(digits_bundle, tmp_path):
    with pytest.raises(DataError, match="1 or more"):
        reconstruct(digits_bundle, tmp_path / "made.safetensors", count=0)


def test_a_good_bundle_opens(digits_bundle, digits_teacher):
    opened = open_release(digits_bundle)
    assert opened.graph.raw == digits_teacher.raw
    assert opened.bundle.identity == Bundle.open(digits_bundle).identity


def louder(raw: bytes) -> bytes:
    """The same graph with one weight of the second convolution changed."""
    model = onnx.ModelProto.FromString(raw)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "4.weight")
    values = np.frombuffer(tensor.raw_data, np.float32).copy()
    values[5] += 1
    tensor.raw_data = values.tobytes()
    return model.SerializeToString()


def test_a_tampered_graph(spoiled, repin):
    other = louder((spoiled / "model.onnx").read_bytes())
    (spoiled / "model.onnx").write_bytes(other)
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        open_release(spoiled)
    assert not validate(spoiled).valid
    # Whoever pins what they changed has another bundle; it is the probe that gives them away.
    repin(spoiled, {"model.onnx": other})
    with pytest.raises(IntegrityError, match=r"probe .*a difference of"):
        open_release(spoiled)
    report = validate(spoiled)
    assert not report.valid
    assert {problem.code for problem in report.problems} == {"probe-differs"}


def test_a_graph_with_other_names(spoiled, repin):
    """A site, then the input, that the graph no longer has."""
    raw = (spoiled / "model.onnx").read_bytes()
    for old, text in (("conv2d", "conv2d"), ("image", "image")):
        model = onnx.ModelProto.FromString(raw)
        for node in model.graph.node:
            node.input[:] = ["renamed" if name == old else name for name in node.input]
            node.output[:] = ["renamed" if name == old else name for name in node.output]
        for value in model.graph.input:
            value.name = "renamed" if value.name == old else value.name
        del model.graph.value_info[:]
        repin(spoiled, {"model.onnx": model.SerializeToString()})
        with pytest.raises(SchemaError, match=text):
            open_release(spoiled)
        codes = {problem.code for problem in validate(spoiled).problems}
        assert codes == {"site-differs" if old == "conv2d" else "interface-differs", "site-differs"}


def test_a_bundle_that_is_not_there(tmp_path):
    with pytest.raises(BundleError, match="nowhere"):
        open_release(tmp_path / "nowhere")
    assert not validate(tmp_path / "nowhere").valid


def released(graph: Graph, inputs: np.ndarray, out, classes=None):
    with Recorder(graph, make_plan(graph, ["all-layers"]), threads=1) as recorder:
        recorder.update(inputs)
    publish(out, graph, recorder.finish(), inputs=graph_inputs(graph), release=Release(), classes=classes)
    return Bundle.open(out)


def test_models_that_cannot_be_synthesised(linear, tmp_path):
    dense = linear((6,), (10, 4))
    bundle = released(dense, np.ones((20, 6), np.float32), tmp_path / "dense")
    with pytest.raises(GraphError, match=r"\['batch', 10, 4\], expected \[batch, classes\]"):
        make_task(bundle, dense, 0)
    tokens = linear((6,), (10,), "int64")
    bundle = released(tokens, np.ones((20, 6), np.int64), tmp_path / "tokens")
    with pytest.raises(StepError, match=r"x \(int64\), expected one floating-point input"):
        make_task(bundle, tokens, 0)
    with pytest.raises(StepError, match="one floating-point input"):
        distill(tmp_path / "tokens", tmp_path / "student.onnx", student="tiny8")
    assert not (tmp_path / "student.onnx").exists()


def test_the_exported_student_is_the_trained_one(distilled, digits):
    """Agreement is counted on the network; the file computes the same."""
    images = digits[0][:20].numpy()
    session = OrtGraph(Graph.from_file(distilled.path), threads=1, dynamic_batch=True)
    once = session.run({"image": images})["logits"]
    each = np.concatenate([session.run({"image": images[i : i + 1]})["logits"] for i in range(20)])
    np.testing.assert_allclose(once, each, rtol=1e-4, atol=1e-5)


def into(folder, change):
    """Change a bundle's manifest in place: every digest in it stays right."""
    manifest = json.loads((folder / "dfmeta.json").read_text())
    change(manifest)
    (folder / "dfmeta.json").write_text(json.dumps(manifest))


def convolution(manifest):
    return next(site for site in manifest["sites"] if site["shape"] == ["batch", 8, 8, 8])


def of(manifest, features, by="all"):
    """The convolution's first record over its values or channels."""
    site = convolution(manifest)["id"]
    return next(r for r in manifest["records"] if (r["site"], r["features"], r["group"]["by"]) == (site, features, by))


def other_site(manifest):
    others = (site["id"] for site in manifest["sites"] if site["shape"] == ["batch", 16, 4, 4])
    of(manifest, "flattened")["site"] = next(others)


def by_channel(manifest):
    of(manifest, "flattened")["features"] = "channel"


def one_more_output(manifest):
    probe = {**manifest["model"]["outputs"][0], "name": "more"}
    manifest["model"]["outputs"].insert(0, probe)


def free_site(manifest):
    convolution(manifest)["shape"] = ["batch", 8, "h", "w"]


INPUT, OUTPUT = (lambda m: m["model"]["inputs"][0]), (lambda m: m["model"]["outputs"][0])
MISFITS = {
    # name: (change of the manifest, place and code of the problems)
    "free-input-sizes": (
        lambda m: INPUT(m).update(shape=["batch", 1, "h", "w"]),
        {("model.inputs[0].shape", "interface-differs")},
    ),
    "another-input-rank": (
        lambda m: INPUT(m).update(shape=["batch", 64], axes=None),
        {("model.inputs[0].shape", "interface-differs")},
    ),
    "another-input-type": (
        lambda m: INPUT(m).update(dtype="float64"),
        {("model.inputs[0].dtype", "interface-differs")},
    ),
    "another-input-name": (lambda m: INPUT(m).update(name="picture"), {("model.inputs[0].name", "interface-differs")}),
    "another-output-name": (lambda m: OUTPUT(m).update(name="digit"), {("model.outputs[0].name", "interface-differs")}),
    "another-output-size": (
        lambda m: OUTPUT(m).update(shape=["batch", 9]),
        {("model.outputs[0].shape", "interface-differs")},
    ),
    "an-output-more": (one_more_output, {("model.outputs", "interface-differs")}),
    "a-site-that-is-not-there": (
        lambda m: convolution(m)["addresses"][0].update(value="nowhere"),
        {"site-differs"},
    ),
    "a-site-of-another-type": (
        lambda m: convolution(m).update(dtype="float16"),
        {"site-differs"},
    ),
    "records-moved": (other_site, {"wrong-feature-count"}),
    "records-by-channel": (by_channel, {"wrong-feature-count"}),
    "free-site-sizes": (free_site, {"site-differs", "wrong-feature-count"}),
    "fewer-labels": (lambda m: m["model"]["label_sets"][0]["names"].pop(), {"wrong-label-count"}),
    "more-labels": (lambda m: m["model"]["label_sets"][0]["names"].append("ten"), {"wrong-label-count"}),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_manifest_of_another_graph(spoiled, tmp_path, name):
    change, expected = MISFITS[name]
    into(spoiled, change)
    with pytest.raises(SchemaError, match="problem") as caught:
        open_release(spoiled)
    found = caught.value.problems
    assert expected <= {(p.where, p.code) for p in found} | {p.code for p in found}
    assert {p.code for p in found} <= {pair[1] if isinstance(pair, tuple) else pair for pair in expected}
    with pytest.raises(SchemaError):
        distill(spoiled, tmp_path / "student.onnx", student="tiny8")
    assert not validate(spoiled).valid


def test_what_fits_its_graph(digits_bundle):
    opened = open_release(digits_bundle)
    assert fit_problems(opened.bundle.manifest, opened.graph) == []


def test_numbers_that_contradict_their_kind_are_not_used(spoiled):
    """Every digest is right: the numbers alone give them away."""
    path = spoiled / "dfmeta" / "records.safetensors"
    bundle = Bundle.open(spoiled)
    record = next(r for r in bundle.manifest.records if r.kind == "moments")
    name = record.tensors["var"].name
    arrays = load_file(path) | {name: -np.ones_like(load_file(path)[name])}
    raw = write_safetensors(arrays, {"dfmeta": bundle.manifest.bundle.id})
    path.write_bytes(raw)

    def repin(manifest):
        file = next(file for file in manifest["files"] if file["role"] == "records")
        length = 8 + int.from_bytes(raw[:8], "little")
        file |= {"sha256": hashlib.sha256(raw).hexdigest(), "header_sha256": hashlib.sha256(raw[:length]).hexdigest()}
        entry = next(r for r in manifest["records"] if r["id"] == record.id)
        entry["tensors"]["var"]["sha256"] = hashlib.sha256(arrays[name].tobytes()).hexdigest()

    into(spoiled, repin)
    opened = open_release(spoiled)
    with pytest.raises(SchemaError, match=rf"record {record.id}\.var: found -1.0, expected no value below 0"):
        make_task(opened.bundle, opened.graph, 0)
    assert [problem.code for problem in validate(spoiled).problems] == ["negative"]


def test_a_manifest_that_changes_while_it_is_validated(spoiled, monkeypatch):
    module = importlib.import_module("dfmeta.pipeline.check")
    real = module.Bundle.open

    def later(path):
        into(spoiled, lambda manifest: manifest["bundle"].update(version="9"))
        return real(path)

    monkeypatch.setattr(module.Bundle, "open", later)
    report = validate(spoiled)
    assert not report.valid
    assert [(problem.where, problem.code) for problem in report.problems] == [("dfmeta.json", "changed-while-read")]
