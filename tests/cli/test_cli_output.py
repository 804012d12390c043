"""Documents, texts and progress."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from dfmeta.cli import options, output
from dfmeta.cli.progress import Lines, _Bars, _bars


@dataclass(frozen=True)
class Facts:
    path: Path
    loss: float
    names: tuple[str, ...]


def test_a_document_holds_json_types_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output.document({"facts": Facts(Path("a"), float("nan"), ("b", "é")), "more": {1: [None, True]}})
    printed = capsys.readouterr().out
    found = json.loads(printed)
    assert found == {"facts": {"path": "a", "loss": None, "names": ["b", "é"]}, "more": {"1": [None, True]}}
    assert printed.isascii()


def test_a_line_on_stderr_is_never_wrapped_and_never_controls(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"{'long ' * 60}\x1b[31m[red]\n  second", "error")
    printed = capsys.readouterr().err
    assert printed == f"error: {'long ' * 60}\\x1b[31m[red]\n  second\n"


def test_lines_are_few() -> None:
    stream, now = io.StringIO(), [0.0]
    lines = Lines(stream, clock=lambda: now[0])
    for done in range(1, 1001):
        now[0] += 0.01
        lines("distill", done, 1000, 0.5)
    # Ten seconds of work: one line at most every two seconds, and the last.
    assert stream.getvalue().splitlines()[-1] == "distill: 1000 of 1000, loss 0.5"
    assert len(stream.getvalue().splitlines()) == 5


def test_a_slow_stage_has_a_line_for_each_tenth() -> None:
    stream, now = io.StringIO(), [0.0]
    lines = Lines(stream, clock=lambda: now[0])
    for done in range(1, 101):
        now[0] += 10
        lines("record", done, 100, 0.0)
    assert stream.getvalue().splitlines() == [f"record: {done} of 100" for done in range(10, 101, 10)]


def test_bars_name_their_stage() -> None:
    from rich.console import Console

    stream = io.StringIO()
    with _bars(Console(file=stream, force_terminal=True, width=100)) as bars:
        shown = _Bars(bars)
        shown("synthesise", 3, 3, 0.25)
        shown("distill", 1, 2, 0.0)
    text = stream.getvalue()
    assert all(part in text for part in ("synthesise", "3/3", "loss 0.25", "distill", "1/2"))


def test_numbers_may_be_fractions() -> None:
    assert options.numbers("--mean", "0.5,1/4,-2e-1") == [0.5, 0.25, -0.2]
    assert options.whole("--pad", "1,2,3,4", 1, 4) == [1, 2, 3, 4]


def test_all_flags_become_operations(tmp_path: Path) -> None:
    made = options.preprocessing("1/255", "0.5", "0.25", "2", "-2", "32,24", None)
    assert [op.op for op in made] == ["resize", "rescale", "normalize", "pad"]
    dumped = [op.model_dump(mode="json") for op in made]
    assert dumped[0]["size"] == [32, 24]
    assert dumped[3] == {"op": "pad", "pixels": 2, "value": -2.0}
    path = tmp_path / "ops.json"
    path.write_text(json.dumps(dumped))
    assert options.preprocessing(None, None, None, None, "0", None, path) == made
