"""``python spec/reader FOLDER``: whether a bundle is valid, as ``spec/vectors/README.md`` asks of a reader."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reader import Refused, read

errors, code = [], 0
try:
    read(sys.argv[-1])
except Refused as problem:
    errors = [{"code": problem.code, "where": problem.where}]
    code = 3 if problem.code in ("unsupported-version", "unsupported-feature", "reader-memory") else 1
print(json.dumps({"valid": not errors, "errors": errors, "not_examined": ["graph"]}))
sys.exit(code)
