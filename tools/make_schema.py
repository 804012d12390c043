"""Write the published JSON Schemas from the models: ``spec/schema``.

Run with ``--check`` to exit 1 where a file on disk differs from what this script would write.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dfmeta.schema import json_schema
from dfmeta.schema.v1 import FORMAT_VERSION

ROOT = Path(__file__).resolve().parent.parent / "spec" / "schema"


def schemas() -> dict[Path, str]:
    """The text of each schema, by the file it belongs in."""
    names = {
        f"dfmeta-{FORMAT_VERSION}.schema.json": False,
        f"dfmeta-{FORMAT_VERSION}.strict.schema.json": True,
    }
    return {
        ROOT / name: json.dumps(json_schema(strict), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, strict in names.items()
    }


def main() -> int:
    """Write the schemas, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the disk differs")
    check = parser.parse_args().check
    status = 0
    for path, text in schemas().items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if check:
            print(f"{path.name}: stale. Run: python tools/make_schema.py", file=sys.stderr)
            status = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"{path.name}: written")
    return status


if __name__ == "__main__":
    sys.exit(main())
