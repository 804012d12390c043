"""Fuzz the reader: ``python tools/fuzz/run.py`` until each target has had its executions; a table says what was found.

    python tools/fuzz/run.py                                     every target: a million or 100,000 executions
    python tools/fuzz/run.py --target graph --seconds 60         one target, for a minute
    python tools/fuzz/run.py --executions 2000 --json f.json     a quick look, with the same facts as JSON

It sets up what it needs: the project's environment where its packages are missing, and Atheris, which is kept apart
from it. Executions add up over calls in the same folder, until ``--fresh``; so does the corpus. Every finding is kept
there as a file, with a text beside it, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ledger import EXTENTS, codes_in, counts_in

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "tools" / "constraints.txt"
WORKER = Path(__file__).with_name("worker.py")
_NEEDED = ("pydantic", "numpy", "onnx", "safetensors")
# Of the wall clock, for one input: a loop without an end. What is only slow is measured in processor time.
_ENDLESS_SECONDS = 600
_MEMORY_MIB = 4096
_MOST_DEATHS = 20
# libFuzzer's own exit code when somebody stops it, which is no finding.
_INTERRUPTED = 72
_SORTS = (("crash-", "oom-", "leak-", "died-"), ("hang-", "timeout-"), ("exception-",))
"""How the files of crashes, of hangs and of other exceptions begin."""

_COVERAGE = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one target.

    Attributes:
        target: its name.
        executions: inputs examined, over all calls.
        accepted: those that were not refused.
        codes: different reasons for a refusal.
        crashes: inputs that ended the process, by a signal or by memory.
        hangs: inputs that took too long.
        exceptions: inputs with another error than dfmeta's own, or that showed one of its promises false.
        edges: branches taken, as libFuzzer counts them.
        features: branches by how often they were taken.
        corpus: inputs kept because each of them reached something new.
        slowest: processor seconds of the slowest input.
        seconds: wall time of this call.
    """

    target: str
    executions: int
    accepted: int
    codes: int
    crashes: int
    hangs: int
    exceptions: int
    edges: int
    features: int
    corpus: int
    slowest: float
    seconds: float

    @property
    def findings(self) -> int:
        """How many there are, of any sort."""
        return self.crashes + self.hangs + self.exceptions


def main(words: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 without a finding, 1 with one, 3 where something could not be set up.
    """
    options = _options(words)
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        return _in_environment(sys.argv[1:] if words is None else list(words))
    packages = _atheris(options.folder)
    if packages is None:
        return 3
    rows = []
    for name in options.target or list(EXTENTS):
        executions = options.executions or EXTENTS[name].executions
        folder = _prepared(options.folder / name, name, options.fresh)
        rows.append(fuzz(name, folder, packages, executions, options.seconds, options.seed))
        _tell(f"{name}: {json.dumps(asdict(rows[-1]))}")
    print(table(rows))
    for file in (file for name in options.target or EXTENTS for file in findings(options.folder / name)):
        _tell(f"finding: {file}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 1 if any(row.findings for row in rows) else 0


def fuzz(name: str, folder: Path, packages: Path, executions: int, seconds: int | None, seed: int) -> Row:
    """Run one target until it has had its executions or its time.

    Args:
        name: of the target.
        folder: where its corpus and findings are.
        packages: where Atheris is.
        executions: how many there shall be in all.
        seconds: how long this call may take; None for as long as it needs.
        seed: of the random numbers.
    """
    begun, log = time.monotonic(), folder / "log"
    log.write_bytes(b"")
    for death in range(_MOST_DEATHS):
        done = counts_in(folder).executions
        left = None if seconds is None else int(seconds - (time.monotonic() - begun))
        if done >= executions or (left is not None and left <= 0):
            break
        code = _worker(name, folder, packages, executions - done, left, seed + done)
        if code in (_INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
            break
        if code not in (0, 70, 71, 76, 77):
            # Neither libFuzzer's own end nor one of which it could keep the input.
            (folder / f"died-{done}-{death}").write_text(
                f"exit code {code} after {counts_in(folder).executions} executions\n"
            )
    return _row(name, folder, time.monotonic() - begun)


def _worker(name: str, folder: Path, packages: Path, runs: int, seconds: int | None, seed: int) -> int:
    command = [sys.executable, str(WORKER), name, str(folder), f"-runs={runs}", f"-max_len={EXTENTS[name].longest}"]
    command += [f"-timeout={_ENDLESS_SECONDS}", f"-rss_limit_mb={_MEMORY_MIB}", f"-seed={seed % 2**31 or 1}"]
    command += [f"-artifact_prefix={folder}/", "-reload=0", "-print_final_stats=1"]
    command += [] if seconds is None else [f"-max_total_time={seconds}"]
    with (folder / "log").open("ab") as log:
        return subprocess.run(command, env=_environment(packages), stdout=log, stderr=log, check=False).returncode


def _row(name: str, folder: Path, seconds: float) -> Row:
    counts, codes = counts_in(folder), codes_in(folder)
    seen = _COVERAGE.findall((folder / "log").read_text(errors="replace"))
    edges, features, corpus = map(int, seen[-1]) if seen else (0, 0, 0)
    crashes, hangs, exceptions = (len(findings(folder, heads)) for heads in _SORTS)
    return Row(
        name,
        counts.executions,
        counts.accepted,
        len(codes),
        crashes,
        hangs,
        exceptions,
        edges,
        features,
        corpus,
        round(counts.slowest, 3),
        round(seconds, 1),
    )


def findings(folder: Path, heads: tuple[str, ...] = (*_SORTS[0], *_SORTS[1], *_SORTS[2])) -> list[Path]:
    """The inputs of a target that are findings, or those of one sort."""
    files = (file for file in sorted(folder.glob("*")) if file.is_file() and file.suffix != ".txt")
    return [file for file in files if file.name.startswith(heads)]


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    heads = list(Row.__dataclass_fields__)
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        lines += [[f"{value:,}" if isinstance(value, int) else str(value) for value in asdict(row).values()]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", action="append", choices=list(EXTENTS), help="only this one; may be repeated")
    parser.add_argument("--executions", type=int, help="in all, for each target")
    parser.add_argument("--seconds", type=int, help="at most, for each target in this call")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the table there too")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz", help="of corpora and findings")
    parser.add_argument("--fresh", action="store_true", help="begin anew: forget corpora, counts and findings")
    options = parser.parse_args(words)
    options.folder = options.folder.resolve()
    return options


def _in_environment(words: list[str]) -> int:
    """The same command in the project's own environment."""
    dev = str(ROOT / "tools" / "dev.py")
    code = subprocess.run([sys.executable, dev, "setup"], check=False).returncode
    if code:
        return 3
    python = ROOT / ".venv" / "bin" / "python"
    return subprocess.run([str(python), __file__, *words], check=False).returncode


def _atheris(folder: Path) -> Path | None:
    """Where Atheris is, installed there first if need be; None where it cannot be had."""
    pins = [line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("atheris==")]
    packages = folder / "packages" / pins[0]
    if not packages.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        staged = packages.with_name("unfinished")
        code = subprocess.run([*pip, "--target", str(staged), *pins], stdout=2, check=False).returncode
        if code:
            _tell(f"{pins[0]} cannot be installed here: it has wheels for Linux on x86-64 and some versions of Python.")
            return None
        staged.rename(packages)
    return packages


def _prepared(folder: Path, name: str, fresh: bool) -> Path:
    """A target's folder, with its seeds."""
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        # Here, as it brings onnx, without which this module must be able to start.
        from corpus import write_seeds

        write_seeds(name, EXTENTS[name].longest, corpus)
    return folder


def _environment(packages: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(packages)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
