"""Validation: every fault of a bundle is reported, by code and place, and nothing makes it raise or hang."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfmeta.bundle import Bundle, validate, write_safetensors
from dfmeta.errors import SchemaError

SIDECAR, PROBE = "dfmeta/records.safetensors", "dfmeta/probe.safetensors"
MEMBERS = ["model.onnx", "model.safetensors", SIDECAR, PROBE]


def codes(bundle: Path, **options: bool) -> list[tuple[str, str]]:
    report = validate(bundle, **options)
    assert report.valid is not bool(report.problems)
    return [(problem.where, problem.code) for problem in report.problems]


def tensors_of(bundle: Path) -> dict[str, np.ndarray]:
    opened = Bundle.open(bundle)
    return {f"{r}.{s}": opened.tensor(r, s) for r in ("r0", "r1") for s in ("count", "mean", "var")}


@pytest.fixture
def resealed(bundle, forge, edit):
    """Put other tensors into the sidecar, with every digest made right again."""

    def apply(tensors: dict[str, np.ndarray], bundle_id: str = "") -> Path:
        raw = write_safetensors(tensors, {"dfmeta": bundle_id or Bundle.open(bundle).manifest.bundle.id})
        forge(bundle, SIDECAR, raw)

        def repin(document):
            for record in document["records"]:
                for tensor in record["tensors"].values():
                    if tensor["name"] in tensors:
                        blob = np.ascontiguousarray(tensors[tensor["name"]]).tobytes()
                        tensor["sha256"] = hashlib.sha256(blob).hexdigest()

        edit(bundle, repin)
        return bundle

    return apply


def test_a_good_bundle(bundle):
    report = validate(bundle, strict=True)
    assert report.valid
    assert (report.problems, report.warnings) == ((), ())
    assert report.identity == Bundle.open(bundle).identity
    assert (report.files, report.records) == (4, 2)
    assert report.bytes_hashed == sum((bundle / member).stat().st_size for member in MEMBERS)


def test_files_for_people_and_unlisted_files_are_not_looked_at(bundle):
    (bundle / "README.md").write_text("# Anything")
    os.mkfifo(bundle / "unlisted.onnx")
    assert codes(bundle) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changed_byte_in_any_member_is_found(bundle, data):
    member = data.draw(st.sampled_from([*MEMBERS, "dfmeta.json"]))
    original = (bundle / member).read_bytes()
    raw = bytearray(original)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    (bundle / member).write_bytes(raw)
    try:
        report = validate(bundle)
        if member == "dfmeta.json":
            # The manifest pins the others; what pins the manifest is its identity.
            assert report.identity != hashlib.sha256(original).hexdigest()
        else:
            assert [(problem.where, problem.code) for problem in report.problems] == [(member, "wrong-sha256")]
    finally:
        (bundle / member).write_bytes(original)


@pytest.mark.parametrize("member", MEMBERS)
def test_a_truncated_or_longer_member(bundle, member):
    raw = (bundle / member).read_bytes()
    for other in (raw[:-1], b"", raw + b"\0"):
        (bundle / member).write_bytes(other)
        assert codes(bundle) == [(member, "wrong-size")]


def test_swapped_members(bundle):
    (bundle / PROBE).rename(bundle / "swap")
    (bundle / SIDECAR).rename(bundle / PROBE)
    (bundle / "swap").rename(bundle / SIDECAR)
    assert sorted(codes(bundle)) == [(PROBE, "wrong-size"), (SIDECAR, "wrong-size")]


def test_a_sidecar_of_the_same_tensor_names(bundle):
    tensors = {name: values + values.dtype.type(1) for name, values in tensors_of(bundle).items()}
    (bundle / SIDECAR).write_bytes(write_safetensors(tensors, {"dfmeta": Bundle.open(bundle).manifest.bundle.id}))
    assert codes(bundle) == [(SIDECAR, "wrong-sha256")]


def test_a_sidecar_of_another_bundle(resealed, bundle):
    resealed(tensors_of(bundle), "urn:uuid:00000000-0000-0000-0000-000000000000")
    assert codes(bundle) == [(SIDECAR, "wrong-bundle")]


def test_missing_and_unreferenced_tensors(resealed, bundle):
    tensors = tensors_of(bundle)
    tensors["r9.hidden"] = tensors.pop("r0.mean")
    assert codes(resealed(tensors)) == [(SIDECAR, "missing-tensor"), (SIDECAR, "unreferenced-tensor")]


def test_layout_against_the_kind(resealed, bundle):
    tensors = tensors_of(bundle)
    tensors["r0.mean"] = np.zeros(3)
    tensors["r0.count"] = np.array(40.0)
    assert codes(resealed(tensors)) == [("record r0.count", "wrong-dtype"), ("record r0.mean", "wrong-shape")]


def test_statistics_against_the_kind(bundle, edit):
    def rename(document):
        tensors = document["records"][0]["tensors"]
        tensors["median"] = tensors.pop("mean")

    edit(bundle, rename)
    assert codes(bundle) == [
        ("record r0.tensors", "missing-statistic"),
        ("record r0.tensors", "unknown-statistic"),
    ]


@pytest.mark.parametrize(
    ("name", "values", "code"),
    [
        ("r0.mean", np.array([np.nan, 0]), "not-finite"),
        ("r0.var", np.array([-1.0, 0]), "negative"),
        ("r1.mean", np.ones((2, 2)), "filler"),
    ],
)
def test_numbers_against_the_kind(resealed, bundle, name, values, code):
    assert codes(resealed(tensors_of(bundle) | {name: values})) == [(f"record {name}", code)]


def test_a_tensor_digest_that_disagrees_with_the_file(bundle, edit):
    edit(bundle, lambda document: document["records"][0]["tensors"]["mean"].update(sha256="0" * 64))
    assert codes(bundle) == [(f"{SIDECAR}: r0.mean", "wrong-tensor-sha256")]


def test_a_header_digest_that_disagrees_with_the_file(bundle, edit):
    edit(bundle, lambda document: document["files"][1].update(header_sha256="0" * 64))
    assert codes(bundle) == [(SIDECAR, "wrong-header-sha256")]


def test_an_unknown_kind_makes_the_record_unusable_and_not_the_bundle(bundle, edit):
    edit(bundle, lambda document: document["records"][0].update(kind="os", kind_version=1))
    report = validate(bundle)
    assert report.valid
    assert report.records == 1
    assert report.warnings == ("record 'r0' is of kind 'os', which is unknown here: it is not usable.",)


def test_a_later_kind_and_an_unknown_group_make_the_record_unusable(bundle, edit):
    def later(document):
        document["records"][0]["kind_version"] = 9
        document["records"][1]["group"] = {"by": "patient"}

    edit(bundle, later)
    report = validate(bundle)
    assert report.valid
    assert report.records == 0
    assert any("version 9 of kind 'moments', and only 1 is known" in warning for warning in report.warnings)
    assert any("grouped by 'patient'" in warning for warning in report.warnings)


@pytest.mark.parametrize("configuration", [{}, {"rank": "many"}, {"rank": None}, {"rank": -1}, {"rank": 1e300}])
def test_a_configuration_that_a_kind_cannot_read(bundle, edit, configuration):
    edit(bundle, lambda document: document["records"][0].update(kind="spectrum", configuration=configuration))
    assert codes(bundle)[0][1] in ("bad-configuration", "missing-statistic")


@pytest.mark.parametrize("rank", [0, "2", True, 3, 1.0, [1], 2**53 - 1])
def test_a_rank_that_is_no_rank(bundle, edit, rank):
    """Two features have one or two eigenpairs; anything else must not reach the numbers."""

    def change(document):
        record = document["records"][0]
        record |= {"kind": "spectrum", "configuration": {"rank": rank}}

    edit(bundle, change)
    assert codes(bundle) == [("record r0", "bad-configuration")]
    with pytest.raises(SchemaError, match="not an integer from 1 to 2"):
        Bundle.open(bundle).record_tensors("r0")


def test_a_damaged_header_under_right_digests(bundle, forge, container):
    header = {"__metadata__": {"dfmeta": "x"}, "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 2]}}
    forge(bundle, SIDECAR, container(header, b"ab"))
    assert codes(bundle) == [(f"{SIDECAR}: a.data_offsets", "bad-offsets")]
    forge(bundle, SIDECAR, b"\xff" * 40)
    assert codes(bundle) == [(SIDECAR, "header-length")]
    forge(
        bundle,
        "model.safetensors",
        container({"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, b"abcd"),
    )
    assert ("model.safetensors: w.data_offsets", "bad-offsets") in codes(bundle)


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("s0.l2", np.array(np.inf), ("probe.s0.l2", "not-finite")),
        ("s0.mean", np.zeros(2), ("probe.s0.mean", "wrong-shape")),
        ("s0.mean", np.array(1), ("probe.s0.mean", "wrong-dtype")),
        ("input.0", np.zeros((4, 3), dtype=np.float32), ("probe.input.0", "wrong-shape")),
        ("output.0", np.zeros(4, dtype=np.float32), ("probe.output.0", "wrong-shape")),
    ],
)
def test_a_probe_that_does_not_fit_the_model(bundle, forge, name, values, problem):
    opened = Bundle.open(bundle)
    tensors = opened.probe_tensors() | {name: values}
    forge(bundle, PROBE, write_safetensors(tensors, {"dfmeta": opened.manifest.bundle.id}))
    assert codes(bundle) == [problem]


def test_a_sidecar_that_vanishes_between_two_reads(bundle, monkeypatch):
    module = importlib.import_module("dfmeta.bundle.validate")
    real = module._contents

    def later(opened, headers, findings):
        (bundle / SIDECAR).unlink()
        (bundle / PROBE).unlink()
        real(opened, headers, findings)

    monkeypatch.setattr(module, "_contents", later)
    # What is read ahead has been read by then.
    monkeypatch.setattr(module, "_numbers_ahead", lambda pool, opened: {})
    assert codes(bundle) == [(SIDECAR, "changed-while-read")] * 2 + [(PROBE, "changed-while-read")]


def test_links_are_not_followed(bundle, tmp_path):
    secret = tmp_path / "secret"
    shutil.copy(bundle / "model.onnx", secret)
    for target in (secret, Path("../secret")):
        (bundle / "model.onnx").unlink()
        (bundle / "model.onnx").symlink_to(target)
        assert codes(bundle) == [("model.onnx", "symlink")]


def test_linked_folders_are_not_followed(bundle, tmp_path):
    (bundle / "dfmeta").rename(tmp_path / "elsewhere")
    (bundle / "dfmeta").symlink_to(tmp_path / "elsewhere")
    assert set(codes(bundle)) == {(SIDECAR, "missing-file"), (PROBE, "missing-file")}


def test_what_is_not_a_file(bundle):
    """A FIFO must not make the reader wait, nor a device or socket be read."""
    (bundle / "model.onnx").unlink()
    os.mkfifo(bundle / "model.onnx")
    (bundle / PROBE).unlink()
    (bundle / PROBE).mkdir()
    (bundle / SIDECAR).unlink()
    holder = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(bundle)
    try:
        holder.bind(SIDECAR)
    finally:
        os.chdir(here)
        holder.close()
    assert set(codes(bundle)) == {
        ("model.onnx", "not-a-file"),
        (SIDECAR, "not-a-file"),
        (PROBE, "not-a-file"),
    }


def test_a_fifo_as_manifest(bundle):
    (bundle / "dfmeta.json").unlink()
    os.mkfifo(bundle / "dfmeta.json")
    report = validate(bundle)
    assert [problem.code for problem in report.problems] == ["not-a-file"]
    assert report.identity is None


def test_missing_things(bundle, tmp_path):
    (bundle / "model.onnx").unlink()
    assert codes(bundle) == [("model.onnx", "missing-file")]
    assert codes(tmp_path) == [("dfmeta.json", "missing-file")]
    assert codes(tmp_path / "nothing") == [(str(tmp_path / "nothing"), "no-folder")]


@contextlib.contextmanager
def not_root():
    """Root may read everything, so that it has to be someone else for a moment."""
    was = os.geteuid()
    os.seteuid(was or 65534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_a_member_without_permission(bundle):
    with tempfile.TemporaryDirectory() as name:
        copy = Path(shutil.copytree(bundle, Path(name) / "bundle"))
        Path(name).chmod(0o755)
        (copy / "model.onnx").chmod(0)
        with not_root():
            found = codes(copy)
    assert found == [("model.onnx", "unreadable")]


def test_manifest_faults_are_reported_and_not_raised(bundle, edit):
    edit(bundle, lambda document: document.update(format_version="3.1"))
    report = validate(bundle)
    assert [problem.code for problem in report.problems] == ["unsupported-version"]
    assert report.identity
    (bundle / "dfmeta.json").write_bytes(b"{")
    assert codes(bundle) == [("line 1 column 2", "not-json")]


def test_strict_validation_is_for_authors(bundle, edit):
    edit(bundle, lambda document: document["model"].update(nam="x"))
    assert codes(bundle) == []
    assert codes(bundle, strict=True) == [("model.nam", "unknown-member")]


def test_several_faults_are_reported_together(bundle):
    (bundle / "model.onnx").unlink()
    raw = bytearray((bundle / SIDECAR).read_bytes())
    raw[-1] ^= 1
    (bundle / SIDECAR).write_bytes(raw)
    assert codes(bundle) == [("model.onnx", "missing-file"), (SIDECAR, "wrong-sha256")]
