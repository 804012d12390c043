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
# A line of /proc/self/cgroup: the hierarchy, its controllers (none in version 2), and the group's path in it.
_GROUP = re.compile(r"^\d+:([^:]*):(/.*)$", re.MULTILINE)
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


def granted(root: Path = Path("/")) -> list[int]:
    """Bytes that each control group of this process may hold: its own, and all above it, of version 2 and of version 1.

    A process in a container sees its own group as the root, or a path that is not mounted there: what is not there
    says nothing, and the root is asked in any case.

    Args:
        root: of the file system.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="replace")
    except OSError:
        lines = ""
    mounted = root / "sys/fs/cgroup"
    groups = [(mounted, "memory.max", "/"), (mounted / "memory", "memory.limit_in_bytes", "/")]
    for controllers, path in _GROUP.findall(lines):
        if not controllers:
            groups += [(mounted, "memory.max", path), (mounted / "unified", "memory.max", path)]
        elif "memory" in controllers.split(","):
            groups.append((mounted / "memory", "memory.limit_in_bytes", path))
    files = [top / above / name for top, name, path in groups for above in _up(path)]
    return [limit for limit in map(_limit, dict.fromkeys(files)) if limit is not None]


def _up(path: str) -> list[Path]:
    """A group and all above it. One outside of what is seen (``/../other``) is not looked for."""
    below = Path(path.strip("/"))
    return [Path()] if ".." in below.parts else [below, *below.parents]


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return None
    # Without a limit it says "max", or in version 1 a number beyond any machine.
    return int(text) if text.isascii() and text.isdigit() else None


def of_the_machine() -> int:
    """Bytes of memory of this machine, or of the container; of one process's share of it under torchrun."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    there = min([there, *granted()])
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
