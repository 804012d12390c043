"""What happens to each input: counted in a file that survives the process, and kept where it is a finding."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from pathlib import Path

from ledger import Ledger
from targets import Target

from dfmeta.errors import DfmetaError, GraphError, SchemaError, UnsupportedVersion

SLOW_SECONDS = 5.0
"""Processor seconds beyond which one input of at most 64 KiB counts as a hang."""


class Watch:
    """Examines inputs, one after the other.

    Args:
        target: what examines them.
        folder: for the counts, the codes met, and the findings; it exists.
    """

    def __init__(self, target: Target, folder: Path) -> None:
        self._target, self._folder, self._ledger = target, folder, Ledger(folder)

    def __call__(self, raw: bytes) -> None:
        """Examine one input; never raises but for an interrupt."""
        begun = time.process_time()
        codes: set[str] = set()
        try:
            codes = self._examined(raw)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what we are looking for
            codes = {type(error).__name__}
            self._keep("exception", _place(error), raw, "".join(traceback.format_exception(error)))
        taken = time.process_time() - begun
        if taken > SLOW_SECONDS:
            self._keep("hang", f"{taken:.0f}s", raw, f"{taken:.1f} processor seconds\n")
        self._ledger.add(codes, taken)

    def _examined(self, raw: bytes) -> set[str]:
        try:
            return self._target(raw)
        except DfmetaError as error:
            # Whoever is told must be able to read it: as one text, and as JSON.
            str(error).encode()
            json.dumps(error.as_dict()).encode()
            return codes_of(error)

    def _keep(self, sort: str, place: str, raw: bytes, text: str) -> None:
        """One finding for each place: a second input that gets there says nothing new."""
        name = f"{sort}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        if not (self._folder / name).exists():
            (self._folder / f"{name}.txt").write_text(text, errors="backslashreplace")
            (self._folder / name).write_bytes(raw)


def codes_of(error: DfmetaError) -> set[str]:
    """The stable codes that an error carries; its type where it has none."""
    if isinstance(error, SchemaError):
        return {problem.code for problem in error.problems}
    return {error.code if isinstance(error, GraphError | UnsupportedVersion) else type(error).__name__}


def _place(error: BaseException) -> str:
    """What makes two findings one: the type, and the innermost lines of the project's own."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f"{frame.filename}:{frame.lineno}" for frame in frames if "dfmeta" in frame.filename]
    cause = type(error.__cause__).__name__
    return " ".join(
        [type(error).__name__, cause, *ours[-2:], str(error)[:40] if type(error).__name__ == "Broken" else ""]
    )
