"""What a process tells the one that watches over it; nothing, where there is none.

The command line does the work of a verb in a child process and watches it (:mod:`dfmeta.cli.isolation`). The child says
what the watching needs: what lies half-written on the disk, when a graph is first run, and how large its values are.
Every other caller has no watcher, and pays for none of this.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Watcher(Protocol):
    """Who is told."""

    def stages(self, path: str) -> None:
        """Something is being written at ``path``, an absolute one: it is to go if this process is killed."""

    def settles(self, path: str) -> None:
        """Nothing is left to remove at ``path``."""

    def begins(self, where: str, what: str) -> int:
        """Something that must end in time begins.

        Args:
            where: the graph.
            what: in words, such as ``a first forward pass``.

        Returns:
            What to call it when it ends.
        """

    def ends(self, number: int) -> None:
        """It is done, or failed."""

    def sizes(self, where: str, largest: tuple[str, int], unit: int, weights: int) -> None:
        """A graph was loaded.

        Args:
            where: the graph.
            largest: name and bytes of its largest value.
            unit: bytes of all values of one unit.
            weights: bytes of its constants.

        Raises:
            LimitExceeded: it needs more memory than is allowed.
        """


_watcher: Watcher | None = None


def watch(watcher: Watcher | None) -> None:
    """Tell ``watcher`` from now on; nobody if None."""
    global _watcher
    _watcher = watcher


def watcher() -> Watcher | None:
    """Who is told now."""
    return _watcher


@contextmanager
def staging(path: str | os.PathLike[str]) -> Iterator[None]:
    """While the block runs, ``path`` is something that must not outlive a killed process."""
    if _watcher is None:
        yield
        return
    absolute = os.path.abspath(path)
    _watcher.stages(absolute)
    try:
        yield
    finally:
        _watcher.settles(absolute)


@contextmanager
def timed(where: str, what: str) -> Iterator[None]:
    """The block must end in time: it does what a graph asks for that nobody has run before."""
    if _watcher is None:
        yield
        return
    number = _watcher.begins(where, what)
    try:
        yield
    finally:
        _watcher.ends(number)


def loaded(where: str, sizes: Callable[[], tuple[tuple[str, int], int, int]]) -> None:
    """A graph was loaded; ``sizes`` is asked only where somebody wants to know (see :meth:`Watcher.sizes`).

    Raises:
        LimitExceeded: it needs more memory than is allowed.
    """
    if _watcher is not None:
        _watcher.sizes(where, *sizes())
