"""How much memory there is, how much of it a process holds, and how much its work may hold unless told."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

GIB = 2**30
# Python, torch and the numbers of a small model; less would only get in the way.
_LEAST = 4 * GIB
# A batch as large as the verbs take unless told, with the gradient and one copy of each value.
_BATCH, _COPIES = 256, 3
_OF_A_WEIGHT = 16
_STATUS = "/proc/{}/status"
# What Linux cannot simply drop, wherever it lies: pages of a file that was mapped do not count.
_HELD = re.compile(rb"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB$", re.MULTILINE)
_CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")
COSTLY = not os.path.exists(_STATUS.format("self"))
"""Whether to look is to start a program, and so not to be done too often."""


def held_by(process: int) -> int:
    """Bytes of memory that a process holds; 0 where there is no such process.

    On Linux what is swapped out counts too, so that a full memory is no way round a limit. Elsewhere (macOS) it is the
    resident memory that ``ps`` tells.
    """
    return by_ps(process) if COSTLY else by_proc(process)


def by_proc(process: int) -> int:
    """From Linux's own files."""
    try:
        status = Path(_STATUS.format(process)).read_bytes()
    except OSError:
        return 0
    return 1024 * sum(map(int, _HELD.findall(status)))


def by_ps(process: int) -> int:
    """From the program that every POSIX system has."""
    words = ("ps", "-o", "rss=", "-p", str(process))
    done = subprocess.run(words, capture_output=True, check=False)  # noqa: S603 - a number, and no shell
    return 1024 * int(done.stdout) if done.stdout.strip().isdigit() else 0


def of_the_machine() -> int:
    """Bytes of memory of this machine, or of the container; of one process's share of it under torchrun."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        granted = _CONTROL_GROUP.read_text().strip()
    except OSError:
        granted = ""
    there = min(there, int(granted)) if granted.isdigit() else there
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return there // max(int(processes) if processes.isdigit() else 1, 1)


def allowed(unit: int = 0, weights: int = 0) -> int:
    """What the work may hold unless told.

    Half of the machine's memory (4 GiB at least), or what training on batches of 256 units takes if that is more, and
    never more than nine tenths of the machine's.

    Args:
        unit: bytes of all values of a graph, for one unit, as far as its shapes tell.
        weights: bytes of its constants.
    """
    machine = of_the_machine()
    needed = unit * _BATCH * _COPIES + weights * _OF_A_WEIGHT
    return min(max(_LEAST, machine // 2, needed), machine * 9 // 10)


def in_words(count: int) -> str:
    """``4.0 GiB``, ``512 MiB``."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"
