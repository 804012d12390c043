"""Merging, killed or refused at every operation: no release and no shard, or a whole one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from dfmeta.data import from_flags
from dfmeta.errors import BundleError
from dfmeta.pipeline import Gathering, merge, merge_into_shard, record_shard, release, validate
from dfmeta.records import shards
from dfmeta.records.shards import Shard


@pytest.fixture(scope="module")
def parts(digits_teacher, tmp_path_factory):
    """The test digits in two shards."""
    folder = tmp_path_factory.mktemp("parts")
    how = Gathering(presets=("top-layer",), preprocessing=from_flags(1 / 255))
    for number, name in enumerate(("east", "west"), 1):
        record_shard(digits_teacher, "digits:test", folder / name, name=name, gathering=how, part=(number, 2))
    return [folder / name for name in ("east", "west")]


@dataclass(frozen=True)
class Merging:
    """How to merge to a path, whether what is there is whole, and which function does the writing."""

    write: Callable[[Path], object]
    is_whole: Callable[[Path], bool]
    writer: tuple[ModuleType, str]


@pytest.fixture(params=["bundle", "shard"])
def merging(request, parts):
    if request.param == "bundle":
        return Merging(lambda path: merge(parts, path), lambda path: validate(path).valid, (release, "write_bundle"))
    units = sum(Shard.read(part).portion.units for part in parts)
    return Merging(
        lambda path: merge_into_shard(parts, path, name="both"),
        lambda path: Shard.read(path).portion.units == units,
        (shards, "write_private"),
    )


def test_killed_at_every_operation(tmp_path, faulty_disk, merging):
    there = []

    def look(name):
        there.append(os.path.lexists(tmp_path / "out"))
        assert not there[-1] or merging.is_whole(tmp_path / "out")

    with faulty_disk.dying(look):
        merging.write(tmp_path / "out")
    assert there == sorted(there)
    assert faulty_disk.done[there.index(True) - 1] == "rename"
    assert {"make_folder", "create", "write", "sync", "close", "sync_folder"} <= set(faulty_disk.done)


def test_refused_at_every_operation(tmp_path, faulty_disk, merging, monkeypatch):
    """Everything is read and added up once, and written again and again: merging does no operation of its own."""
    module, name = merging.writer
    real = getattr(module, name)
    refused = []

    def each_in_turn(path, *arguments):
        for at in range(1, 100):
            out = tmp_path / str(at) / "out"
            out.parent.mkdir()
            try:
                with faulty_disk.refusing(at):
                    real(out, *arguments)
            except BundleError as error:
                refused.append((str(error), out))
            else:
                break
        assert at == len(faulty_disk.done) + 1 > 12
        return real(path, *arguments)

    monkeypatch.setattr(module, name, each_in_turn)
    merging.write(tmp_path / "out")
    assert merging.is_whole(tmp_path / "out")
    assert len(refused) > 12
    for text, out in refused:
        in_place = "It is in place" in text
        assert in_place or "Nothing was written" in text
        assert [path.name for path in out.parent.iterdir()] == ["out"] * in_place
        assert not in_place or merging.is_whole(out)
