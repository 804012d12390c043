"""Threads for pieces of work that do not depend on one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Workers:
    """Runs pieces of work side by side, each on one core.

    Most of what statistics need is short or is done by torch on one core only: several statistics at once then keep
    all cores busy, where one after the other on all cores would not. What is inside a piece runs in its order, so
    that the numbers do not depend on how the pieces were spread.

    Args:
        count: threads; with 1 everything runs in the caller's own, as torch is set there.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ThreadPoolExecutor | None = None
        if count > 1:
            self._pool = _started(count)

    def run(self, pieces: Sequence[Callable[[], Result]]) -> list[Result]:
        """What each piece returns, in their order; the first error, by that order, if there is any.

        All have ended when this returns. Pieces are begun in the order given.
        """
        if self._pool is None:
            return [piece() for piece in pieces]
        found: dict[int, Result] = {}
        errors: dict[int, BaseException] = {}
        # One iterator for all: whoever is free takes the next piece.
        waiting = iter(list(enumerate(pieces)))

        def work() -> None:
            for number, piece in waiting:
                try:
                    found[number] = piece()
                except BaseException as error:  # noqa: BLE001 -- raised again below
                    errors[number] = error

        for done in [self._pool.submit(work) for _ in range(min(self._count, len(pieces)))]:
            done.result()
        if errors:
            raise errors[min(errors)]
        return [found[number] for number in range(len(pieces))]

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _started(count: int) -> ThreadPoolExecutor:
    """Threads that have begun, with torch on one core in each, and as it was in this one."""
    pool = ThreadPoolExecutor(count, "dfmeta-worker")
    before, together = torch.get_num_threads(), Barrier(count)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # settles it: a thread that never asked would take over what is set below
        together.wait()

    for begun in [pool.submit(begin) for _ in range(count)]:
        begun.result()
    torch.set_num_threads(before)
    return pool
