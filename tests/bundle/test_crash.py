"""What is left when writing is killed, or when the disk refuses: nothing visible, or a whole valid result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfmeta.bundle import validate

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "compat" / "0.1.0" / "moments"
SIDECAR = (KEPT / "dfmeta" / "records.safetensors").read_bytes()
KILLED, REFUSED, UNHARMED, LATE = -9, 1, 0, 2


def run(fault: str, what: str, folder: Path) -> dict[int, int]:
    """The exit status of each child, by the call at which it met the fault."""
    script = str(Path(__file__).with_name("crashing_writer.py"))
    command = [sys.executable, "-W", "error", script, fault, what, str(folder), str(KEPT)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=120)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["status"] == UNHARMED
    return {line["at"]: line["status"] for line in lines}


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name != "error")


@pytest.mark.parametrize("what", ["bundle", "file"])
def test_killed_at_every_call(tmp_path, what):
    statuses = run("kill", what, tmp_path)
    assert len(statuses) > (60 if what == "bundle" else 8)
    seen = set()
    for at, status in statuses.items():
        assert status in (KILLED, UNHARMED)
        left = visible(tmp_path / str(at))
        seen.add(tuple(left))
        assert left in ([], [what])
        if left == ["bundle"]:
            assert validate(tmp_path / str(at) / "bundle").valid
        elif left == ["file"]:
            assert (tmp_path / str(at) / "file").read_bytes() == SIDECAR
    # The kills reached both sides of the commit.
    assert seen == {(), (what,)}


@pytest.mark.parametrize("what", ["bundle", "file"])
def test_a_disk_that_is_full_at_every_call(tmp_path, what):
    statuses = run("full", what, tmp_path)
    refused = [at for at, status in statuses.items() if status == REFUSED]
    assert len(refused) >= (10 if what == "bundle" else 3)
    for at in refused:
        folder = tmp_path / str(at)
        text = os.readlink(folder / "error")
        assert text.startswith("BundleError: ")
        assert "no space left on device" in text.lower()
        if "power failure" in text:
            # Only the last flush of the parent failed: the result is in place, and the error says so.
            assert visible(folder) == [what]
        else:
            assert "Nothing was written" in text
            assert list(folder.iterdir()) == [folder / "error"]
    for at in statuses.keys() - set(refused):
        assert visible(tmp_path / str(at)) == [what]


@pytest.mark.parametrize("what", ["bundle", "file"])
def test_a_real_limit_of_the_kernel(tmp_path, what):
    statuses = run("limit", what, tmp_path)
    assert statuses[1] == REFUSED
    for at, status in statuses.items():
        folder = tmp_path / str(at)
        if status == REFUSED:
            assert "file too large" in os.readlink(folder / "error").lower()
            assert list(folder.iterdir()) == [folder / "error"]
        else:
            assert visible(folder) == [what]
