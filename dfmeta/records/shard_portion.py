"""A portion: what was gathered over some units, with a digest of each unit.

Digests are how two portions show that they have no unit in common, without either holding one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from dfmeta.records.gathered import Gathered

DIGEST_BYTES = 16
_DIGESTS = "unit_digests"


def unit_digests(inputs: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """A BLAKE2b-128 digest (RFC 7693) of each unit's bytes as the model reads them.

    Equal bytes give equal digests; that two of 10^9 different units share one has a chance of 10^-21.

    Args:
        inputs: ``[n, ...]`` for each input.
        names: the inputs in the graph's order, in which their bytes are joined.

    Returns:
        ``[n, 16]`` uint8.
    """
    columns = [np.ascontiguousarray(inputs[name]) for name in names]
    found = np.empty((len(columns[0]), DIGEST_BYTES), np.uint8)
    for row in range(len(found)):
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        for column in columns:
            digest.update(column[row].tobytes())
        found[row] = np.frombuffer(digest.digest(), np.uint8)
    return found


def in_common(one: np.ndarray, two: np.ndarray) -> int:
    """How many rows of ``one`` are among the rows of ``two``, both ``[n, 16]`` digests."""
    if not len(one) or not len(two):
        return 0
    return int(np.isin(_scalars(one), np.unique(_scalars(two))).sum())


def _scalars(digests: np.ndarray) -> np.ndarray:
    # Plain bytes of a fixed length: they sort and compare whole, zeros at the end included.
    scalars: np.ndarray = np.ascontiguousarray(digests).view(f"V{DIGEST_BYTES}")[:, 0]
    return scalars


class Portion:
    """What was gathered over some units.

    Args:
        gathered: the statistics, to be updated by a recorder.
        with_digests: whether a digest of each unit is kept: 16 bytes a unit.

    Attributes:
        gathered: as given.
    """

    def __init__(self, gathered: Gathered, *, with_digests: bool) -> None:
        self.gathered = gathered
        self._digests: list[np.ndarray] | None = [] if with_digests else None

    @property
    def units(self) -> int:
        """How many units were gathered."""
        return int(self.gathered.units.sum())

    @property
    def digests(self) -> np.ndarray:
        """``[units, 16]`` uint8, in the order in which the units came; ``[0, 16]`` where none are kept."""
        if not self._digests:
            return np.zeros((0, DIGEST_BYTES), np.uint8)
        if len(self._digests) > 1:
            self._digests = [np.concatenate(self._digests)]
        return self._digests[0]

    @property
    def fingerprint(self) -> str:
        """A digest of the units in their order, hexadecimal: equal for two portions of the same units."""
        return hashlib.blake2b(self.digests.tobytes(), digest_size=DIGEST_BYTES).hexdigest()

    def note(self, inputs: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        """Keep the digests of a batch that ``gathered`` has taken in."""
        if self._digests is not None:
            self._digests.append(unit_digests(inputs, names))

    def merge(self, other: Portion) -> None:
        """Take in another portion of the same plan."""
        self.gathered.merge(other.gathered)
        if self._digests is not None:
            self._digests = [self.digests, other.digests]

    def state(self) -> dict[str, np.ndarray]:
        """All of it as arrays by name."""
        kept = {} if self._digests is None else {_DIGESTS: self.digests}
        return {**self.gathered.state(), **kept}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Become what :meth:`state` wrote down.

        Raises:
            ValueError: arrays of another plan, or not one digest for each unit.
        """
        rest = dict(arrays)
        digests = rest.pop(_DIGESTS, None)
        if (digests is None) != (self._digests is None):
            raise ValueError("no digests of the units" if digests is None else "digests of the units")
        self.gathered.restore(rest)
        if digests is not None:
            if digests.shape != (self.units, DIGEST_BYTES) or digests.dtype != np.uint8:
                raise ValueError(f"unit digests {digests.dtype} {list(digests.shape)} for {self.units} units")
            self._digests = [digests]
