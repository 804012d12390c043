"""Writing: what comes back is what was given, always the same bytes, and never over anything."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from dfmeta.bundle import Bundle, parse_header, validate, write_bundle, write_file, write_safetensors, writer
from dfmeta.errors import BundleError, OutputExists, SchemaError
from dfmeta.schema import v1

SIDECAR = "dfmeta/records.safetensors"


def leftovers(folder) -> list[str]:
    return [path.name for path in folder.iterdir() if "dfmeta-tmp" in path.name]


def test_what_is_written_reads_back(tmp_path, parts):
    manifest, members = parts
    identity = write_bundle(tmp_path / "out", manifest, members | {"README.md": b"# Hello", "LICENSE": b"CC0"})
    opened = Bundle.open(tmp_path / "out")
    assert opened.identity == identity == validate(tmp_path / "out", strict=True).identity
    for name, values in members[SIDECAR].items():
        record, statistic = name.split(".")
        np.testing.assert_array_equal(opened.tensor(record, statistic), values)
    assert (tmp_path / "out" / "README.md").read_bytes() == b"# Hello"
    assert leftovers(tmp_path) == []


def test_equal_input_gives_equal_bytes(tmp_path, parts, bundle):
    manifest, members = parts
    one = write_bundle(tmp_path / "one", manifest, members)
    two = write_bundle(tmp_path / "two", manifest, dict(reversed(members.items())))
    assert one == two == Bundle.open(bundle).identity


def test_drafts_are_filled_in(tmp_path, parts):
    manifest, members = parts
    files = [v1.File.draft(file.id, file.role, file.path) for file in manifest.files]
    records = [
        record.model_copy(update={"tensors": {k: v1.TensorRef.draft(t.name) for k, t in record.tensors.items()}})
        for record in manifest.records
    ]
    draft = manifest.model_copy(update={"files": files, "records": records})
    identity = write_bundle(tmp_path / "out", draft, members)
    assert identity == write_bundle(tmp_path / "again", manifest, members)


def test_unknown_members_survive_a_rewrite(tmp_path, parts):
    manifest, members = parts
    later = v1.Manifest.model_validate(manifest.model_dump(by_alias=True) | {"later": {"a": [None, 1]}})
    write_bundle(tmp_path / "out", later, members)
    assert Bundle.open(tmp_path / "out").manifest.model_extra == {"later": {"a": [None, 1]}}


def test_permissions_follow_the_umask(tmp_path, parts):
    before = os.umask(0o027)
    try:
        write_bundle(tmp_path / "out", *parts)
        write_file(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*")}
    assert modes["dfmeta"] == 0o750
    assert modes["dfmeta.json"] == modes["records.safetensors"] == 0o640
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_bytes(b""), lambda p: p.symlink_to("x")])
def test_nothing_is_overwritten(tmp_path, parts, make):
    make(tmp_path / "out")
    before = os.lstat(tmp_path / "out")
    with pytest.raises(OutputExists, match="Choose another output path"):
        write_bundle(tmp_path / "out", *parts)
    with pytest.raises(OutputExists):
        write_file(tmp_path / "out", b"x")
    assert os.lstat(tmp_path / "out") == before


@pytest.mark.parametrize("make", [lambda p: (p.mkdir(), (p / "a").mkdir()), lambda p: p.write_bytes(b"mine")])
def test_a_target_that_appears_while_writing_is_not_overwritten(tmp_path, parts, monkeypatch, make):
    real = writer.validate

    def slow(folder):
        make(tmp_path / "out")
        return real(folder)

    monkeypatch.setattr(writer, "validate", slow)
    with pytest.raises(OutputExists):
        write_bundle(tmp_path / "out", *parts)
    assert leftovers(tmp_path) == []


def test_a_file_that_appears_while_writing_is_not_overwritten(tmp_path, monkeypatch):
    real = os.link

    def slow(source, target):
        target.write_bytes(b"mine")
        return real(source, target)

    monkeypatch.setattr(os, "link", slow)
    with pytest.raises(OutputExists):
        write_file(tmp_path / "out", b"theirs")
    assert (tmp_path / "out").read_bytes() == b"mine"
    assert leftovers(tmp_path) == []


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_file(tmp_path / "out", b"x" * 10)
    assert (tmp_path / "out").read_bytes() == b"x" * 10
    assert leftovers(tmp_path) == []


def test_members_and_manifest_must_match(tmp_path, parts):
    manifest, members = parts
    with pytest.raises(BundleError, match=r"no content for model\.onnx"):
        write_bundle(tmp_path / "out", manifest, {k: v for k, v in members.items() if k != "model.onnx"})
    with pytest.raises(BundleError, match=r"content for \.\./evil, expected only files that the manifest lists"):
        write_bundle(tmp_path / "out", manifest, members | {"../evil": b""})
    assert list(tmp_path.iterdir()) == []


def test_no_parent_folder(tmp_path, parts):
    with pytest.raises(BundleError, match="no such file or directory"):
        write_bundle(tmp_path / "a" / "out", *parts)
    with pytest.raises(BundleError, match="no such file or directory"):
        write_file(tmp_path / "a" / "out", b"")


def test_a_manifest_that_breaks_the_format_is_never_written(tmp_path, parts):
    manifest, members = parts
    bad = manifest.model_copy(update={"runs": []})
    with pytest.raises(SchemaError, match="dangling-reference"):
        write_bundle(tmp_path / "out", bad, members)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "values", "code"),
    [
        ("r0.mean", np.array([np.nan, 1]), "not-finite"),
        ("r0.mean", np.zeros(3), "wrong-shape"),
        ("r9.mean", np.zeros(2), "unreferenced-tensor"),
    ],
)
def test_numbers_that_break_the_format_are_found_on_reading_back(tmp_path, parts, name, values, code):
    manifest, members = parts
    members[SIDECAR] = members[SIDECAR] | {name: values}
    with pytest.raises(SchemaError, match=code):
        write_bundle(tmp_path / "out", manifest, members)
    assert list(tmp_path.iterdir()) == []


def test_a_sidecar_given_as_bytes_is_checked(tmp_path, parts):
    manifest, members = parts
    with pytest.raises(SchemaError, match="header-length"):
        write_bundle(tmp_path / "out", manifest, members | {SIDECAR: b"\xff" * 20})
    raw = write_safetensors(members[SIDECAR], {"dfmeta": manifest.bundle.id})
    write_bundle(tmp_path / "out", manifest, members | {SIDECAR: raw})


def test_an_interrupt_leaves_nothing(tmp_path, parts, monkeypatch):
    def interrupt(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "validate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "out", *parts)
    assert list(tmp_path.iterdir()) == []


dtypes = st.sampled_from(["<f8", "<f4", "<f2", "<i8", "i1", "u1"])
tensors = st.dictionaries(
    st.from_regex(r"[a-z0-9_]{1,4}(\.[a-z0-9_]{1,4}){0,2}", fullmatch=True),
    dtypes.flatmap(lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, min_side=0, max_side=4))),
    max_size=5,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(tensors)
def test_any_tensors_make_a_container_that_we_accept(values):
    raw = write_safetensors(values, {"dfmeta": "x"})
    length = int.from_bytes(raw[:8], "little")
    header = parse_header(raw[8 : 8 + length], len(raw))
    assert (8 + length) % 8 == 0
    for name, array in values.items():
        entry = header.tensors[name]
        assert raw[entry.start : entry.end] == array.tobytes()
        assert entry.start % array.itemsize == 0
