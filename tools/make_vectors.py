"""Write the conformance vectors of format 1.0: ``spec/vectors/1.0``.

Every case is one folder, made of two good bundles and one change; ``index.json`` says what a reader must find in each.
Run with ``--check`` to exit 1 where a file on disk differs from what this script would write.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from vectors import CASES

ROOT = Path(__file__).resolve().parent.parent / "spec" / "vectors" / "1.0"


def vectors() -> dict[str, bytes]:
    """Every file of the vectors, by path below the folder of vectors."""
    files: dict[str, bytes] = {}
    entries = []
    for case in sorted(CASES, key=lambda case: (case.folder, case.id)):
        made = case.build()
        entries.append(case.entry(made))
        files |= {f"{case.folder}/{case.id}/{path}": raw for path, raw in made.items()}
    names = [entry["id"] for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"cases of one name: {twice}")
    index = {"format_version": "1.0", "cases": entries}
    files["index.json"] = (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode()
    return files


def main() -> int:
    """Write the vectors, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the disk differs")
    check = parser.parse_args().check
    files = vectors()
    there = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()}
    stale = [name for name, raw in files.items() if name not in there or (ROOT / name).read_bytes() != raw]
    extra = sorted(there - files.keys())
    if check:
        for name in [*stale, *extra]:
            print(f"{name}: differs from what tools/make_vectors.py writes", file=sys.stderr)
        return 1 if stale or extra else 0
    for name in extra:
        (ROOT / name).unlink()
    for name in stale:
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
    for folder in sorted((path for path in ROOT.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    print(f"{len(files)} files, {len(stale)} written, {len(extra)} removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
