"""One process of fuzzing: ``worker.py TARGET FOLDER [libFuzzer's own options]``; run.py starts it.

Atheris instruments the modules of dfmeta, so that libFuzzer sees which branches each input takes and keeps those that
take new ones. Exceptions are kept by :class:`watch.Watch` and the run goes on; what ends the process (a signal, a wall
clock that runs out, memory) is left to libFuzzer, which writes the input down before it dies.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["dfmeta"]):
    import corpus
    from targets import TARGETS
    from watch import Watch

    from dfmeta._catalog import KINDS

    # A kind is loaded when a record needs it, which would be after the instrumentation.
    for kind in KINDS.names():
        KINDS.load(kind, "spec")


def main(target: str, folder: str, *options: str) -> None:
    """Fuzz until libFuzzer has had enough."""
    change = corpus.mutator(target)

    def mutate(raw: bytes, limit: int, seed: int) -> bytes:
        return change(raw, limit, Random(seed), atheris.Mutate)  # noqa: S311 - repeatable is what it must be

    arguments = [sys.argv[0], *options, str(Path(folder, "corpus"))]
    atheris.Setup(arguments, Watch(TARGETS[target], Path(folder)), custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
