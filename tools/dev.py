"""One command for everything a developer does.

    python3 tools/dev.py setup          make .venv and install dfmeta with all extras and the developer tools
    python3 tools/dev.py demo --json    run `dfmeta demo`; further words are passed on
    python3 tools/dev.py test -k moments    run the tests; further words are passed on to pytest
    python3 tools/dev.py check          what CI runs: format, lint, types, floors, schema and vectors fresh, tests

It needs nothing but Python 3.11 or later. Every verb sets up first, which is instant when nothing changed.
What it does goes to stderr, so stdout holds only what the verb itself prints.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shlex
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "tools" / "constraints.txt"
STAMP = VENV / "dfmeta-setup.sha256"


def main(words: list[str]) -> int:
    """Run one verb.

    Args:
        words: the verb, and what it passes on.

    Returns:
        The exit code: that of the first step that failed, or 0; 2 for wrong use.
    """
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        say(f"This is Python {found}, and dfmeta needs 3.11 or later. Run: python3.11 tools/dev.py")
        return 3
    verb, rest = (words[0], words[1:]) if words else ("", [])
    verbs = {"demo": demo, "test": test, "check": check}
    if verb not in verbs and words != ["setup"]:
        say(__doc__ or "")
        return 0 if verb in ("-h", "--help", "help") else 2
    code = setup()
    return code if code or verb == "setup" else verbs[verb](rest)


def setup() -> int:
    """Make ``.venv`` what pyproject.toml and the constraints say, unless it is already."""
    wanted = digest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return 0
    STAMP.unlink(missing_ok=True)
    if not same_python():
        code = run([sys.executable, "-m", "venv", "--clear", str(VENV)])
        if code:
            return code
    # The option does not reach the environment in which pip builds dfmeta itself. These variables do: the
    # first in older versions of pip, the second in newer ones.
    pins = {"PIP_CONSTRAINT": str(CONSTRAINTS), "PIP_BUILD_CONSTRAINT": str(CONSTRAINTS)}
    pip = [tool("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    code = run([*pip, "-c", str(CONSTRAINTS), "-e", ".[all]", *dev_requirements()], pins)
    if code == 0:
        STAMP.write_text(wanted)
    return code


def demo(words: list[str]) -> int:
    """Run ``dfmeta demo``, into a folder of its own each time unless one is named."""
    if not any(word == "--out" or word.startswith("--out=") for word in words):
        free = (name for number in itertools.count(1) if not os.path.lexists(name := f"demo-{number}"))
        words = ["--out", next(free), *words]
    return run([tool("python"), "-m", "dfmeta", "demo", *words], stdout=None)


def test(words: list[str]) -> int:
    """Run the tests, a file on each core at a time; torch's own threads would only wait for each other."""
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return run([tool("python"), "-m", "pytest", "-n", "auto", "--dist", "loadfile", *words], threads, stdout=None)


def check(words: list[str]) -> int:
    """Run every check, cheapest first; the first that fails ends it."""
    steps = [
        [tool("ruff"), "format", "--check", "."],
        [tool("ruff"), "check", "."],
        [tool("mypy")],
        [tool("lint-imports")],
        [tool("python"), "tools/make_schema.py", "--check"],
        [tool("python"), "tools/make_vectors.py", "--check"],
        [sys.executable, "tools/dev.py", "test", *words],
    ]
    for step in steps:
        code = run(step, stdout=None)
        if code:
            say(f"FAILED ({code}): {shlex.join(step)}")
            return code
    say("All checks passed.")
    return 0


def digest() -> str:
    """What the installed environment depends on, as one hex digest."""
    state = hashlib.sha256(sys.version.encode())
    for file in (PROJECT, CONSTRAINTS):
        state.update(hashlib.sha256(file.read_bytes()).digest())
    return state.hexdigest()


def same_python() -> bool:
    """Whether ``.venv`` was made by this very version of Python."""
    config = VENV / "pyvenv.cfg"
    version = ".".join(map(str, sys.version_info[:3]))
    return config.is_file() and f"version = {version}\n" in config.read_text() and Path(tool("python")).exists()


def dev_requirements() -> list[str]:
    """The developer tools, from pyproject.toml's dependency group."""
    import tomllib  # Here, so that an older Python reaches the message about its age.

    with PROJECT.open("rb") as file:
        requirements: list[str] = tomllib.load(file)["dependency-groups"]["dev"]
    return requirements


def tool(name: str) -> str:
    """The path of a program inside ``.venv``."""
    return str(VENV / ("Scripts" if os.name == "nt" else "bin") / name)


def run(command: list[str], extra: dict[str, str] | None = None, *, stdout: int | None = 2) -> int:
    """Show a command, run it in the repository root, and give its exit code.

    Args:
        command: the program and its arguments.
        extra: environment variables to add.
        stdout: where its output goes: file descriptor 2 (stderr) unless it is the verb's own (None).
    """
    say(f"$ {shlex.join(command)}")
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **(extra or {})}, stdout=stdout, check=False).returncode


def say(text: str) -> None:
    """Tell the developer, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
