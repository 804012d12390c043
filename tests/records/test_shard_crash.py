"""Private folders and checkpoints, killed or refused at every operation: the old one or the new one, and whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from dfmeta.errors import BundleError
from dfmeta.records.shard_checkpoint import Checkpoint
from dfmeta.records.shard_files import read_arrays, read_document, read_further, write_private

ARRAYS = {"a0000.mean": np.arange(300.0), "units": np.arange(2)}
FURTHER = {"model.onnx": b"graph" * 100}


def write(path: Path) -> None:
    write_private(path, "dfmeta-shard.json", {"name": "north"}, ARRAYS, FURTHER)


def require_whole(path: Path) -> None:
    document = read_document(path, "dfmeta-shard.json")
    assert document["name"] == "north"
    assert {name: values.tolist() for name, values in read_arrays(path, document).items()} == {
        name: values.tolist() for name, values in ARRAYS.items()
    }
    assert read_further(path, document, "model.onnx") == FURTHER["model.onnx"]


def test_a_shard_killed_at_every_operation(tmp_path, faulty_disk):
    there = []

    def look(name):
        there.append(os.path.lexists(tmp_path / "north"))
        if there[-1]:
            require_whole(tmp_path / "north")

    with faulty_disk.dying(look):
        write(tmp_path / "north")
    assert there == sorted(there)
    assert faulty_disk.done[there.index(True) - 1] == "rename"
    assert {"make_folder", "create", "write", "sync", "close", "sync_folder"} <= set(faulty_disk.done)


def test_a_shard_refused_at_every_operation(tmp_path, faulty_disk):
    for at in range(1, 100):
        folder = tmp_path / str(at)
        folder.mkdir()
        try:
            with faulty_disk.refusing(at):
                write(folder / "north")
        except BundleError as error:
            text = str(error)
        else:
            require_whole(folder / "north")
            break
        if "It is in place" in text:
            require_whole(folder / "north")
        else:
            assert "Nothing was written" in text
            assert list(folder.iterdir()) == []
    assert at == len(faulty_disk.done) + 1 > 12


@pytest.fixture
def checkpoint(tmp_path):
    """``checkpoint(name)``: one that has been written three times, so that both of its slots are taken."""

    def make(name: str) -> Checkpoint:
        keeper = Checkpoint(tmp_path / name, {"plan": 1})
        keeper.load()
        for batch in (1, 2, 3):
            keeper.save(batch, f"digest {batch}", ARRAYS)
        return keeper

    return make


def batch_of(folder: Path, copy: Path) -> int | None:
    """What the next process finds; on a copy, as it tidies up."""
    if not folder.exists():
        return None
    shutil.copytree(folder, copy)
    saved = Checkpoint(copy, {"plan": 1}).load()
    shutil.rmtree(copy)
    if saved is None:
        return None
    assert {name: values.tolist() for name, values in saved.arrays.items()} == {
        name: values.tolist() for name, values in ARRAYS.items()
    }
    return saved.batch


def test_a_checkpoint_killed_at_every_operation(tmp_path, faulty_disk, checkpoint):
    keeper, found = checkpoint("ck"), []
    with faulty_disk.dying(lambda name: found.append(batch_of(tmp_path / "ck", tmp_path / "copy"))):
        keeper.save(4, "digest 4", ARRAYS)
    assert faulty_disk.done.count("rename") == 2
    assert found == sorted(found)
    assert set(found) == {3, 4}


def test_a_checkpoint_refused_at_every_operation(tmp_path, faulty_disk, checkpoint):
    for at in range(1, 100):
        keeper = checkpoint(str(at))
        folder = tmp_path / str(at)
        try:
            with faulty_disk.refusing(at):
                keeper.save(4, "digest 4", ARRAYS)
        except BundleError as error:
            text = str(error)
        else:
            assert batch_of(folder, tmp_path / "copy") == 4
            if len(faulty_disk.done) < at:
                break
            # The old slot could not be removed: it is hidden, and the next to look removes it.
            assert faulty_disk.done[at - 1] == "remove_tree"
            continue
        in_place = "It is in place" in text
        assert in_place or "Nothing was written" in text
        # Nothing is lost: both slots are what they were.
        assert sorted(path.name for path in folder.iterdir()) == ["slot-0", "slot-1"]
        assert batch_of(folder, tmp_path / "copy") == (4 if in_place else 3)
        assert read_document(folder / "slot-0", "dfmeta-checkpoint.json")["batch"] == (4 if in_place else 2)
    assert at == len(faulty_disk.done) + 1 > 12


def test_a_checkpoint_that_is_removed_is_there_until_its_last_step(tmp_path, faulty_disk, checkpoint):
    keeper, found = checkpoint("ck"), []
    with faulty_disk.dying(lambda name: found.append(batch_of(tmp_path / "ck", tmp_path / "copy"))):
        keeper.remove()
    assert found[0] == 3
    assert found[-1] is None
    assert found == sorted(found, key=lambda batch: batch is None)
