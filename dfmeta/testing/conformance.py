"""Any reader over the conformance vectors: ``python -m dfmeta.testing.conformance VECTORS -- COMMAND...``.

The command is run once for each case, with the case's folder as its last argument, and what it says is compared with
the index. ``spec/vectors/README.md`` says what a command must do. Nothing of dfmeta's own reader is used here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VALID, INVALID, UNSUPPORTED = 0, 1, 3
"""Exit codes of a reader."""

UNSUPPORTED_CODES = frozenset({"unsupported-version", "unsupported-feature"})
LIMIT_CODES = frozenset({"memory-limit", "time-limit"})
"""What a reader says of its own limits, and not of a bundle; so is any code that ends in ``-memory``."""
NOT_EXAMINED = "not-examined"
READER_LIMIT = "reader-limit"
OUTCOMES = ("agrees", NOT_EXAMINED, READER_LIMIT, "disagrees")
USAGE = "python -m dfmeta.testing.conformance VECTORS [--json] [--jobs N] [--timeout S] [--only TEXT] -- COMMAND..."


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reader said of one case.

    Attributes:
        exit_code: of the process.
        valid: what the document says; None where there is no readable document.
        codes: the codes of its errors, in their order.
        not_examined: what it did not look at.
        fault: what is wrong with the answer itself, or the empty string.
    """

    exit_code: int
    valid: bool | None = None
    codes: tuple[str, ...] = ()
    not_examined: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One case, what was asked and what was answered.

    Attributes:
        id: of the case.
        area: of the case.
        outcome: ``agrees``, ``not-examined``, ``reader-limit`` (the case takes more than the reader allows, which is no
            answer) or ``disagrees``.
        wanted: in words.
        found: in words.
    """

    id: str
    area: str
    outcome: str
    wanted: str
    found: str


Reader = Callable[[Path], Answer]


def index(vectors: Path) -> list[dict[str, Any]]:
    """The cases of a folder of vectors.

    Raises:
        OSError, ValueError: there is no index, or it is none.
    """
    document = json.loads((vectors / "index.json").read_bytes())
    cases = document.get("cases") if isinstance(document, dict) else None
    if not isinstance(cases, list):
        # The file's contents are wrong, and not an argument's type.
        raise ValueError(f"{vectors / 'index.json'}: found no list of cases")  # noqa: TRY004
    return cases


def judge(case: Mapping[str, Any], answer: Answer) -> Result:
    """Compare one answer with the index.

    Args:
        case: its entry.
        answer: what a reader said.
    """
    verdict, code = case["verdict"], case.get("code", "")
    wanted = verdict if verdict == "valid" else f"{verdict}: {code}"
    said = "valid" if answer.valid else ", ".join(answer.codes) or "no code"
    found = answer.fault or f"{said} (exit code {answer.exit_code})"
    if answer.fault:
        outcome = "disagrees"
    elif case["level"] == "graph" and "graph" in answer.not_examined and answer.valid:
        outcome = NOT_EXAMINED
    elif answer.exit_code == UNSUPPORTED and answer.codes and all(map(_of_the_reader, answer.codes)):
        outcome = READER_LIMIT
    else:
        refused = not answer.valid and set(answer.codes) == {code} and answer.exit_code == _exit_code(code)
        agrees = {"valid": bool(answer.valid), "invalid": refused, "acceptable": answer.valid or refused}[verdict]
        outcome = "agrees" if agrees else "disagrees"
    return Result(case["id"], case["area"], outcome, wanted, found)


def _of_the_reader(code: str) -> bool:
    return code in LIMIT_CODES or code.endswith("-memory")


def _exit_code(code: str) -> int:
    return UNSUPPORTED if code in UNSUPPORTED_CODES else INVALID


def command(words: Sequence[str], timeout: float) -> Reader:
    """A reader that is a program.

    Args:
        words: the program and its arguments; the folder comes last.
        timeout: seconds for one case.
    """

    def read(folder: Path) -> Answer:
        try:
            done = subprocess.run([*words, str(folder)], capture_output=True, timeout=timeout, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return Answer(-1, fault=f"no answer within {timeout:g} s")
        except OSError as error:
            return Answer(-1, fault=f"a command that does not run: {error.strerror}")
        return answer_of(done.returncode, done.stdout)

    return read


def answer_of(exit_code: int, output: bytes) -> Answer:
    """Read what a command printed.

    Args:
        exit_code: of the process.
        output: its standard output.
    """
    if exit_code not in (VALID, INVALID, UNSUPPORTED):
        return Answer(exit_code, fault=f"exit code {exit_code}")
    try:
        document = json.loads(output)
    except (ValueError, RecursionError):
        return Answer(exit_code, fault=f"{len(output)} bytes on stdout that are not one JSON document")
    fault = _document_fault(document)
    if fault:
        return Answer(exit_code, fault=fault)
    codes = tuple(error["code"] for error in document.get("errors", []))
    answer = Answer(exit_code, document["valid"], codes, tuple(document.get("not_examined", [])))
    if answer.valid != (exit_code == VALID) or answer.valid == bool(codes):
        contradiction = (
            f"valid {answer.valid}, {len(codes)} errors and exit code {exit_code}, which contradict each other"
        )
        return Answer(exit_code, fault=contradiction)
    return answer


def _document_fault(document: object) -> str:
    if not isinstance(document, dict) or not isinstance(document.get("valid"), bool):
        return "a document without a boolean 'valid'"
    errors, left = document.get("errors", []), document.get("not_examined", [])
    if not isinstance(errors, list) or not all(isinstance(e, dict) and isinstance(e.get("code"), str) for e in errors):
        return "'errors' that is not a list of objects with a 'code'"
    if not isinstance(left, list) or not all(isinstance(each, str) for each in left):
        return "'not_examined' that is not a list of strings"
    return ""


def run(vectors: Path, reader: Reader, *, jobs: int = 1, only: str = "") -> list[Result]:
    """Ask a reader about every case.

    Args:
        vectors: the folder of ``index.json``.
        reader: a folder to an answer.
        jobs: how many cases at a time.
        only: cases whose id or area holds this text; all when empty.
    """
    cases = [case for case in index(vectors) if only in case["id"] or only in case["area"]]
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        answers = pool.map(lambda case: reader(vectors / case["folder"] / case["id"]), cases)
        return [judge(case, answer) for case, answer in zip(cases, answers, strict=True)]


def table(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Counts of each area, in the order in which they come, and of all."""
    rows: dict[str, dict[str, Any]] = {}
    for result in results:
        for area in (result.area, "all"):
            row = rows.setdefault(area, {"area": area, "cases": 0, **dict.fromkeys(OUTCOMES, 0)})
            row["cases"] += 1
            row[result.outcome] += 1
    total = rows.pop("all", None)
    return [*rows.values(), *([total] if total else [])]


def _show(results: Sequence[Result]) -> str:
    heads = ("area", "cases", *OUTCOMES)
    lines = [f"{heads[0]:<12}" + "".join(f"{head:>14}" for head in heads[1:])]
    lines += [f"{row['area']:<12}" + "".join(f"{row[head]:>14}" for head in heads[1:]) for row in table(results)]
    lines += [
        f"{result.id}: found {result.found}, expected {result.wanted}."
        f"{' A limit of the reader: allow it more.' if result.outcome == READER_LIMIT else ''}"
        for result in results
        if result.outcome in (READER_LIMIT, "disagrees")
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one reader over the vectors.

    Args:
        arguments: in place of ``sys.argv[1:]``.

    Returns:
        0 where the reader agrees with all of them; 1 where it does not, or met a limit of its own; 2 for wrong use.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, words = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(prog="dfmeta.testing.conformance", usage=USAGE, description=__doc__)
    parser.add_argument("vectors", type=Path, help="the folder of index.json, such as spec/vectors/1.0")
    parser.add_argument("--json", action="store_true", help="print one JSON document in place of a table")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one case")
    parser.add_argument("--only", default="", help="cases whose id or area holds this text")
    options = parser.parse_args(own)
    if not words:
        parser.error("no command after --")
    try:
        results = run(options.vectors, command(words, options.timeout), jobs=options.jobs, only=options.only)
    except (OSError, ValueError) as error:
        parser.error(f"no vectors: {error}")
    agree = bool(results) and all(result.outcome in ("agrees", NOT_EXAMINED) for result in results)
    if options.json:
        facts = {"agrees": agree, "areas": table(results), "cases": [asdict(result) for result in results]}
        print(json.dumps(facts, indent=2))
    else:
        print(_show(results))
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
