"""Progress on stderr: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

Report = Callable[[str, int, int, float], None]
"""Called with stage, steps done, steps in all, and the loss (0 where there is none)."""

# A line says something new: a tenth more is done, and this many seconds have passed.
_PARTS, _PAUSE = 10, 2.0


@contextlib.contextmanager
def shown() -> Iterator[Report]:
    """Give a callback that shows progress while the block runs.

    Whatever is printed meanwhile, such as by a user's own module, goes to stderr: stdout holds the result
    alone.
    """
    from rich.console import Console

    console = Console(file=sys.stderr)
    with contextlib.redirect_stdout(sys.stderr):
        if console.is_terminal and not console.is_dumb_terminal:
            with _bars(console) as bars:
                yield _Bars(bars)
        else:
            yield Lines(sys.stderr)


def _bars(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[loss]}"), console=console)


@dataclass
class _Bars:
    """One bar a stage."""

    bars: Progress
    stages: dict[str, TaskID] = field(default_factory=dict)

    def __call__(self, stage: str, done: int, total: int, loss: float) -> None:
        if stage not in self.stages:
            self.stages[stage] = self.bars.add_task(stage, total=total, loss="")
        self.bars.update(self.stages[stage], completed=done, total=total, loss=_loss(loss))


@dataclass
class Lines:
    """One line at most every tenth of a stage and every two seconds, and one at its end.

    Args:
        stream: where to write.
        clock: seconds, rising.
    """

    stream: TextIO
    clock: Callable[[], float] = time.monotonic
    _last: dict[str, tuple[int, float]] = field(default_factory=dict)

    def __call__(self, stage: str, done: int, total: int, loss: float) -> None:
        """Write a line if it says something new."""
        part, now = _PARTS * done // max(total, 1), self.clock()
        shown_part, shown_at = self._last.setdefault(stage, (0, now))
        if part > shown_part and (done >= total or now - shown_at >= _PAUSE):
            self._last[stage] = part, now
            text = f"{stage}: {done} of {total}{', ' if loss else ''}{_loss(loss)}"
            self.stream.write(f"{text}\n")
            self.stream.flush()


def _loss(loss: float) -> str:
    return f"loss {loss:.4g}" if loss else ""
