"""What makes large bundles fast changes nothing that is found: quick ways and thorough ones agree, in any thread."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dfmeta.bundle import Bundle, members, validate, write_bundle
from dfmeta.errors import BundleError, IntegrityError, Problem, SchemaError, UnknownName
from dfmeta.schema import json_strict, v1

MODULE = importlib.import_module("dfmeta.bundle.validate")
SIDECAR = "dfmeta/records.safetensors"
RECORDS = 24
SMALL = json_strict.Limits(size=400, depth=3, string_bytes=8, array_items=3, object_members=3)


@pytest.fixture
def many(parts, tmp_path):
    """A bundle of many records, each with numbers of its own."""
    manifest, contents = parts
    first = manifest.records[0]
    tensors, records = {}, []
    for number in range(RECORDS):
        name = f"m{number}"
        for key, tensor in first.tensors.items():
            tensors[f"{name}.{key}"] = contents[SIDECAR][tensor.name] + (number if key == "mean" else 0)
        drafts = {key: v1.TensorRef.draft(f"{name}.{key}") for key in first.tensors}
        records.append(first.model_copy(update={"id": name, "tensors": drafts}))
    path = tmp_path / "many"
    write_bundle(path, manifest.model_copy(update={"records": records}), {**contents, SIDECAR: tensors})
    return path


def codes(bundle):
    return [(problem.where, problem.code) for problem in validate(bundle).problems]


def nothing_ahead(pool, bundle):
    return {}


def replaced(bundle, forge, edit, name, values):
    """Other numbers in one tensor, all digests made right."""
    raw = bytearray((bundle / SIDECAR).read_bytes())
    entry = Bundle.open(bundle).header("records").tensors[name]
    raw[entry.start : entry.end] = np.asarray(values, "<f8" if entry.dtype == "F64" else "<f4").tobytes()
    forge(bundle, SIDECAR, bytes(raw))
    record, statistic = name.split(".")

    def repin(document):
        (found,) = (each for each in document["records"] if each["id"] == record)
        found["tensors"][statistic]["sha256"] = hashlib.sha256(raw[entry.start : entry.end]).hexdigest()

    edit(bundle, repin)


def test_every_record_is_examined_once_and_begun_while_its_file_is_hashed(many, monkeypatch):
    seen = []
    real = MODULE._numbers
    monkeypatch.setattr(
        MODULE, "_numbers", lambda bundle, record, spec: seen.append(record.id) or real(bundle, record, spec)
    )
    begun = []
    ahead = MODULE._numbers_ahead
    monkeypatch.setattr(MODULE, "_numbers_ahead", lambda pool, bundle: begun.append(ahead(pool, bundle)) or begun[0])
    report = validate(many)
    assert report.valid
    assert report.records == RECORDS
    assert sorted(seen) == sorted(begun[0]) == sorted(f"m{number}" for number in range(RECORDS))


def test_problems_come_in_the_manifest_s_order_whatever_ends_first(many, forge, edit, monkeypatch):
    for number in (20, 3, 11):
        replaced(many, forge, edit, f"m{number}.var", [-1.0, 0.0])
    real = MODULE._numbers

    def late(bundle, record, spec):
        time.sleep(0.02 if record.id == "m3" else 0)
        return real(bundle, record, spec)

    monkeypatch.setattr(MODULE, "_numbers", late)
    expected = [(f"record m{number}.var", "negative") for number in (3, 11, 20)]
    assert codes(many) == expected
    monkeypatch.setattr(MODULE, "_numbers_ahead", nothing_ahead)
    assert codes(many) == expected


def test_a_file_that_is_wrong_speaks_alone(many, forge, edit):
    """Numbers were examined ahead, and found wanting; but of other bytes than the manifest pins nothing counts."""
    replaced(many, forge, edit, "m5.var", [-1.0, 0.0])
    edit(many, lambda document: document["files"][1].update(sha256="0" * 64))
    assert codes(many) == [(SIDECAR, "wrong-sha256")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_is_found_alike_with_and_without_looking_ahead(bundle, data):
    original = (bundle / SIDECAR).read_bytes()
    raw = bytearray(original)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    (bundle / SIDECAR).write_bytes(raw)
    try:
        found = validate(bundle)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MODULE, "_numbers_ahead", nothing_ahead)
            assert validate(bundle) == found
        assert [problem.code for problem in found.problems] == ["wrong-sha256"]
    finally:
        (bundle / SIDECAR).write_bytes(original)


def test_large_records_are_examined_one_at_a_time(many, monkeypatch):
    monkeypatch.setattr(MODULE, "_LARGE", 0)
    monkeypatch.setattr(MODULE, "_THREADS", 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    running, most = 0, 0

    def slow(bundle, record, spec):
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.002)
        running -= 1
        return []

    monkeypatch.setattr(MODULE, "_numbers", slow)
    assert validate(many).valid
    assert most == 1


def test_an_interruption_leaves_no_thread_and_no_work_behind(many, monkeypatch):
    done = []

    def interrupted(bundle, headers, findings):
        raise KeyboardInterrupt

    def slow(bundle, record, spec):
        time.sleep(0.05)
        done.append(record.id)
        return []

    monkeypatch.setattr(MODULE, "_contents", interrupted)
    monkeypatch.setattr(MODULE, "_numbers", slow)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        validate(many)
    assert threading.active_count() == before
    assert len(done) < RECORDS


def test_hashing_gives_up_when_told(tmp_path):
    (tmp_path / "file").write_bytes(bytes(3 * members.CHUNK))
    stopped = threading.Event()
    with opened(tmp_path / "file") as descriptor:
        whole = members.sha256_of(descriptor, 3 * members.CHUNK, "file", stopped=stopped)
        assert whole == hashlib.sha256(bytes(3 * members.CHUNK)).hexdigest()
        stopped.set()
        problem = members.sha256_of(descriptor, 3 * members.CHUNK, "file", stopped=stopped)
    assert isinstance(problem, Problem)
    assert problem.code == "unreadable"


@pytest.mark.parametrize("size", [0, 1, members.CHUNK - 1, members.CHUNK, 2 * members.CHUNK + 3])
def test_what_is_read_piece_by_piece_is_what_is_hashed(tmp_path, size):
    raw = np.random.default_rng(size).bytes(size + 5)
    (tmp_path / "file").write_bytes(raw)
    buffer = bytearray(size)
    with opened(tmp_path / "file") as descriptor:
        digest = members.hashed_into(descriptor, memoryview(buffer), 5, "file")
        short = members.hashed_into(descriptor, memoryview(bytearray(size + 1)), 5, "file")
    assert bytes(buffer) == raw[5:]
    assert digest == hashlib.sha256(raw[5:]).hexdigest()
    assert isinstance(short, Problem)
    assert (short.code, short.found) == ("truncated", f"{size + 5} bytes")


@contextmanager
def opened(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_a_sidecar_s_header(many, edit):
    bundle = Bundle.open(many)
    assert len(bundle.header("records").tensors) == 3 * RECORDS
    with pytest.raises(UnknownName):
        bundle.header("nothing")
    with pytest.raises(BundleError, match="a sidecar of records"):
        bundle.header("graph")
    edit(many, lambda document: document["files"][1].update(header_sha256="0" * 64))
    with pytest.raises(IntegrityError):
        Bundle.open(many).header("records")


LEAVES = st.one_of(
    st.sampled_from(
        ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1.5", "0.1234567890123456789", "-0", "true", "null"]
    ),
    st.sampled_from(["9007199254740991", "9007199254740992", "-9007199254740992", "9" * 40, "1" * 16, "01", "1."]),
    st.sampled_from(
        ['"\\ud800"', '"\\uDC00"', '"\\ud83d\\ude00"', '"\\\\ud800"', '"[{"', '"a\\"]"', '"', '"\\u0041"', "'a'"]
    ),
    st.text(max_size=10).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.text(max_size=10).map(json.dumps),
)
KEYS = st.one_of(st.sampled_from(['"a"', '"b"', '"\\u0061"', '"]"']), st.text(max_size=3).map(json.dumps))
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(KEYS, inner), max_size=4).map(
            lambda pairs: "{" + ",\n".join(f"{key}:{value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=8,
)


def outcome(raw, limits):
    try:
        # repr: -0.0 is not 0.0, nor is 1 True.
        return repr(json_strict.parse(raw, "x", limits))
    except SchemaError as error:
        return error.problems


@settings(max_examples=600, deadline=None)
@given(st.one_of(DOCUMENTS.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=12)))
@example(b"[[[]]]")
@example(b"[[[[]]]]")
@example(b'[{"a":[{}]}]')
@example(b"[1, 2, 3, [1, 2, 3, 4]]")
@example(b'{"a": [[1, 2, 3, 4]]}')
@example(b'{"a": "12345678"}')
@example(b'{"a": "123456789"}')
@example(b'{"a": 1, "b": 2, "a": 3}')
@example(b"[1 2345678901234567]")
@example(b"]")
@example(b"\xef\xbb\xbf{}")
def test_the_quick_parser_gives_what_the_thorough_one_gives(raw):
    """Every document, good or bad, under wide limits and narrow ones."""
    for limits in (SMALL, json_strict.MANIFEST_LIMITS):
        found = outcome(raw, limits)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_strict, "_plain", thorough_only)
            assert outcome(raw, limits) == found


def thorough_only(raw, limits):
    raise json_strict._Irregular


def test_an_ordinary_manifest_takes_the_quick_way(many, monkeypatch):
    monkeypatch.setattr(json_strict, "_before_parsing", None)
    assert len(Bundle.open(many).manifest.records) == RECORDS
