"""Checkpoints: a pass over data that is killed at any moment goes on where it was.

Two slots are written in turn, each whole or not at all, so that one that can be read is always there.
"""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfmeta.bundle import operations
from dfmeta.bundle.staging import leftovers, remove
from dfmeta.errors import BundleError, DfmetaError
from dfmeta.records.shard_configuration import require_same
from dfmeta.records.shard_files import FOLDER_MODE, read_arrays, read_document, write_private

CHECKPOINT_NAME = "dfmeta-checkpoint.json"
DEFAULT_SECONDS = 60.0
_SLOTS = ("slot-0", "slot-1")
# Writing takes no more than this share of the time, however large the statistics are.
_SHARE = 1 / 30
_NOTICE = "This is the publisher's private file and never part of a release. It can be removed once the work is done."


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        batch: the batch to go on with.
        last: digest of the batch before it.
        arrays: the state after that one.
    """

    batch: int
    last: str
    arrays: dict[str, np.ndarray]


_FIX = "Give the model and options that it was started with, or remove the checkpoint and start again."


class Checkpoint:
    """A folder in which the state of one pass over data is kept while it runs.

    Args:
        folder: made if it is not there; its parent exists. Used for one pass at a time.
        identity: what is being recorded and how, in JSON types: only the very same is taken up again.
        seconds: how long to wait between two writings, at least; 0 writes after every batch.
        clock: seconds, rising.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        identity: Mapping[str, Any],
        *,
        seconds: float = DEFAULT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # As it will be read: a tuple comes back as a list.
        self.folder, self.identity = Path(folder), json.loads(json.dumps(identity))
        self._seconds, self._clock = seconds, clock
        self._number, self._wait, self._last = 0, seconds, clock()

    def load(self) -> Saved | None:
        """The newest state that is whole; None where nothing was written yet.

        Raises:
            MergeError: the checkpoint of another model, plan, data set or engine; the text names the difference.
            BundleError: something is there, and none of it is whole; or the folder cannot be made.
        """
        self._make()
        found: list[tuple[int, Path, dict[str, Any]]] = []
        failure: DfmetaError | None = None
        for path in (self.folder / slot for slot in _SLOTS):
            if os.path.lexists(path):
                try:
                    document = read_document(path, CHECKPOINT_NAME)
                    found.append((int(document["number"]), path, document))
                except (DfmetaError, KeyError, TypeError, ValueError) as error:
                    failure = _damaged(path, error)
        for number, path, document in sorted(found, key=lambda each: -each[0]):
            require_same(str(path), document.get("identity", {}), "what is asked now", self.identity, _FIX)
            try:
                saved = Saved(int(document["batch"]), str(document["last"]), read_arrays(path, document))
            except (DfmetaError, KeyError, TypeError, ValueError) as error:
                failure = _damaged(path, error)
                continue
            self._number = number
            return saved
        if failure is not None:
            raise failure
        return None

    def due(self) -> bool:
        """Whether it is time to write."""
        return self._clock() - self._last >= self._wait

    def save(self, batch: int, last: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the state after a batch.

        Args:
            batch: the batch to go on with.
            last: digest of the batch before it.
            arrays: the state.

        Raises:
            BundleError: the disk refused; the state before is still there.
        """
        begun = self._clock()
        self._number += 1
        document = {
            "format": "dfmeta-checkpoint",
            "version": 1,
            "notice": _NOTICE,
            "number": self._number,
            "batch": batch,
            "last": last,
            "identity": self.identity,
        }
        slot = self.folder / _SLOTS[self._number % 2]
        write_private(slot, CHECKPOINT_NAME, document, arrays, {}, replace=True)
        self._last = self._clock()
        if self._seconds:
            self._wait = max(self._seconds, (self._last - begun) / _SHARE)

    def remove(self) -> None:
        """Take it away: the work is done. What else lies in the folder is left alone."""
        # The older one first: until the last step, the newest is there.
        for number in (self._number + 1, self._number):
            remove(self.folder / _SLOTS[number % 2])
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            operations.remove_folder(self.folder)

    def _make(self) -> None:
        try:
            if not self.folder.is_dir():
                operations.make_folder(self.folder, FOLDER_MODE)
            for path in leftovers(self.folder):
                with suppress(OSError):
                    operations.remove_tree(path)
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise BundleError(str(self.folder), reason, "a folder for the checkpoint", "Choose another.") from error


def checkpoints_at(folder: str | os.PathLike[str]) -> list[Path]:
    """Folders of checkpoints that were begun under this name, those of the ranks of torchrun included."""
    path = Path(folder)
    ranks = sorted(path.parent.glob(f"{glob.escape(path.name)}-*-of-*"))
    return [each for each in (path, *ranks) if any((each / slot / CHECKPOINT_NAME).is_file() for slot in _SLOTS)]


def checkpoint_of_rank(folder: str | os.PathLike[str], rank: int, size: int) -> Path:
    """The folder of one of several processes that were given the same name; the name itself of the only one."""
    path = Path(folder)
    return path if size == 1 else path.with_name(f"{path.name}-{rank}-of-{size}")


def _damaged(path: Path, error: Exception) -> BundleError:
    fix = "Remove the checkpoint and start again."
    return BundleError(str(path), f"a damaged checkpoint ({error})", "a whole one", fix)
