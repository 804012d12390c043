"""A program for test_crash.py: write the sample bundle, and be killed or refused at the N-th system call.

For each N it forks a child that writes to ``<folder>/<N>/bundle`` and dies there; it prints one JSON line for
each child, and ends after the first child that came through unharmed.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dfmeta.bundle import Bundle, write_bundle, write_file
from dfmeta.errors import DfmetaError

CALLS = ("open", "write", "fsync", "close", "mkdir", "rename", "link", "unlink", "rmdir")
LIMIT = 500


def parts(kept: Path) -> tuple[Any, dict[str, Any]]:
    opened = Bundle.open(kept)
    members: dict[str, Any] = {file.path: opened.member(file.id) for file in opened.manifest.files}
    return opened.manifest, members


def kill(real: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if real is REAL["write"]:
        # Half of the bytes reach the file: the worst moment to die.
        real(arguments[0], arguments[1][: len(arguments[1]) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(real: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


REAL = {name: getattr(os, name) for name in CALLS}
# The calls that a full disk may refuse are fewer than those at which a process may die.
FAULTS = {"kill": (kill, CALLS), "full": (refuse, ("write", "fsync", "mkdir", "rename", "link"))}


def arm(fault: Callable[..., None], names: tuple[str, ...], at: int) -> list[int]:
    """Have ``fault`` happen at the ``at``-th of these calls; the list holds the number of calls so far."""
    count = [0]

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == at:
                fault(real, arguments)
            return real(*arguments, **options)

        return call

    for name in names:
        setattr(os, name, wrap(REAL[name]))
    return count


def child(fault: str, what: str, at: int, target: Path, given: tuple[Any, dict[str, Any]]) -> int:
    manifest, members = given
    if fault == "limit":
        # A real limit of the kernel: no file may grow beyond this many bytes.
        resource.setrlimit(resource.RLIMIT_FSIZE, (at * 256, at * 256))
    count = [at] if fault == "limit" else arm(*FAULTS[fault], at)
    try:
        if what == "bundle":
            write_bundle(target / "bundle", manifest, members)
        else:
            write_file(target / "file", members["dfmeta/records.safetensors"])
    except DfmetaError as error:
        (target / "error").symlink_to(f"{type(error).__name__}: {error}"[:250].replace("/", "|"))
        return 1
    return 0 if fault == "limit" or count[0] < at else 2


def main(fault: str, what: str, folder: str, kept: str) -> None:
    given = parts(Path(kept))
    for at in range(1, LIMIT):
        target = Path(folder) / str(at)
        target.mkdir(parents=True)
        process = os.fork()
        if process == 0:
            os._exit(child(fault, what, at, target, given))
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(json.dumps({"at": at, "status": status}), flush=True)
        if status == 0:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
