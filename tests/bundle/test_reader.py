"""Reading a bundle: lazily, verified, and with an error that says what happened."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from dfmeta.bundle import Bundle, write_safetensors
from dfmeta.errors import BundleError, IntegrityError, SchemaError, UnknownName, UnsupportedVersion

SIDECAR = "dfmeta/records.safetensors"


def test_opening_reads_the_manifest_only(bundle):
    for path in bundle.rglob("*.*"):
        if path.is_file() and path.name != "dfmeta.json":
            path.unlink()
    opened = Bundle.open(str(bundle))
    assert opened.path == bundle
    assert opened.manifest.model.name == "two-features"
    assert opened.identity == hashlib.sha256((bundle / "dfmeta.json").read_bytes()).hexdigest()
    assert opened.warnings == ()


def test_members_and_tensors(bundle):
    opened = Bundle.open(bundle)
    assert opened.graph_bytes() == opened.member("graph") == (bundle / "model.onnx").read_bytes()
    tensors = opened.record_tensors("r1")
    assert tensors.keys() == {"count", "mean", "var"}
    np.testing.assert_array_equal(tensors["count"], [40, 0])
    np.testing.assert_array_equal(opened.tensor("r0", "mean"), [0.75, 1.0])
    assert opened.tensor("r0", "count").shape == ()
    assert opened.tensor("r0", "mean").flags.writeable
    probe = opened.probe_tensors()
    np.testing.assert_array_equal(probe["output.0"], np.maximum(probe["input.0"], 0))


def test_an_unlisted_file_is_never_opened(bundle):
    os.mkfifo(bundle / "extra")
    assert Bundle.open(bundle).graph_bytes()


def test_names_that_are_not_there(bundle):
    opened = Bundle.open(bundle)
    with pytest.raises(UnknownName, match=r"file: found 'grph', expected one of graph.*Did you mean 'graph'"):
        opened.member("grph")
    with pytest.raises(UnknownName, match="record: found 'r7', expected one of r0, r1"):
        opened.record_tensors("r7")
    with pytest.raises(UnknownName, match="statistic of record 'r0': found 'median'"):
        opened.tensor("r0", "median")


def test_a_bundle_without_graph_or_probe(bundle, edit):
    def weights_only(document):
        del document["model"]["graph"], document["model"]["probe"], document["sites"][0]["probe"]
        document["sites"][0]["addresses"].pop(0)

    edit(bundle, weights_only)
    opened = Bundle.open(bundle)
    assert opened.probe_tensors() == {}
    with pytest.raises(BundleError, match=r"a bundle without a graph, expected one with model\.graph"):
        opened.graph_bytes()


def test_no_folder_and_no_manifest(tmp_path):
    with pytest.raises(BundleError, match="no such file or directory, expected a folder"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"dfmeta\.json: found no such file"):
        Bundle.open(tmp_path)
    (tmp_path / "dfmeta.json").write_bytes(b" " * (4 * 2**20 + 1))
    with pytest.raises(BundleError, match="4194305 bytes, expected at most 4194304"):
        Bundle.open(tmp_path)
    with pytest.raises(BundleError, match="not a directory"):
        Bundle.open(tmp_path / "dfmeta.json")


def test_a_bad_manifest_is_refused(bundle, edit):
    edit(bundle, lambda document: document.update(format_version="2.0"))
    with pytest.raises(UnsupportedVersion):
        Bundle.open(bundle)
    (bundle / "dfmeta.json").write_bytes(b"{}")
    with pytest.raises(SchemaError):
        Bundle.open(bundle)


def test_a_changed_tensor_is_refused_and_the_others_are_not(bundle):
    raw = bytearray((bundle / SIDECAR).read_bytes())
    opened = Bundle.open(bundle)
    opened.record_tensors("r0")
    entry = opened._headers["records"].tensors["r0.mean"]
    raw[entry.start] ^= 1
    (bundle / SIDECAR).write_bytes(raw)
    fresh = Bundle.open(bundle)
    assert fresh.tensor("r0", "var").shape == (2,)
    with pytest.raises(IntegrityError, match=r"dfmeta/records.safetensors: r0.mean: found sha256 .*fetch this file"):
        fresh.tensor("r0", "mean")
    with pytest.raises(IntegrityError, match=r"r0\.mean"):
        opened.tensor("r0", "mean")


def test_a_changed_header_is_refused_before_it_is_parsed(bundle):
    raw = bytearray((bundle / SIDECAR).read_bytes())
    raw[20] ^= 1
    (bundle / SIDECAR).write_bytes(raw)
    with pytest.raises(IntegrityError, match=r"records\.safetensors: found sha256"):
        Bundle.open(bundle).tensor("r0", "mean")


def test_a_file_of_another_length_is_refused(bundle):
    (bundle / "model.onnx").write_bytes(b"short")
    (bundle / SIDECAR).write_bytes((bundle / SIDECAR).read_bytes()[:-1])
    opened = Bundle.open(bundle)
    with pytest.raises(IntegrityError, match="found 5 bytes, expected 79 bytes"):
        opened.graph_bytes()
    with pytest.raises(IntegrityError, match="bytes, expected"):
        opened.tensor("r0", "var")


def test_a_file_that_shrinks_after_its_header_was_read(bundle):
    opened = Bundle.open(bundle)
    opened.tensor("r0", "mean")
    os.truncate(bundle / SIDECAR, opened._headers["records"].size)
    with pytest.raises(IntegrityError, match="bytes, expected"):
        opened.tensor("r0", "mean")


def test_shapes_are_checked_even_where_every_digest_is_right(bundle, forge):
    opened = Bundle.open(bundle)
    tensors = {f"{r}.{s}": opened.tensor(r, s) for r in ("r0", "r1") for s in ("count", "mean", "var")}
    tensors["r0.mean"] = np.zeros(3)
    forge(bundle, SIDECAR, write_safetensors(tensors, {"dfmeta": opened.manifest.bundle.id}))
    with pytest.raises(SchemaError, match=r"record r0\.mean: found \[3\], expected \[2\]"):
        Bundle.open(bundle).record_tensors("r0")


def test_the_cache_of_the_hugging_face_hub_is_the_one_place_where_links_are_followed(bundle, tmp_path):
    repository = tmp_path / "models--x--y"
    snapshot = repository / "snapshots" / ("c" * 40)
    (repository / "blobs").mkdir(parents=True)
    for path in [each for each in bundle.rglob("*") if each.is_file()]:
        relative = path.relative_to(bundle)
        blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.write_bytes(path.read_bytes())
        link = snapshot / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    opened = Bundle.open(snapshot)
    assert opened.graph_bytes() == (bundle / "model.onnx").read_bytes()
    assert opened.tensor("r0", "mean").shape == (2,)

    (snapshot / "model.onnx").unlink()
    for target in (
        "../../../blobs/" + "a" * 64,
        "../../blobs/../../../secret",
        str(repository / "blobs" / "a"),
    ):
        (snapshot / "model.onnx").symlink_to(target)
        with pytest.raises(BundleError, match=r"model\.onnx: found a symbolic link"):
            opened.graph_bytes()
        (snapshot / "model.onnx").unlink()


def test_a_link_to_blobs_outside_a_cache_is_just_a_link(bundle, tmp_path):
    (tmp_path / "blobs").mkdir()
    deep = tmp_path / "a" / "b"
    deep.parent.mkdir()
    bundle.rename(deep)
    (tmp_path / "blobs" / ("a" * 64)).write_bytes((deep / "model.onnx").read_bytes())
    (deep / "model.onnx").unlink()
    (deep / "model.onnx").symlink_to("../../blobs/" + "a" * 64)
    with pytest.raises(BundleError, match="a symbolic link"):
        Bundle.open(deep).graph_bytes()
