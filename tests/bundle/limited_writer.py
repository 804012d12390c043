"""A program for test_crash.py: write under a real limit of the kernel on the size of files.

For each N it forks a child that writes to ``<folder>/<N>/<what>`` and may write files of N blocks; it prints one JSON
line for each child, and ends after the first that came through.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from dfmeta.bundle import Bundle, write_bundle, write_file
from dfmeta.errors import DfmetaError

BLOCK, MOST = 256, 500


def parts(kept: Path) -> tuple[Any, dict[str, Any]]:
    opened = Bundle.open(kept)
    members: dict[str, Any] = {file.path: opened.member(file.id) for file in opened.manifest.files}
    return opened.manifest, members


def child(what: str, at: int, target: Path, given: tuple[Any, dict[str, Any]]) -> int:
    manifest, members = given
    resource.setrlimit(resource.RLIMIT_FSIZE, (at * BLOCK, at * BLOCK))
    try:
        if what == "bundle":
            write_bundle(target / "bundle", manifest, members)
        else:
            write_file(target / "file", members["dfmeta/records.safetensors"])
    except DfmetaError as error:
        # A link holds text without a file that would need room.
        (target / "error").symlink_to(f"{type(error).__name__}: {error}"[:250].replace("/", "|"))
        return 1
    return 0


def main(what: str, folder: str, kept: str) -> None:
    given = parts(Path(kept))
    for at in range(1, MOST):
        target = Path(folder) / str(at)
        target.mkdir(parents=True)
        process = os.fork()
        if process == 0:
            os._exit(child(what, at, target, given))
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(json.dumps({"at": at, "status": status}), flush=True)
        if status == 0:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
