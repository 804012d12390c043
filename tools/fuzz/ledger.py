"""What a run is to do and how far it is; read by the process that starts fuzzers and written by those that fuzz."""

from __future__ import annotations

import json
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

_COUNTS = struct.Struct("<QQd")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a target a full run tries.

    Attributes:
        executions: inputs examined.
        longest: bytes of the largest of them.
    """

    executions: int
    longest: int


EXTENTS = {
    "graph": Extent(100_000, 2**14),
    "folder": Extent(100_000, 2**16),
    "header": Extent(1_000_000, 2**14),
    "manifest": Extent(1_000_000, 2**15),
}
"""Every target, in the order in which a full run takes them."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How far a run is.

    Attributes:
        executions: inputs examined.
        accepted: those of them that were not refused.
        slowest: processor seconds of the slowest.
    """

    executions: int = 0
    accepted: int = 0
    slowest: float = 0.0


class Ledger:
    """The counts and the codes of a run, in a folder, kept however the process ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.counts, self._codes = counts_in(folder), set(codes_in(folder))
        file = folder / "counts"
        if not file.exists():
            file.write_bytes(bytes(_COUNTS.size))
        with file.open("r+b") as stream:
            self._held = mmap.mmap(stream.fileno(), _COUNTS.size)

    def add(self, codes: set[str], seconds: float) -> None:
        """Count one input: the codes of its refusal, and the processor time that it took."""
        old = self.counts
        self.counts = Counts(old.executions + 1, old.accepted + (not codes), max(old.slowest, seconds))
        _COUNTS.pack_into(self._held, 0, self.counts.executions, self.counts.accepted, self.counts.slowest)
        if not codes <= self._codes:
            self._codes |= codes
            (self._folder / "codes.json").write_text(json.dumps(sorted(self._codes)))


def counts_in(folder: Path) -> Counts:
    """How far the run of a folder is."""
    file = folder / "counts"
    return Counts(*_COUNTS.unpack(file.read_bytes())) if file.exists() else Counts()


def codes_in(folder: Path) -> list[str]:
    """The codes that a run has met."""
    file = folder / "codes.json"
    return list(json.loads(file.read_text())) if file.exists() else []
