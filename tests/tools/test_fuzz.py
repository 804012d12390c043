"""The fuzzers' own parts: what they begin with, what they change, what they keep. Atheris itself is not needed here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

import onnx
import pytest

from dfmeta.errors import DfmetaError

ROOT = Path(__file__).resolve().parents[2]
FUZZ = ROOT / "tools" / "fuzz"


@pytest.fixture(scope="module", autouse=True)
def _on_the_path():
    sys.path.insert(0, str(FUZZ))
    yield
    sys.path.remove(str(FUZZ))


def seeded(number):
    return Random(number)  # noqa: S311 - repeatable is what it must be


def plain(raw, limit):
    return bytes(raw[:limit])[::-1]


def test_a_full_run_is_what_was_promised():
    import corpus
    import ledger
    import targets

    assert {name: extent.executions for name, extent in ledger.EXTENTS.items()} == {
        "manifest": 10**6,
        "header": 10**6,
        "graph": 10**5,
        "folder": 10**5,
    }
    assert targets.TARGETS.keys() == ledger.EXTENTS.keys()
    for name, extent in ledger.EXTENTS.items():
        assert len(list(corpus.seeds(name, extent.longest))) >= 40


@pytest.mark.parametrize("name", ["manifest", "header", "graph", "folder"])
def test_changes_are_repeatable_and_reach_deep(name):
    import corpus
    import ledger
    import targets
    import watch

    longest = ledger.EXTENTS[name].longest
    seeds, change = list(corpus.seeds(name, longest)), corpus.mutator(name)
    codes, accepted = set(), 0
    for number in range(120):
        raw = seeded(number).choice(seeds)
        made = change(raw, longest, seeded(number), plain)
        assert made == change(raw, longest, seeded(number), plain)
        assert len(made) <= longest
        try:
            met = targets.TARGETS[name](made)
        except DfmetaError as error:
            met = watch.codes_of(error)
        codes |= met
        accepted += not met
    # Most of what is made gets past the first check, and some of it past all of them.
    assert accepted >= 4
    assert len(codes) >= 8


def test_what_is_found_is_kept_once(tmp_path):
    import ledger
    import watch

    def target(raw):
        if raw == b"none":
            raise DfmetaError("here", "nothing")
        if raw.startswith(b"bad"):
            raise KeyError(raw)
        if raw == b"words":
            raise DfmetaError("here", "\ud800")
        return set() if raw == b"good" else {"some-code"}

    look = watch.Watch(target, tmp_path)
    for raw in (b"good", b"none", b"other", b"bad", b"bad again"):
        look(raw)
    kept = [path for path in tmp_path.glob("exception-*") if not path.suffix]
    assert [path.read_bytes() for path in kept] == [b"bad"]
    assert "KeyError" in kept[0].with_suffix(".txt").read_text()
    counts = ledger.counts_in(tmp_path)
    assert (counts.executions, counts.accepted) == (5, 1)
    assert ledger.codes_in(tmp_path) == ["DfmetaError", "KeyError", "some-code"]
    # A message that nobody can print is a finding too; and another process goes on counting.
    watch.Watch(target, tmp_path)(b"words")
    assert ledger.counts_in(tmp_path).executions == 6
    assert len([path for path in tmp_path.glob("exception-*") if not path.suffix]) == 2


def test_a_slow_input_is_a_hang(tmp_path, monkeypatch):
    import watch

    monkeypatch.setattr(watch, "SLOW_SECONDS", -1.0)
    watch.Watch(lambda raw: set(), tmp_path)(b"slow")
    assert [path.read_bytes() for path in tmp_path.glob("hang-*") if not path.suffix] == [b"slow"]


def test_what_a_run_says(tmp_path, capsys):
    import run

    for name in ("crash-1", "oom-2", "timeout-3", "exception-4", "exception-4.txt", "log"):
        (tmp_path / name).write_bytes(b"#7\tNEW    cov: 466 ft: 1695 corp: 218/5Kb lim: 9\n")
    row = run._row("graph", tmp_path, 1.0)
    assert (row.crashes, row.hangs, row.exceptions, row.findings) == (2, 1, 1, 4)
    assert (row.edges, row.features, row.corpus) == (466, 1695, 218)
    assert "| graph | 0 | 0 | 0 | 2 | 1 | 1 | 466 | 1,695 |" in run.table([row])
    with pytest.raises(SystemExit) as caught:
        run.main(["--target", "nothing"])
    assert caught.value.code == 2
    capsys.readouterr()


def test_a_folder_comes_back_and_never_leaves_its_place(tmp_path):
    import packing

    members = [
        packing.Member("a/b", b"1"),
        packing.Member("../out", b"2"),
        packing.Member("/tmp/out", b"3"),  # noqa: S108 - what must not be made
        packing.Member("link", b"..", packing.LINK),
        packing.Member("link/out", b"4"),
    ]
    raw = packing.pack(members)
    assert packing.members_of(raw) == members
    packing.unpack(raw, tmp_path / "in")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "in",
        "in/a",
        "in/a/b",
        "in/link",
    ]
    for cut in range(len(raw)):
        packing.members_of(raw[:cut])


def test_a_document_is_changed_as_written():
    import json_mutator

    raw = b'{"a":[1,1e999,NaN],"a":"\\u00e9"}'
    document = json_mutator.parsed(raw)
    assert json_mutator.written(document) == '{"a":[1,1e999,NaN],"a":"é"}'
    vocabulary = json_mutator.Vocabulary.of([raw, b"not json"])
    assert vocabulary.keys == ["a"]
    made = {json_mutator.mutate(raw, 1000, seeded(seed), vocabulary, plain) for seed in range(50)}
    assert len(made) > 25


def test_a_manifest_pins_what_was_changed():
    import folder_mutator
    from packing import Member

    manifest = {"files": [{"id": "g", "path": "model.onnx", "size": 1, "sha256": "0" * 64}]}
    members = [Member("dfmeta.json", json.dumps(manifest).encode()), Member("model.onnx", b"graph")]
    folder_mutator.pin(members)
    assert json.loads(members[0].content)["files"][0]["size"] == 5


def test_a_graph_stays_a_message():
    import corpus
    import onnx_mutator

    (seed, *_) = corpus._inputs("graph", good=True)
    parsed = 0
    for number in range(100):
        made = onnx_mutator.mutate(seed, 4096, seeded(number), [seed], plain)
        try:
            onnx.ModelProto.FromString(made)
        except Exception:  # noqa: BLE001, S112 - protobuf's own, of several types
            continue
        parsed += 1
    assert parsed > 80
